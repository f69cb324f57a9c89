//! Stable numbering of a service's endpoints: rule maps and client affinity refer to endpoints by slot.

use crate::select::Endpoint;
use std::collections::BTreeSet;

/// Numbers `wanted` from 0 without gaps. Whoever stays keeps its slot unless it lies beyond the new end; freed slots go
/// first to those who must move, then to newcomers in their order. So one endpoint less changes at most one other slot.
pub fn assign(old: &[Endpoint], wanted: &[Endpoint]) -> Vec<Endpoint> {
    let wanted: BTreeSet<Endpoint> = wanted.iter().copied().collect();
    let known: BTreeSet<Endpoint> = old.iter().copied().collect();
    let keeps = |slot: usize| old.get(slot).copied().filter(|e| wanted.contains(e));
    let movers = (wanted.len()..old.len()).filter_map(keeps);
    let mut incoming = movers.chain(wanted.iter().copied().filter(|e| !known.contains(e)));
    (0..wanted.len()).map_while(|slot| keeps(slot).or_else(|| incoming.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(text: &str) -> Vec<Endpoint> {
        text.chars().map(|c| Endpoint { ip: [10, 0, 0, c as u8].into(), port: 80 }).collect()
    }

    #[test]
    fn whoever_stays_keeps_its_slot() {
        for (old, wanted, expected) in [
            ("", "abc", "abc"),
            ("abc", "abc", "abc"),
            ("abc", "ac", "ac"),
            ("abc", "bc", "cb"),
            ("abcd", "acd", "adc"),
            ("cab", "abcx", "cabx"),
            ("abc", "xbz", "xbz"),
            ("abc", "", ""),
            ("abcd", "dx", "dx"),
        ] {
            assert_eq!(assign(&endpoints(old), &endpoints(wanted)), endpoints(expected), "{old} -> {wanted}");
        }
    }
}
