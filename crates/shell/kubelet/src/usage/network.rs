//! Bytes and errors of network interfaces, as a process sees them.

use serde_json::{Value, json};
use std::fs;

/// Counters of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`
    pub name: String,
    /// Received bytes, packets, errors and drops.
    pub received: [u64; 4],
    /// The same for what was sent.
    pub sent: [u64; 4],
}

impl Interface {
    /// As the Summary API shows it.
    pub fn json(&self) -> Value {
        json!({"name": self.name, "rxBytes": self.received[0], "rxErrors": self.received[2],
            "txBytes": self.sent[0], "txErrors": self.sent[2]})
    }
}

fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        if numbers.len() < 16 || name.trim() == "lo" {
            return None;
        }
        let four = |at: usize| [numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]];
        Some(Interface { name: name.trim().to_string(), received: four(0), sent: four(8) })
    };
    text.lines().filter_map(line).collect()
}

/// Interfaces in the network namespace of a process, without loopback; the kubelet's own for `None`.
pub fn interfaces(process: Option<u32>) -> Vec<Interface> {
    let path = process.map_or_else(|| "/proc/self/net/dev".to_string(), |id| format!("/proc/{id}/net/dev"));
    parse(&fs::read_to_string(path).unwrap_or_default())
}

/// The interface that the namespace talks to the world with: `eth0`, else the first.
pub fn primary(interfaces: &[Interface]) -> Option<&Interface> {
    interfaces.iter().find(|i| i.name == "eth0").or_else(|| interfaces.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 100 2 3 4 0 0 0 0 200 5 6 7 0 0 0 0\n";
        let list = parse(text);
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].received, list[0].sent), ([100, 2, 3, 4], [200, 5, 6, 7]));
        assert_eq!(primary(&list).unwrap().name, "eth0");
    }
}
