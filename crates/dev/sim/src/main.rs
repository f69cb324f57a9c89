//! Lives through the histories of many seeds and tells those that broke a law.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Seeds of the long run.
const SEEDS: u64 = 10_000;

/// Pods of the ReplicaSets of which one dies.
const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// `sim [SEEDS [FIRST]]`, or `sim scale`.
fn main() -> ExitCode {
    if std::env::args().any(|word| word == "scale") {
        for size in SIZES {
            println!("{size} pods, one dies: {:?}", sim::death_of_one(size));
        }
        return ExitCode::SUCCESS;
    }
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (seeds, first) = (numbers.first().copied().unwrap_or(SEEDS), numbers.get(1).copied().unwrap_or(0));
    let (failed, writes, start) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    sim::run_all(first..first + seeds, |result| match result {
        Ok(summary) => drop(writes.fetch_add(summary.writes, Ordering::Relaxed)),
        Err(failure) => {
            failed.fetch_add(1, Ordering::Relaxed);
            println!("{failure}\n");
        }
    });
    let (failed, writes) = (failed.into_inner(), writes.into_inner());
    println!("{seeds} seeds from {first}: {failed} failed, {writes} writes, {} s", start.elapsed().as_secs());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
