//! A steady load of HTTP requests, each on a connection of its own, that counts what fails.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

const WORKERS: u32 = 16;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const ERRORS_KEPT: usize = 10;

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub answered: u64,
    pub failed: u64,
    /// The first of them.
    pub errors: Vec<String>,
    /// When the last failed request failed.
    pub last_error: Option<Instant>,
    pub seconds: f64,
}

impl Outcome {
    /// # Errors
    /// A request failed, or fewer than half of so many a second were answered: then the load says nothing.
    pub fn lost_nothing(&self, per_second: u32) -> Result<()> {
        ensure!(self.failed == 0, "{} requests failed: {:#?}", self.failed, self.errors);
        ensure!(
            self.answered as f64 > self.seconds * f64::from(per_second) / 2.0,
            "the load was not carried: {self:?}"
        );
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, seconds) = (self.answered as f64 / self.seconds, self.seconds);
        write!(f, "{} answered in {seconds:.1} s ({rate:.0}/s), {} failed", self.answered, self.failed)
    }
}

struct Failure {
    at: Instant,
    error: String,
}

/// A running load; `stop` ends it.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    answered: Arc<AtomicU64>,
    failures: mpsc::Receiver<Failure>,
    started: Instant,
}

impl Load {
    /// `GET /` so many times a second.
    pub fn start(address: SocketAddr, per_second: u32) -> Self {
        Self::start_over(vec![address], per_second, ANSWER_WITHIN)
    }

    /// The same to several addresses in turn, none of which is waited for longer than `within`.
    pub fn start_over(addresses: Vec<SocketAddr>, per_second: u32, within: Duration) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (sender, failures) = mpsc::channel();
        let period = Duration::from_secs(1) * WORKERS / per_second;
        let started = Instant::now();
        let worker = |index: u32| {
            let (stop, answered, sender) = (stop.clone(), answered.clone(), sender.clone());
            let mut addresses = addresses.clone().into_iter().cycle().skip(index as usize);
            thread::spawn(move || {
                let mut next = started + period * index / WORKERS;
                while let (false, Some(address)) = (stop.load(Relaxed), addresses.next()) {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += period;
                    let begun = started.elapsed().as_secs_f64();
                    if let Err(error) = get(address, within) {
                        let at = Instant::now();
                        let took = at.duration_since(started).as_secs_f64() - begun;
                        let error = format!("{address}, begun at {begun:.2} s, after {took:.2} s: {error}");
                        let _ = sender.send(Failure { at, error });
                    } else {
                        answered.fetch_add(1, Relaxed);
                    }
                }
            })
        };
        let workers = (0..WORKERS).map(worker).collect();
        Self { stop, workers, answered, failures, started }
    }

    /// One request.
    ///
    /// # Errors
    /// It failed.
    pub fn once(address: SocketAddr, within: Duration) -> std::io::Result<()> {
        get(address, within)
    }

    pub fn stop(self) -> Outcome {
        self.stop.store(true, Relaxed);
        for worker in self.workers {
            let _ = worker.join();
        }
        let failures: Vec<Failure> = self.failures.try_iter().collect();
        Outcome {
            answered: self.answered.load(Relaxed),
            failed: failures.len() as u64,
            last_error: failures.iter().map(|failure| failure.at).max(),
            errors: failures.into_iter().take(ERRORS_KEPT).map(|failure| failure.error).collect(),
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

fn get(address: SocketAddr, within: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("answer {:?}", answer.lines().next())))
    }
}
