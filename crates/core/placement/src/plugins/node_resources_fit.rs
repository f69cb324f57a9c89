//! NodeResourcesFit: requests must fit into what is left, and the emptier node is the better one.

use crate::plugin::{Plugin, Rejection, SCORE_MAX, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin { name: "NodeResourcesFit", weight: 1, prepare: |pod, _| Box::new(Rule(pod)) };

struct Rule<'a>(&'a PodInfo);

impl Verdict for Rule<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let allocatable = &node.spec.allocatable;
        let (mut reasons, mut final_) = (Vec::new(), false);
        let pods_max = allocatable.get("pods");
        if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= pods_max {
            reasons.push("Too many pods".to_owned());
        }
        for (name, amount) in self.0.requests.0.iter().filter(|(_, amount)| **amount > 0) {
            let has = allocatable.get(name);
            if *amount > has.saturating_sub(node.requested.get(name)) {
                reasons.push(format!("Insufficient {name}"));
                // More than the node has at all: no eviction helps.
                final_ |= *amount > has;
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons, final_ }) }
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let free = ["cpu", "memory"].into_iter().filter_map(|name| {
            let has = node.spec.allocatable.get(name);
            let used = node.scored_requested.get(name).saturating_add(self.0.scored_requests.get(name));
            let free = if used > has { 0 } else { i128::from(has - used) };
            (has > 0).then(|| i64::try_from(free * i128::from(SCORE_MAX) / i128::from(has)).unwrap_or(0))
        });
        let free: Vec<i64> = free.collect();
        let count = i64::try_from(free.len()).ok().filter(|count| *count > 0)?;
        Some(free.iter().sum::<i64>() / count)
    }
}
