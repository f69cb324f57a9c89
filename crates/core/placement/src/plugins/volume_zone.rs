//! VolumeZone: a volume that is labelled with a zone or region is used there.

use std::sync::Arc;

use crate::plugin::{Plugin, Rejection, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::volumes::VolumeInfo;

pub const PLUGIN: Plugin =
    Plugin { name: "VolumeZone", weight: 0, prepare: |pod, snapshot| Box::new(rule(pod, snapshot)) };

const CONFLICT: &str = "node(s) had no available volume zone";
/// Each label and its older name.
const LABELS: [(&str, &str); 2] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
];
/// Between the zones of a volume that is in several.
const DELIMITER: &str = "__";

struct Rule(Vec<Arc<VolumeInfo>>);

fn rule(pod: &PodInfo, snapshot: &Snapshot) -> Rule {
    let volumes = snapshot.volumes();
    let labelled = |volume: &&Arc<VolumeInfo>| {
        LABELS.iter().any(|(new, old)| volume.labels.contains_key(*new) || volume.labels.contains_key(*old))
    };
    let found = volumes.claims_of(pod).filter_map(|claim| volumes.volume(&claim.volume));
    Rule(found.filter(labelled).cloned().collect())
}

impl Verdict for Rule {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let labels = &node.spec.labels;
        let of_node = |(new, old): &(&str, &str)| labels.get(*new).or_else(|| labels.get(*old));
        // A node without any of the labels is in no zone, and takes every volume.
        if LABELS.iter().all(|label| of_node(label).is_none()) {
            return Ok(());
        }
        for volume in &self.0 {
            for label in &LABELS {
                for name in [label.0, label.1] {
                    let Some(zones) = volume.labels.get(name) else { continue };
                    let here = of_node(label);
                    if !here.is_some_and(|here| zones.split(DELIMITER).any(|zone| zone == here)) {
                        return Err(Rejection::final_(CONFLICT));
                    }
                }
            }
        }
        Ok(())
    }
}
