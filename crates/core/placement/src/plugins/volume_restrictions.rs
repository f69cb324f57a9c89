//! VolumeRestrictions: a ReadWriteOncePod claim belongs to one pod, and some disks to one node at a time.

use crate::plugin::{Plugin, Rejection, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

pub const PLUGIN: Plugin =
    Plugin { name: "VolumeRestrictions", weight: 0, prepare: |pod, snapshot| Box::new(rule(pod, snapshot)) };

const DISK_CONFLICT: &str = "node(s) had no available disk";
const ONE_POD_CONFLICT: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode \
                                already in-use by another pod";

struct Rule<'a> {
    pod: &'a PodInfo,
    /// Another pod, wherever it is, holds a claim that tolerates no second one.
    taken: bool,
}

fn rule<'a>(pod: &'a PodInfo, snapshot: &Snapshot) -> Rule<'a> {
    let volumes = snapshot.volumes();
    let mut alone = volumes.claims_of(pod).filter(|claim| claim.is_for_one_pod()).peekable();
    let taken = alone.peek().is_some()
        && alone.any(|claim| {
            let uses = |other: &PodInfo| {
                other.uid != pod.uid
                    && other.namespace == pod.namespace
                    && other.claims.iter().any(|used| used.claim == claim.name)
            };
            snapshot.nodes().any(|node| node.pods.iter().any(|other| uses(other)))
        });
    Rule { pod, taken }
}

impl Verdict for Rule<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let clashes = |other: &PodInfo| {
            let mut own = self.pod.disks.iter();
            own.any(|disk| other.disks.iter().any(|held| held.id == disk.id && !(held.shared && disk.shared)))
        };
        if !self.pod.disks.is_empty() && node.pods.iter().any(|other| clashes(other)) {
            return Err(Rejection::curable(DISK_CONFLICT));
        }
        if self.taken { Err(Rejection::curable(ONE_POD_CONFLICT)) } else { Ok(()) }
    }
}
