//! NodeResourcesBalancedAllocation: prefers nodes whose CPU and memory fill evenly.

use crate::plugin::{Plugin, SCORE_MAX, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin =
    Plugin { name: "NodeResourcesBalancedAllocation", weight: 1, prepare: |pod, _| Box::new(Rule(pod)) };

struct Rule<'a>(&'a PodInfo);

impl Verdict for Rule<'_> {
    fn score(&self, node: &NodeInfo) -> Option<i64> {
        // Upstream has no opinion on pods without requests: they would all go where the first went.
        if ["cpu", "memory"].iter().all(|name| self.0.requests.get(name) == 0) {
            return None;
        }
        let used = |name: &str| {
            let has = node.spec.allocatable.get(name);
            let wants = node.requested.get(name).saturating_add(self.0.requests.get(name));
            if has <= 0 { 1.0 } else { (wants as f64 / has as f64).min(1.0) }
        };
        // The standard deviation of two values is half their distance.
        let deviation = (used("cpu") - used("memory")).abs() / 2.0;
        Some(((1.0 - deviation) * SCORE_MAX as f64) as i64)
    }
}
