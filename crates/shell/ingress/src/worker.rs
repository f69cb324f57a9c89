//! Threads that serve connections, each with its own event loop and backend connections, so that none waits for another.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ServerConfig;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio_util::sync::CancellationToken;

use crate::connection;
use crate::limits::{ACCEPTED_WAITING_MAX, CONNECTIONS_MAX, CONNECTIONS_MIN, DRAIN_MAX, FILES_FOR_OTHERS, IDLE_MAX};
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::serving::Serving;

/// A connection that a listener accepted.
pub struct Accepted {
    pub stream: std::net::TcpStream,
    pub peer: SocketAddr,
    /// The listener's port.
    pub port: u16,
    /// Set for HTTPS.
    pub tls: Option<Arc<ServerConfig>>,
    /// Ends when the listener does: idle connections close, requests finish.
    pub stop: CancellationToken,
}

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    pub serving: Serving,
    pub metrics: Arc<Metrics>,
    pub log: crate::log::AccessLog,
}

/// The state of one worker.
pub struct Worker {
    pub shared: Shared,
    pub pool: Rc<Pool>,
    draws: Cell<u64>,
    connections: Arc<AtomicUsize>,
    sweeping: RefCell<bool>,
}

impl Worker {
    /// A number that spreads requests evenly; nobody's secret.
    pub fn draw(&self) -> u32 {
        // SplitMix64.
        let state = self.draws.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.draws.set(state);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    }

    /// Sees to it that idle backend connections are closed in time; nothing runs while there are none.
    pub fn sweep_later(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let worker = self.clone();
        spawn_local(async move {
            loop {
                tokio::time::sleep(IDLE_MAX / 2).await;
                worker.pool.sweep(None);
                if worker.pool.is_empty() {
                    worker.sweeping.replace(false);
                    return;
                }
            }
        });
    }
}

/// Runs tasks on the worker's own thread.
#[derive(Clone, Copy)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        drop(spawn_local(task));
    }
}

struct Handle {
    sender: mpsc::Sender<Accepted>,
    connections: Arc<AtomicUsize>,
}

/// The running workers; they end when this is dropped, once their connections have.
pub struct Workers {
    all: Vec<Handle>,
    /// Connections that one worker takes.
    connections_max: usize,
}

/// As many connections as the process may open files for: each needs a second one to its backend, and the rest of the
/// program needs files of its own. The limit is first raised as far as the system allows.
fn connections_max(workers: usize) -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return CONNECTIONS_MIN };
    let raised = soft == hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let files = usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX);
    (files.saturating_sub(FILES_FOR_OTHERS) / 2 / workers).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The system gives no thread or no event loop.
    pub fn start(count: usize, shared: &Shared) -> std::io::Result<Self> {
        let start = |index: usize| {
            let (sender, receiver) = mpsc::channel(ACCEPTED_WAITING_MAX);
            let connections = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (shared, counter) = (shared.clone(), connections.clone());
            std::thread::Builder::new()
                .name(format!("ingress-{index}"))
                .spawn(move || LocalSet::new().block_on(&runtime, run(shared, receiver, counter, index as u64)))?;
            Ok(Handle { sender, connections })
        };
        let count = count.max(1);
        let all = (0..count).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { all, connections_max: connections_max(count) })
    }

    /// Hands a connection to the worker with the fewest; closes it when even that one has too many.
    pub fn give(&self, accepted: Accepted) -> bool {
        let least = self.all.iter().min_by_key(|worker| worker.connections.load(Relaxed));
        let Some(worker) = least.filter(|worker| worker.connections.load(Relaxed) < self.connections_max) else {
            return false;
        };
        worker.connections.fetch_add(1, Relaxed);
        let given = worker.sender.try_send(accepted).is_ok();
        if !given {
            worker.connections.fetch_sub(1, Relaxed);
        }
        given
    }
}

async fn run(shared: Shared, mut accepted: mpsc::Receiver<Accepted>, connections: Arc<AtomicUsize>, seed: u64) {
    let mut changes = shared.serving.changes();
    let worker = Rc::new(Worker {
        shared,
        pool: Rc::default(),
        draws: Cell::new(seed << 32),
        connections,
        sweeping: RefCell::default(),
    });
    loop {
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_ok() {
                    worker.pool.sweep(Some(&worker.shared.serving.live().table));
                }
            }
            next = accepted.recv() => {
                let Some(next) = next else { break };
                let worker = worker.clone();
                spawn_local(async move {
                    let metrics = worker.shared.metrics.clone();
                    metrics.connections.fetch_add(1, Relaxed);
                    metrics.open.fetch_add(1, Relaxed);
                    connection::serve(&worker, next).await;
                    metrics.open.fetch_sub(1, Relaxed);
                    worker.connections.fetch_sub(1, Relaxed);
                });
            }
        }
    }
    let until = tokio::time::Instant::now() + DRAIN_MAX;
    while worker.connections.load(Relaxed) > 0 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
