//! Prometheus' text format: families of samples with labels.

use jiff::Timestamp;
use std::fmt::Write as _;

/// A document under construction.
#[derive(Default)]
pub struct Exposition {
    text: String,
}

/// One metric of a document.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a metric: `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    /// The finished document.
    pub fn finish(self) -> String {
        self.text
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Family<'_> {
    /// Adds a sample; the time is that of the measurement, where it is not now.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        self.suffixed("", labels, value, at);
    }

    /// Adds a sample of a histogram: `_bucket`, `_sum`, `_count`.
    pub fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let at = at.map(|at| format!(" {}", at.as_millisecond())).unwrap_or_default();
        let _ = writeln!(self.text, "{}{suffix}{labels} {value}{at}", self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_prometheus_reads_them() {
        let mut document = Exposition::default();
        let mut family = document.family("a_total", "counter", "What is counted.");
        family.sample(&[("l", "x\"y\\z\n")], 1.5, Timestamp::from_second(2).ok());
        family.sample(&[], 3.0, None);
        let text = "# HELP a_total What is counted.\n# TYPE a_total counter\na_total{l=\"x\\\"y\\\\z\\n\"} 1.5 2000\na_total 3\n";
        assert_eq!(document.finish(), text);
    }
}
