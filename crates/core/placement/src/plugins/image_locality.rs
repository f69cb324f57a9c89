//! ImageLocality: prefers nodes that hold the pod's images, less so when few nodes do.

use crate::plugin::{Plugin, SCORE_MAX, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "ImageLocality",
    weight: 1,
    prepare: |pod, snapshot| {
        let spread = pod.images.iter().chain(&pod.volume_images).map(|image| normal_name(image)).map(|image| {
            let holders = snapshot.nodes().filter(|node| node.spec.images.contains_key(&image)).count();
            let share = if snapshot.is_empty() { 0.0 } else { holders as f64 / snapshot.len() as f64 };
            (image, share)
        });
        Box::new(Rule { spread: spread.collect(), pod })
    },
};

/// Images up to this many bytes do not matter; above the maximum per container, more does not count.
const BYTES_MIN: i64 = 23 * 1024 * 1024;
const BYTES_MAX_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

/// Without a tag, `latest` is meant.
fn normal_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

struct Rule<'a> {
    pod: &'a PodInfo,
    spread: Vec<(String, f64)>,
}

impl Verdict for Rule<'_> {
    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let held = self
            .spread
            .iter()
            .filter_map(|(image, share)| node.spec.images.get(image).map(|bytes| (*bytes as f64 * share) as i64));
        let containers = i64::try_from(self.pod.images.len()).ok().filter(|count| *count > 0)?;
        let most = BYTES_MAX_PER_CONTAINER * containers;
        let bytes = held.sum::<i64>().clamp(BYTES_MIN, most);
        Some(SCORE_MAX * (bytes - BYTES_MIN) / (most - BYTES_MIN))
    }
}
