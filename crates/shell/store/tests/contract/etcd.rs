//! The contract on a private etcd of this machine; skipped only where no etcd is installed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use store::{Etcd, EtcdConfig, Expect, Range, Store};

use crate::{cases, crash};

/// One member, killed and gone when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find_etcd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no etcd binary in PATH (Debian: apt-get install etcd-server)");
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(etcd: &Path, data: &Path, ports: (u16, u16)) -> Server {
    let [url, peer] = [ports.0, ports.1].map(|port| format!("http://127.0.0.1:{port}"));
    let child = Command::new(etcd)
        .args(["--name", "test", "--data-dir"])
        .arg(data)
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .arg(format!("--initial-cluster=test={peer}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Server { child, url }
}

async fn connect(endpoints: Vec<String>) -> Arc<Etcd> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let config = EtcdConfig { endpoints: endpoints.clone(), prefix: "/test".to_owned() };
        match Etcd::connect(config).await {
            Ok(store) => return Arc::new(store),
            Err(error) => assert!(error.is_retryable() && Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let Some(etcd) = find_etcd() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = start(&etcd, dir.path(), (free_port(), free_port()));
    cases::all(connect(vec![server.url.clone()]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_kill_in_a_write_load() {
    let Some(etcd) = find_etcd() else { return };
    let dir = tempfile::tempdir().unwrap();
    let ports = (free_port(), free_port());
    let server = start(&etcd, dir.path(), ports);
    let store = connect(vec![server.url.clone()]).await;
    let acks = Arc::new(Mutex::new(Vec::new()));
    let (seen, server) = (acks.clone(), Mutex::new(Some(server)));
    let acked = move |ack| {
        let mut seen = seen.lock().unwrap();
        seen.push(ack);
        if seen.len() == 1000 {
            drop(server.lock().unwrap().take());
        }
    };
    crash::load(store, acked).await;
    let server = start(&etcd, dir.path(), ports);
    let store = connect(vec![server.url.clone()]).await;
    let acks = acks.lock().unwrap().clone();
    assert!(acks.len() >= 1000);
    crash::verify(&*store, &acks).await;
}

#[tokio::test]
async fn reads_pass_over_an_endpoint_that_is_away() {
    let Some(etcd) = find_etcd() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = start(&etcd, dir.path(), (free_port(), free_port()));
    let away = format!("http://127.0.0.1:{}", free_port());
    let store = connect(vec![away, server.url.clone()]).await;
    store.put("/a".into(), "1".into(), Expect::Absent).await.unwrap();
    assert_eq!(store.list(Range::prefix(""), 0, None).await.unwrap().entries.len(), 1);
    drop(server);
    assert!(store.get(b"/a").await.unwrap_err().is_retryable());
}
