//! Removes images that nobody uses when their disk fills up: those unused for longest first.

use crate::node::Node;
use crate::pressure::node_event;
use crate::runtime::cri;
use crate::usage::storage;
use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// An image that came this recently stays: its container may not be made yet.
const AGE_MIN: SignedDuration = SignedDuration::from_secs(120);

/// When images were first seen and last used, by id.
#[derive(Default)]
pub struct ImageAges {
    seen: HashMap<String, Seen>,
}

#[derive(Clone, Copy)]
struct Seen {
    first: Timestamp,
    used: Timestamp,
}

/// An image that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    id: String,
    size: u64,
    used: Timestamp,
    first: Timestamp,
}

impl ImageAges {
    /// Takes note of what there is and who is in use; answers the candidates, longest unused first.
    fn note(&mut self, images: &[cri::Image], in_use: &HashSet<String>, now: Timestamp) -> Vec<Candidate> {
        let known: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.seen.retain(|id, _| known.contains(id.as_str()));
        let mut candidates = Vec::new();
        for image in images {
            // what was never seen in use counts as never used
            let fresh = Seen { first: now, used: Timestamp::UNIX_EPOCH };
            let seen = self.seen.entry(image.id.clone()).or_insert(fresh);
            if in_use.contains(&image.id) || is_kept(image) {
                seen.used = now;
                continue;
            }
            if now.duration_since(seen.first) >= AGE_MIN {
                let (id, size) = (image.id.clone(), image.size);
                candidates.push(Candidate { id, size, used: seen.used, first: seen.first });
            }
        }
        candidates.sort_by(|a, b| (a.used, a.first, &a.id).cmp(&(b.used, b.first, &b.id)));
        candidates
    }
}

/// Images that no registry could give back, or that every pod needs.
fn is_kept(image: &cri::Image) -> bool {
    image.repo_tags.iter().any(|name| name.starts_with("tug.local/") || name.contains("/pause:"))
}

/// Looks every five minutes until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => look(&node).await,
        }
    }
}

async fn look(node: &Arc<Node>) {
    let Some((_, path)) = storage::images(node).await else { return };
    let disk = storage::file_system(&path);
    let config = &node.config;
    let goal = to_free(disk.capacity, disk.available, config.image_gc_high_percent, config.image_gc_low_percent);
    if goal == 0 || disk.available >= config.pressure.images_available_bytes_enough {
        // ages are kept up to date, so that a later need finds them
        note(node).await;
        return;
    }
    let freed = remove_unused(node, goal).await;
    if freed < goal {
        let text = format!(
            "Insufficient free disk space on the node's image filesystem ({:.1}% of {} bytes used). Failed to free \
             sufficient space by deleting unused images. Consider resizing the disk or deleting unused files.",
            100.0 - percent(disk.available, disk.capacity),
            disk.capacity
        );
        node_event(node, EventKind::Warning, "FreeDiskSpaceFailed", text);
    }
}

#[allow(clippy::cast_precision_loss)]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// Bytes to free so that use falls from above `high` to `low` percent; zero below `high`.
fn to_free(capacity: u64, available: u64, high: u8, low: u8) -> u64 {
    let used_percent = 100u64.saturating_sub(available.saturating_mul(100) / capacity.max(1));
    if capacity == 0 || used_percent < u64::from(high) {
        return 0;
    }
    (capacity / 100 * (100 - u64::from(low.min(100)))).saturating_sub(available)
}

async fn note(node: &Node) -> Vec<Candidate> {
    let listed = tokio::try_join!(node.runtime.images(), node.runtime.list_containers(None));
    let (images, containers) = match listed {
        Ok(lists) => lists,
        Err(status) => {
            tracing::warn!("cannot list images: {status}");
            return Vec::new();
        }
    };
    let in_use = in_use(&images, &containers);
    node.image_ages.lock().unwrap_or_else(PoisonError::into_inner).note(&images, &in_use, Timestamp::now())
}

/// Ids of images that a container was made from, whatever name it used.
fn in_use(images: &[cri::Image], containers: &[cri::Container]) -> HashSet<String> {
    let names = containers.iter().flat_map(|c| [Some(c.image_ref.clone()), c.image.as_ref().map(|i| i.image.clone())]);
    let names: HashSet<String> = names.flatten().collect();
    let used = |image: &&cri::Image| {
        names.contains(&image.id) || image.repo_tags.iter().chain(&image.repo_digests).any(|name| names.contains(name))
    };
    images.iter().filter(used).map(|image| image.id.clone()).collect()
}

/// Removes unused images until `goal` bytes are free or none is left; returns the bytes.
pub async fn remove_unused(node: &Node, goal: u64) -> u64 {
    let mut freed = 0u64;
    for candidate in note(node).await {
        if freed >= goal {
            break;
        }
        match node.runtime.remove_image(&candidate.id).await {
            Ok(()) => {
                tracing::info!(image = %candidate.id, bytes = candidate.size, "removed an unused image");
                freed = freed.saturating_add(candidate.size);
            }
            Err(status) => tracing::warn!(image = %candidate.id, "cannot remove an unused image: {status}"),
        }
    }
    if freed > 0 {
        node.status_news.notify_one();
    }
    freed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str) -> cri::Image {
        cri::Image { id: id.into(), repo_tags: vec![tag.into()], size: 10, ..Default::default() }
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_needed_stays() {
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        let images = [image("a", "x/a:1"), image("b", "x/b:1"), image("p", "tug.local/pause:1")];
        let used = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<HashSet<String>>();
        let mut ages = ImageAges::default();
        let ids = |list: Vec<Candidate>| list.into_iter().map(|c| c.id).collect::<Vec<_>>().join(" ");
        assert_eq!(ids(ages.note(&images, &used(&[]), at(0))), "", "too young");
        assert_eq!(ids(ages.note(&images, &used(&["a"]), at(120))), "b");
        assert_eq!(ids(ages.note(&images, &used(&[]), at(130))), "b a");
        assert_eq!(ids(ages.note(&images, &used(&["b"]), at(140))), "a");
        assert_eq!(ids(ages.note(&images, &used(&[]), at(150))), "a b");
    }

    #[test]
    fn an_image_is_in_use_under_any_of_its_names() {
        let images = [image("sha256:a", "x/a:1"), image("sha256:b", "x/b:1")];
        let container = cri::Container {
            image: Some(cri::ImageSpec { image: "x/b:1".into(), ..Default::default() }),
            image_ref: "sha256:a".into(),
            ..Default::default()
        };
        assert_eq!(in_use(&images, &[container]).len(), 2);
    }

    #[test]
    fn thresholds_are_percent_of_use() {
        assert_eq!(to_free(1000, 160, 85, 80), 0);
        assert_eq!(to_free(1000, 150, 85, 80), 50);
        assert_eq!(to_free(1000, 0, 85, 80), 200);
        assert_eq!(to_free(0, 0, 85, 80), 0);
    }
}
