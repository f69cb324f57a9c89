//! A steady load of HTTP requests, each on a connection of its own, that counts what fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const WORKERS: u32 = 16;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const ERRORS_KEPT: usize = 10;

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub answered: u64,
    pub failed: u64,
    pub errors: Vec<String>,
    pub seconds: f64,
}

/// A running load; `stop` ends it.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    answered: Arc<AtomicU64>,
    errors: mpsc::Receiver<String>,
    started: Instant,
}

impl Load {
    /// `GET /` so many times a second.
    pub fn start(address: SocketAddr, per_second: u32) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (sender, errors) = mpsc::channel();
        let period = Duration::from_secs(1) * WORKERS / per_second;
        let started = Instant::now();
        let worker = |index: u32| {
            let (stop, answered, sender) = (stop.clone(), answered.clone(), sender.clone());
            thread::spawn(move || {
                let mut next = started + period * index / WORKERS;
                while !stop.load(Relaxed) {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += period;
                    match get(address) {
                        Ok(()) => drop(answered.fetch_add(1, Relaxed)),
                        Err(error) => {
                            drop(sender.send(format!("after {:.2} s: {error}", started.elapsed().as_secs_f64())))
                        }
                    }
                }
            })
        };
        let workers = (0..WORKERS).map(worker).collect();
        Self { stop, workers, answered, errors, started }
    }

    pub fn stop(self) -> Outcome {
        self.stop.store(true, Relaxed);
        for worker in self.workers {
            let _ = worker.join();
        }
        let errors: Vec<String> = self.errors.try_iter().collect();
        Outcome {
            answered: self.answered.load(Relaxed),
            failed: errors.len() as u64,
            errors: errors.into_iter().take(ERRORS_KEPT).collect(),
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

fn get(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("answer {:?}", answer.lines().next())))
    }
}
