//! Listeners of one node: opened when a table has their port, closed when it has not, never a reason to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::certificates::{self, Store};
use crate::limits::WORKERS_MAX;
use crate::worker::{Accepted, Shared, Workers};

/// After an error of the listener itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

struct Open {
    tls: bool,
    stop: CancellationToken,
}

/// The open listeners and the threads behind them.
pub struct Listeners {
    addresses: Vec<IpAddr>,
    shared: Shared,
    certificates: Store,
    workers: Option<Arc<Workers>>,
    open: BTreeMap<u16, Open>,
    /// Ports that could not be opened, and have been told about.
    failed: BTreeSet<u16>,
}

impl Listeners {
    pub fn new(addresses: Vec<IpAddr>, shared: Shared, certificates: Store) -> Self {
        Self { addresses, shared, certificates, workers: None, open: BTreeMap::new(), failed: BTreeSet::new() }
    }

    /// Opens and closes so that exactly these ports (with TLS or without) are open; answers whether all of them are.
    pub async fn apply(&mut self, wanted: &BTreeMap<u16, bool>) -> bool {
        self.open.retain(|port, open| {
            let keep = wanted.get(port) == Some(&open.tls);
            if !keep {
                open.stop.cancel();
            }
            keep
        });
        self.failed.retain(|port| wanted.contains_key(port));
        for (port, tls) in wanted {
            if self.open.contains_key(port) {
                continue;
            }
            match self.start(*port, *tls).await {
                Ok(open) => {
                    tracing::info!(port, tls, "the ingress listens");
                    self.failed.remove(port);
                    self.open.insert(*port, open);
                }
                Err(error) => {
                    if self.failed.insert(*port) {
                        tracing::warn!(
                            port, addresses = ?self.addresses, error = format!("{error:#}"),
                            "the ingress cannot listen; free the port, or choose others in ConfigMap kube-system/tug-ingress"
                        );
                    }
                }
            }
        }
        if self.open.is_empty() {
            self.workers = None;
        }
        self.failed.is_empty()
    }

    /// The open ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.open.keys().copied()
    }

    async fn start(&mut self, port: u16, tls: bool) -> anyhow::Result<Open> {
        let mut listeners = Vec::new();
        for address in &self.addresses {
            listeners.push(TcpListener::bind(SocketAddr::new(*address, port)).await?);
        }
        let config = if tls {
            Some(Arc::new(certificates::server_config(port, &self.shared.serving, &self.certificates)?))
        } else {
            None
        };
        let workers = match &self.workers {
            Some(workers) => workers.clone(),
            None => {
                let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(WORKERS_MAX);
                let workers = Arc::new(Workers::start(count, &self.shared)?);
                self.workers.insert(workers).clone()
            }
        };
        let stop = CancellationToken::new();
        for listener in listeners {
            let (workers, config, stop) = (workers.clone(), config.clone(), stop.clone());
            let shared = self.shared.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = accept(&listener, port, &workers, config, &shared, &stop) => {}
                }
            });
        }
        Ok(Open { tls, stop })
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for open in self.open.values() {
            open.stop.cancel();
        }
    }
}

async fn accept(
    listener: &TcpListener,
    port: u16,
    workers: &Workers,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: &Shared,
    stop: &CancellationToken,
) {
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, peer)) => stream.into_std().map(|stream| (stream, peer)),
            Err(error) => Err(error),
        };
        match accepted {
            Ok((stream, peer)) => {
                let accepted = Accepted { stream, peer, port, tls: tls.clone(), stop: stop.clone() };
                if !workers.give(accepted) {
                    shared.metrics.refused.fetch_add(1, Relaxed);
                }
            }
            Err(error) => {
                tracing::warn!(port, %error, "the ingress cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
