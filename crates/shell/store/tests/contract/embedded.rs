//! The contract on the embedded engine, and what only a local disk can do wrong.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::embedded::Options;
use store::{Embedded, Expect, Range, Store, StoreError};

use crate::{cases, crash};

const CHILD_DIRECTORY: &str = "STORE_TEST_CHILD_DIRECTORY";

fn open(path: &Path) -> Arc<Embedded> {
    Arc::new(Embedded::open(path, Options::default()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    cases::all(open(dir.path())).await;
}

#[tokio::test]
async fn remembers_entries_and_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = store.put("/a".into(), "1".into(), Expect::Absent).await.unwrap();
    let second = store.put("/a".into(), "2".into(), Expect::Revision(first)).await.unwrap();
    let b = store.put("/b".into(), "3".into(), Expect::Absent).await.unwrap();
    let last = store.delete("/b".into(), b).await.unwrap();
    drop(store);
    let store = open(dir.path());
    let page = store.list(Range::prefix(""), 0, None).await.unwrap();
    assert_eq!((page.revision, page.entries.len()), (last, 1));
    assert_eq!((page.entries[0].create_revision, page.entries[0].mod_revision), (first, second));
    assert!(matches!(store.watch(Range::prefix(""), second).await, Err(StoreError::Compacted { .. })));
    store.watch(Range::prefix(""), last).await.map(drop).unwrap();
    assert_eq!(store.put("/b".into(), "4".into(), Expect::Absent).await.unwrap(), last + 1);
}

#[tokio::test]
async fn slow_watcher_ends_and_memory_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { history_events_max: 10, ..Options::default() };
    let store = Embedded::open(dir.path(), options).unwrap();
    let mut watch = store.watch(Range::prefix("/"), store.revision().await.unwrap()).await.unwrap();
    for step in 0..11 {
        store.put(format!("/{step}").into(), Bytes::new(), Expect::Absent).await.unwrap();
    }
    assert!(matches!(watch.next().await, Some(Err(StoreError::Compacted { .. }))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn closing_ends_watches() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch(Range::prefix("/"), 1).await.unwrap();
    drop(store);
    assert!(matches!(watch.next().await, Some(Err(StoreError::Unavailable(_)))));
}

/// Not a test by itself: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_writes_until_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let store = open(Path::new(&directory));
    crash::load(store, |ack| {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "ack {} {} {}", ack.writer, ack.step, ack.revision);
        let _ = out.flush();
    })
    .await;
}

fn child(directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "embedded::child_writes_until_killed", "--nocapture"]).env(CHILD_DIRECTORY, directory);
    command
}

#[tokio::test]
async fn survives_kill_in_a_write_load() {
    for acks_before_kill in [1, 300, 5000] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child(dir.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut acks = Vec::new();
        // Lines in the pipe after the kill were acknowledged too.
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(rest) = line.strip_prefix("ack ") else { continue };
            let numbers: Vec<u64> = rest.split(' ').filter_map(|n| n.parse().ok()).collect();
            let [writer, step, revision] = numbers[..] else { continue };
            acks.push(crash::Ack { writer: writer as usize, step, revision });
            if acks.len() == acks_before_kill {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        crash::verify(&*open(dir.path()), &acks).await;
    }
}

/// A full disk, played by a limit on the size of files: writes fail, reads go on, and what was acknowledged stays.
#[tokio::test]
async fn full_disk_refuses_writes_and_recovers() {
    if let Ok(directory) = std::env::var("STORE_TEST_FULL_DIRECTORY") {
        return fill(Path::new(&directory)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::full_disk_refuses_writes_and_recovers", "--nocapture"])
        .env("STORE_TEST_FULL_DIRECTORY", dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = open(dir.path()).list(Range::prefix("/full/"), 0, None).await.unwrap();
    let written = String::from_utf8(output.stdout).unwrap();
    let written = written.lines().filter_map(|line| line.split("written ").nth(1)).next().unwrap();
    assert_eq!(page.entries.len().to_string(), written);
}

async fn fill(directory: &Path) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::signal::{SigHandler, Signal, signal};
    let store = open(directory);
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 256 * 1024, hard).unwrap();
    let put = |n: usize| store.put(format!("/full/{n}").into(), vec![b'x'; 10_000].into(), Expect::Absent);
    let mut written = 0;
    let error = loop {
        match put(written).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the limit was never met");
    };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(put(written).await.unwrap_err().is_retryable());
    assert_eq!(store.list(Range::prefix("/full/"), 0, None).await.unwrap().entries.len(), written);
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        match put(written).await {
            Ok(_) => break,
            Err(error) => assert!(error.is_retryable() && std::time::Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("written {}", written + 1);
}
