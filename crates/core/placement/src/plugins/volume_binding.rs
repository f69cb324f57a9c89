//! VolumeBinding: bound volumes must reach the node, and claims that wait for it must find or get one there.

use crate::plugin::{Plugin, Rejection, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::volumes::{Claims, VolumePlan, Volumes};

pub const PLUGIN: Plugin =
    Plugin { name: "VolumeBinding", weight: 0, prepare: |pod, snapshot| Box::new(rule(pod, snapshot)) };

struct Rule<'a> {
    volumes: &'a Volumes,
    claims: Claims,
}

fn rule<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Rule<'a> {
    let volumes = snapshot.volumes();
    Rule { volumes, claims: volumes.sorted(pod) }
}

/// What is to be written before the pod is bound to the node.
pub fn plan(pod: &PodInfo, snapshot: &Snapshot, node: &str) -> VolumePlan {
    let rule = rule(pod, snapshot);
    let decided = snapshot.node(node).zip(rule.claims.as_ref().ok());
    decided.and_then(|(node, claims)| rule.volumes.decide(claims, &node.spec).ok()).unwrap_or_default()
}

impl Verdict for Rule<'_> {
    fn refuses_all(&self) -> Option<Rejection> {
        self.claims.as_ref().err().map(|why| Rejection::final_(why))
    }

    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        match &self.claims {
            Ok(claims) if claims.bound.is_empty() && claims.delayed.is_empty() => Ok(()),
            Ok(claims) => self.volumes.decide(claims, &node.spec).map(drop),
            Err(why) => Err(Rejection::final_(why)),
        }
    }
}
