//! Load on request: so many millicores, or so many megabytes, for so long.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// One duty cycle of a CPU load.
const SLICE: Duration = Duration::from_millis(20);
const CORE_MILLIS: u64 = 1000;
const PAGE: usize = 4096;
/// A request may ask for no more than this many seconds, cores' worth of millis or megabytes.
const SECONDS_MAX: u64 = 3600;
const CPU_MAX: u64 = 64 * CORE_MILLIS;
const MEMORY_MAX: u64 = 64 << 10;

/// Burns `millicores` of CPU for `seconds`, one thread per started core.
pub fn cpu(millicores: u64, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds.min(SECONDS_MAX));
    let millicores = millicores.min(CPU_MAX);
    let threads = millicores.div_ceil(CORE_MILLIS).max(1);
    let busy = SLICE.mul_f64(millicores as f64 / threads as f64 / CORE_MILLIS as f64);
    let workers: Vec<_> = (0..threads).map(|_| thread::spawn(move || burn(busy, until))).collect();
    for worker in workers {
        let _ = worker.join();
    }
}

fn burn(busy: Duration, until: Instant) {
    let mut x = 1u64;
    loop {
        let start = Instant::now();
        if start >= until {
            return;
        }
        while start.elapsed() < busy {
            for _ in 0..1000 {
                x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
        thread::sleep(SLICE.saturating_sub(start.elapsed()));
    }
}

/// Holds `megabytes` of touched memory for `seconds`.
pub fn memory(megabytes: u64, seconds: u64) {
    let mut held = vec![0u8; (megabytes.min(MEMORY_MAX) as usize) << 20];
    for page in held.chunks_mut(PAGE) {
        page[0] = 1;
    }
    black_box(&held);
    thread::sleep(Duration::from_secs(seconds.min(SECONDS_MAX)));
    drop(held);
}
