//! NodePorts: a port of the host belongs to one pod.

use crate::plugin::{Plugin, Rejection, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin { name: "NodePorts", weight: 0, prepare: |pod, _| Box::new(Rule(pod)) };

struct Rule<'a>(&'a PodInfo);

impl Verdict for Rule<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.0.ports.is_empty() {
            return Ok(());
        }
        let taken = |port| node.pods.iter().flat_map(|pod| &pod.ports).any(|other| other.collides(port));
        if self.0.ports.iter().any(taken) {
            return Err(Rejection::curable("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}
