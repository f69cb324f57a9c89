//! Counters of the ingress, and their text for scrapers.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the request durations' buckets, in milliseconds.
const BUCKETS_MS: [u64; 11] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000];

/// Counters; all are of this process's whole life.
#[derive(Debug, Default)]
pub struct Metrics {
    pub connections: AtomicU64,
    /// Connections open now.
    pub open: AtomicU64,
    pub handshakes_failed: AtomicU64,
    pub refused: AtomicU64,
    pub retries: AtomicU64,
    /// Requests by the first digit of their answer's status.
    statuses: [AtomicU64; 6],
    durations: [AtomicU64; BUCKETS_MS.len() + 1],
    duration_us: AtomicU64,
}

impl Metrics {
    /// Counts one answered request.
    pub fn answered(&self, status: u16, took: Duration) {
        self.statuses[usize::from(status / 100).min(5)].fetch_add(1, Relaxed);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MS.iter().position(|bound| ms < *bound).unwrap_or(BUCKETS_MS.len());
        self.durations[bucket].fetch_add(1, Relaxed);
        self.duration_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(0), Relaxed);
    }

    /// Prometheus' text form.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            let _ = writeln!(text, "# HELP tug_ingress_{name} {help}\n# TYPE tug_ingress_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "tug_ingress_{name}{labels} {value}");
            }
        };
        let one = |counter: &AtomicU64| vec![(String::new(), counter.load(Relaxed))];
        line("connections_total", "counter", "Client connections accepted.", &one(&self.connections));
        line("connections_open", "gauge", "Client connections open now.", &one(&self.open));
        line("connections_refused_total", "counter", "Client connections beyond the limit.", &one(&self.refused));
        line("handshakes_failed_total", "counter", "TLS handshakes that failed.", &one(&self.handshakes_failed));
        line("retries_total", "counter", "Requests sent to a backend once more.", &one(&self.retries));
        let by_status: Vec<(String, u64)> =
            (1..6).map(|digit| (format!("{{code=\"{digit}xx\"}}"), self.statuses[digit].load(Relaxed))).collect();
        line("requests_total", "counter", "Requests answered, by status.", &by_status);
        let mut sum = 0;
        let _ = writeln!(
            text,
            "# HELP tug_ingress_request_duration_seconds Until the answer began.\n# TYPE tug_ingress_request_duration_seconds histogram"
        );
        for (index, count) in self.durations.iter().enumerate() {
            sum += count.load(Relaxed);
            let bound = BUCKETS_MS.get(index).map_or("+Inf".to_owned(), |ms| format!("{}", *ms as f64 / 1000.0));
            let _ = writeln!(text, "tug_ingress_request_duration_seconds_bucket{{le=\"{bound}\"}} {sum}");
        }
        let seconds = self.duration_us.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(
            text,
            "tug_ingress_request_duration_seconds_sum {seconds}\ntug_ingress_request_duration_seconds_count {sum}"
        );
        text
    }
}
