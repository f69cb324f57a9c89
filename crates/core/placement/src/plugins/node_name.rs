//! NodeName: a pod that names its node goes nowhere else.

use crate::plugin::{Plugin, Rejection, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin { name: "NodeName", weight: 0, prepare: |pod, _| Box::new(Rule(pod)) };

struct Rule<'a>(&'a PodInfo);

impl Verdict for Rule<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        match &self.0.node {
            Some(name) if *name != node.spec.name => {
                Err(Rejection::final_("node(s) didn't match the requested node name"))
            }
            _ => Ok(()),
        }
    }
}
