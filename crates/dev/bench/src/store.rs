//! Durable writes a second, the embedded store and a private etcd in turn on the same disk.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::future::join_all;
use store::embedded::Options;
use store::{Embedded, Etcd, EtcdConfig, Expect, Store};

const WRITERS: [usize; 3] = [1, 16, 100];
const VALUE_BYTES: usize = 2048;
const ETCD_WITHIN: Duration = Duration::from_secs(20);

pub async fn run(directory: &Path, seconds: u64) -> Result<()> {
    let scratch = directory.join(format!("tug-bench-{}", std::process::id()));
    let outcome = compare(&scratch, Duration::from_secs(seconds)).await;
    let _ = std::fs::remove_dir_all(&scratch);
    outcome
}

async fn compare(scratch: &Path, time: Duration) -> Result<()> {
    std::fs::create_dir_all(scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let embedded: Arc<dyn Store> = Arc::new(Embedded::open(scratch.join("embedded"), Options::default())?);
    let server = Server::start(&scratch.join("etcd"));
    let etcd = match &server {
        Ok(server) => Some(server.connect().await?),
        Err(error) => {
            println!("without etcd to compare: {error:#}");
            None
        }
    };
    for writers in WRITERS {
        let ours = rate(embedded.clone(), writers, time).await?;
        match &etcd {
            Some(etcd) => {
                let theirs = rate(etcd.clone(), writers, time).await?;
                let ratio = ours / theirs;
                println!("{writers:3} writers: embedded {ours:.0}/s, etcd {theirs:.0}/s, ratio {ratio:.2}");
            }
            None => println!("{writers:3} writers: embedded {ours:.0}/s"),
        }
    }
    Ok(())
}

/// Creates of 2 KB a second, with each writer waiting for its own.
async fn rate(store: Arc<dyn Store>, writers: usize, time: Duration) -> Result<f64> {
    let (count, started) = (AtomicU64::new(0), Instant::now());
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let write = |writer: usize| {
        let (store, value, count) = (store.clone(), value.clone(), &count);
        async move {
            let mut index = 0u64;
            while started.elapsed() < time {
                let key = format!("/bench/{writers}/{writer}/{index}");
                store.put(key.into(), value.clone(), Expect::Absent).await?;
                count.fetch_add(1, Ordering::Relaxed);
                index += 1;
            }
            anyhow::Ok(())
        }
    };
    join_all((0..writers).map(write)).await.into_iter().collect::<Result<()>>()?;
    Ok(count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}

/// One etcd member, killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(data: &Path) -> Result<Self> {
        let port = || anyhow::Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let (url, peer) = (format!("http://127.0.0.1:{}", port()?), format!("http://127.0.0.1:{}", port()?));
        let child = Command::new("etcd")
            .args(["--name", "bench", "--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg(format!("--initial-cluster=bench={peer}"))
            .arg("--data-dir")
            .arg(data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("etcd does not start; Debian: apt-get install etcd-server")?;
        Ok(Self { child, url })
    }

    async fn connect(&self) -> Result<Arc<dyn Store>> {
        let end = Instant::now() + ETCD_WITHIN;
        loop {
            let config = EtcdConfig { endpoints: vec![self.url.clone()], prefix: "/bench".to_owned() };
            match Etcd::connect(config).await {
                Ok(store) => return Ok(Arc::new(store)),
                Err(error) if Instant::now() > end => return Err(error).context("etcd does not answer"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
