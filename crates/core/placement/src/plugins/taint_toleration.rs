//! TaintToleration: taints keep out pods that do not tolerate them, or make their nodes a second choice.

use k8s_openapi::api::core::v1::Taint;

use crate::plugin::{Plugin, Rejection, Verdict, scale};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin { name: "TaintToleration", weight: 3, prepare: |pod, _| Box::new(Rule(pod)) };

pub fn tolerates(pod: &PodInfo, taint: &Taint) -> bool {
    pod.tolerations.iter().any(|toleration| nodes::tolerates(toleration, taint))
}

struct Rule<'a>(&'a PodInfo);

impl Verdict for Rule<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let keeps_out = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        match node.spec.taints.iter().filter(keeps_out).find(|taint| !tolerates(self.0, taint)) {
            // v1.36 no longer names the taint, so that nodes with different ones count as one reason.
            Some(_) => Err(Rejection::final_("node(s) had untolerated taint(s)")),
            None => Ok(()),
        }
    }

    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let deters = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !tolerates(self.0, taint);
        i64::try_from(node.spec.taints.iter().filter(deters).count()).ok()
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, true);
    }
}
