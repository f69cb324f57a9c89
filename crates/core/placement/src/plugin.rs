//! What a plugin is: prepared once per pod, then asked about each node.

use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// The best score a node can have after normalizing.
pub const SCORE_MAX: i64 = 100;

/// Why a node cannot take a pod, in the words clients read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reasons: Vec<String>,
    /// Removing pods from the node would not change the answer.
    pub final_: bool,
}

impl Rejection {
    pub fn curable(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], final_: false }
    }

    pub fn final_(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], final_: true }
    }
}

/// A rule about where pods go. New ones are one file in `plugins` and one line in `PLUGINS`.
pub struct Plugin {
    /// Upstream's name of the plugin.
    pub name: &'static str,
    /// The weight of its score.
    pub weight: i64,
    pub prepare: for<'a> fn(&'a PodInfo, &'a Snapshot) -> Box<dyn Verdict + 'a>,
}

/// A plugin's view on one pod.
pub trait Verdict {
    /// Why no node at all takes the pod, whatever the nodes are.
    fn refuses_all(&self) -> Option<Rejection> {
        None
    }

    fn filter(&self, _node: &NodeInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// `None` when the plugin has no opinion on this pod.
    fn score(&self, _node: &NodeInfo) -> Option<i64> {
        None
    }

    /// Brings the scores of all feasible nodes into 0..=100.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Scales to the highest score; reversed, the lowest raw score becomes the best.
pub fn scale(scores: &mut [i64], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if most == 0 { 0 } else { *score * SCORE_MAX / most };
        *score = if reverse { SCORE_MAX - scaled } else { scaled };
    }
}
