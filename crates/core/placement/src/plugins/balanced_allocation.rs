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
        // Compared with the node as it is: a node that is uneven already is not blamed on this pod.
        let (after, before) = (evenness(node, Some(self.0)), evenness(node, None));
        Some(SCORE_MAX / 2 + (SCORE_MAX / 2 + after - before) / 2)
    }
}

/// 100 where CPU and memory are filled to the same share, less the further these are apart.
fn evenness(node: &NodeInfo, pod: Option<&PodInfo>) -> i64 {
    let share = |name: &str| {
        let has = node.spec.allocatable.get(name);
        let more = pod.map_or(0, |pod| pod.requests.get(name));
        let used = node.requested.get(name).saturating_add(more);
        (has > 0).then(|| (used as f64 / has as f64).min(1.0))
    };
    // The standard deviation of two values is half their distance.
    let deviation = share("cpu").zip(share("memory")).map_or(0.0, |(cpu, memory)| (cpu - memory).abs() / 2.0);
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}
