//! Pods that the node runs by itself: manifests in a directory, read again whenever a file there changes.

use crate::config::KubeletConfig;
use crate::node::Node;
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// Where a pod came from; pods of the API have no such annotation.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// The hash of a static pod's manifest.
pub const HASH: &str = "kubernetes.io/config.hash";
/// On a mirror pod: the hash of the static pod that it shows.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const SEEN: &str = "kubernetes.io/config.seen";
/// A larger file is no manifest.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Delay before the directory is watched again after that failed.
const WATCH_RETRY: Duration = Duration::from_secs(10);
/// Writers often write in several steps; they are waited for this long.
const SETTLE: Duration = Duration::from_millis(50);

/// Whether the pod is one of the node's own.
pub fn is_static(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(SOURCE)).is_some_and(|source| source == "file")
}

/// Whether the pod shows a static one in the API.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR))
}

/// Reads the directory now, and again after every change until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let Some(dir) = node.config.manifests_dir.clone() else { return };
    loop {
        let followed = stop.run_until_cancelled(follow(&node, &dir)).await;
        match followed {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!("cannot watch {}: {error:#}", dir.display()),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WATCH_RETRY) => {}
        }
    }
}

/// Reads the directory and publishes its pods until something goes wrong with the watch.
async fn follow(node: &Node, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let changes = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF;
    inotify.add_watch(dir, changes)?;
    // SAFETY: an `OwnedFd` keeps its descriptor open and its own until dropped, and `AsyncFd` owns it from here on.
    let readable = unsafe { AsyncFd::register(inotify.as_fd().try_clone_to_owned()?) }.map_err(std::io::Error::from)?;
    loop {
        publish(node, dir);
        let mut ready = readable.readable().await?;
        let events = inotify.read_events();
        ready.clear_ready();
        let gone = events.is_ok_and(|events| {
            events.iter().any(|event| event.mask.intersects(AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_IGNORED))
        });
        ensure!(!gone, "the directory was removed");
        tokio::time::sleep(SETTLE).await;
        let _ = inotify.read_events();
    }
}

/// Puts the pods of the directory in place of those known before.
pub fn publish(node: &Node, dir: &Path) {
    let pods = read(&node.config, dir);
    node.static_pods.send_if_modified(|known| {
        let same = known.len() == pods.len() && known.iter().zip(&pods).all(|(a, b)| a.metadata.uid == b.metadata.uid);
        if !same {
            *known = pods;
        }
        !same
    });
}

/// The valid pods of a directory; what is not one is told in the log and left out.
fn read(config: &KubeletConfig, dir: &Path) -> Vec<Arc<Pod>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|path| path.is_file() && !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')));
    files.sort();
    let mut pods: Vec<Arc<Pod>> = Vec::new();
    for path in files {
        match fs::metadata(&path).map(|meta| meta.len()) {
            Ok(length) if length <= FILE_BYTES_MAX => {}
            _ => {
                tracing::warn!("{} is no manifest: larger than {FILE_BYTES_MAX} bytes", path.display());
                continue;
            }
        }
        let pod = fs::read(&path).map_err(anyhow::Error::from).and_then(|text| parse(config, &path, &text));
        match pod {
            Ok(pod) => {
                let same = |other: &Arc<Pod>| {
                    (&other.metadata.namespace, &other.metadata.name) == (&pod.metadata.namespace, &pod.metadata.name)
                };
                if pods.iter().any(same) {
                    tracing::warn!("{}: a pod of this name stands in another file already", path.display());
                } else {
                    pods.push(Arc::new(pod));
                }
            }
            Err(error) => tracing::warn!("{} is no pod: {error:#}", path.display()),
        }
    }
    pods
}

/// A manifest as the node runs it: with defaults, the node's name in its own, and an id that follows the content.
fn parse(config: &KubeletConfig, path: &Path, text: &[u8]) -> Result<Pod> {
    let mut value: Value = match serde_json::from_slice(text) {
        Ok(value) => value,
        Err(_) => serde_saphyr::from_slice(text).context("neither JSON nor YAML")?,
    };
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    ensure!(kind == "Pod" && value.get("apiVersion").and_then(Value::as_str) == Some("v1"), "it is not a v1 Pod");
    let hash = hash(&[config.node_name.as_bytes(), path.as_os_str().as_encoded_bytes(), text]);
    let metadata = value.get_mut("metadata").and_then(Value::as_object_mut).context("it has no metadata")?;
    let name = metadata.get("name").and_then(Value::as_str).filter(|n| !n.is_empty()).context("it has no name")?;
    let name = format!("{name}-{}", config.node_name.to_lowercase());
    metadata.insert("name".into(), name.into());
    metadata.insert("uid".into(), hash.clone().into());
    if metadata.get("namespace").and_then(Value::as_str).is_none_or(str::is_empty) {
        metadata.insert("namespace".into(), "default".into());
    }
    if let Some(row) = kinds::find("", "v1", "Pod") {
        (row.default)(&mut value);
        let errors = (row.validate)(&value);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        ensure!(texts.is_empty(), "{}", texts.join(", "));
    }
    let mut pod: Pod = serde_json::from_value(value)?;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(SOURCE.into(), "file".into());
    annotations.insert(SEEN.into(), Timestamp::now().to_string());
    annotations.insert(HASH.into(), hash);
    pod.status = None;
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(config.node_name.clone());
    // nobody but the node itself ends a static pod
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    });
    Ok(pod)
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    let mut text = String::new();
    for byte in hasher.finalize().iter().take(16) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuntimeSource;

    const MANIFEST: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: c, image: i}]\n";

    #[test]
    fn manifests_become_pods_of_this_node() {
        let dir = tempfile::tempdir().unwrap();
        let source = RuntimeSource::Socket("/nowhere".into());
        let config = KubeletConfig::new("n1", "127.0.0.1".parse().unwrap(), dir.path().into(), source);
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("web.yaml", MANIFEST);
        write("again.yaml", MANIFEST);
        write(".hidden.yaml", MANIFEST);
        write("broken.yaml", "a: [");
        write("other.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n");
        write("invalid.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}\n");
        let pods = read(&config, dir.path());
        assert_eq!(pods.len(), 1, "{pods:#?}");
        let pod = &pods[0];
        assert_eq!(
            (pod.metadata.name.as_deref(), pod.metadata.namespace.as_deref()),
            (Some("web-n1"), Some("default"))
        );
        assert!(is_static(pod) && !is_mirror(pod));
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref()), (Some("n1"), Some("Always")));
        let first = pod.metadata.uid.clone();
        write("again.yaml", &MANIFEST.replace("image: i", "image: j"));
        assert_ne!(read(&config, dir.path())[0].metadata.uid, first, "another content is another pod");
    }
}
