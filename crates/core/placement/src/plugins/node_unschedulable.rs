//! NodeUnschedulable: cordoned nodes take only pods that tolerate being there.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerates;
use crate::plugin::{Plugin, Rejection, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin { name: "NodeUnschedulable", weight: 0, prepare: |pod, _| Box::new(Rule(pod)) };

struct Rule<'a>(&'a PodInfo);

impl Verdict for Rule<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let taint = || Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if node.spec.unschedulable && !tolerates(self.0, &taint()) {
            return Err(Rejection::final_("node(s) were unschedulable"));
        }
        Ok(())
    }
}
