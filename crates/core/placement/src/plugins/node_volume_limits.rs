//! NodeVolumeLimits: a driver says how many of its volumes a node takes.

use std::collections::BTreeSet;

use crate::plugin::{Plugin, Rejection, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::volumes::Volumes;

pub const PLUGIN: Plugin = Plugin {
    name: "NodeVolumeLimits",
    weight: 0,
    prepare: |pod, snapshot: &Snapshot| Box::new(Rule { pod, volumes: snapshot.volumes() }),
};

const EXCEEDED: &str = "node(s) exceed max volume count";

struct Rule<'a> {
    pod: &'a PodInfo,
    volumes: &'a Volumes,
}

impl Rule<'_> {
    /// Driver and handle of a pod's volumes that are there already.
    fn handles(&self, pod: &PodInfo) -> BTreeSet<(String, String)> {
        let volumes = self.volumes.claims_of(pod).filter_map(|claim| self.volumes.volume(&claim.volume));
        volumes.filter_map(|volume| volume.csi.clone()).collect()
    }
}

impl Verdict for Rule<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(limits) = self.volumes.limits(&node.spec.name).filter(|_| !self.pod.claims.is_empty()) else {
            return Ok(());
        };
        let held: BTreeSet<_> = node.pods.iter().flat_map(|pod| self.handles(pod)).collect();
        let new: BTreeSet<_> = self.handles(self.pod).difference(&held).cloned().collect();
        for (driver, limit) in limits {
            let count = |handles: &BTreeSet<(String, String)>| handles.iter().filter(|one| one.0 == *driver).count();
            if count(&new) > 0 && count(&held) + count(&new) > *limit {
                return Err(Rejection::curable(EXCEEDED));
            }
        }
        Ok(())
    }
}
