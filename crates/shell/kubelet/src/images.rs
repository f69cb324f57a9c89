//! Image pulls by policy, with pull secrets, one pull per image at a time and a growing delay after failures.

use crate::node::Node;
use crate::objects::DataKind;
use crate::runtime::cri::{AuthConfig, Image, PodSandboxConfig};
use base64::Engine as _;
use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use podsync::{IMAGE_DELAY_FIRST, IMAGE_DELAY_MAX};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Images under this host come with Tug and lie in no registry: what the node has is what there is to pull, so that the
/// policy Always, which every `latest` gets, finds them too.
const BUILTIN_HOST: &str = "tug.local/";

/// Failures of one image, by pod and image.
#[derive(Default)]
pub struct Images {
    backoff: Mutex<HashMap<(String, String), (SignedDuration, Timestamp, String)>>,
    pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Why a container's image is not there.
#[derive(Clone, Debug)]
pub struct ImageFailure {
    /// Waiting reason.
    pub reason: &'static str,
    /// Explanation.
    pub message: String,
    /// When to try again.
    pub retry_at: Timestamp,
}

/// The policy in force: as given, else Always for `latest` and IfNotPresent otherwise; built-in images are local.
fn policy(container: &Container) -> &str {
    let image = container.image.as_deref().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let default = match last.split_once(':') {
        _ if image.contains('@') => "IfNotPresent",
        Some((_, tag)) if tag != "latest" => "IfNotPresent",
        _ => "Always",
    };
    match container.image_pull_policy.as_deref().unwrap_or(default) {
        "Always" if image.starts_with(BUILTIN_HOST) => "IfNotPresent",
        policy => policy,
    }
}

/// Whether the text can be an image reference at all.
fn valid(image: &str) -> bool {
    let path = image.split('@').next().unwrap_or_default();
    let (name, tag) = match path.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (path, None),
    };
    let tag_ok = tag.is_none_or(|t| {
        !t.is_empty() && t.len() <= 128 && t.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    });
    let repository = name.split_once('/').filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost");
    let repository = repository.map_or(name, |(_, rest)| rest);
    let part_ok = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    tag_ok && !repository.is_empty() && repository.split('/').all(part_ok)
}

impl Images {
    /// Makes sure the container's image is on the node.
    ///
    /// # Errors
    /// The waiting reason and when to try again.
    pub async fn ensure(
        &self,
        node: &Node,
        pod: &Pod,
        container: &Container,
        init: bool,
        sandbox: &PodSandboxConfig,
    ) -> Result<Image, ImageFailure> {
        let name = container.image.as_deref().unwrap_or_default();
        let at = Some((container.name.as_str(), init));
        let now = Timestamp::now();
        let fail = |reason: &'static str, message: String, delay: SignedDuration| ImageFailure {
            reason,
            message,
            retry_at: now.checked_add(delay).unwrap_or(now),
        };
        if !valid(name) {
            let message = format!(
                "Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": invalid reference format"
            );
            node.event(pod, at, EventKind::Warning, "InspectFailed", message.clone());
            return Err(fail("InvalidImageName", message, IMAGE_DELAY_MAX));
        }
        let present = node.runtime.image(name).await.map_err(|e| {
            fail("ImageInspectError", format!("Failed to inspect image \"{name}\": {}", e.message()), IMAGE_DELAY_FIRST)
        })?;
        match (policy(container), present) {
            ("IfNotPresent" | "Never", Some(image)) => {
                let text = format!("Container image \"{name}\" already present on machine");
                node.event(pod, at, EventKind::Normal, "Pulled", text);
                return Ok(image);
            }
            ("Never", None) => {
                let message = format!("Container image \"{name}\" is not present with pull policy of Never");
                node.event(pod, at, EventKind::Warning, "ErrImageNeverPull", message.clone());
                return Err(fail("ErrImageNeverPull", message, IMAGE_DELAY_FIRST));
            }
            _ => {}
        }
        let key = (pod.metadata.uid.clone().unwrap_or_default(), name.to_string());
        let failed = self.backoff.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((_, until, cause)) = &failed
            && *until > now
        {
            let message = format!("Back-off pulling image \"{name}\": {cause}");
            return Err(ImageFailure { reason: "ImagePullBackOff", message, retry_at: *until });
        }
        let lock = {
            let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
            pulls.retain(|_, lock| Arc::strong_count(lock) > 1);
            pulls.entry(name.to_string()).or_default().clone()
        };
        let waited = Instant::now();
        let _one_at_a_time = lock.lock().await;
        let began = Instant::now();
        node.event(pod, at, EventKind::Normal, "Pulling", format!("Pulling image \"{name}\""));
        match pull(node, pod, name, sandbox).await {
            Ok(image) => {
                self.backoff.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                let text = format!(
                    "Successfully pulled image \"{name}\" in {} ({} including waiting). Image size: {} bytes.",
                    seconds(began.elapsed()),
                    seconds(waited.elapsed()),
                    image.size
                );
                node.event(pod, at, EventKind::Normal, "Pulled", text);
                node.status_news.notify_one();
                Ok(image)
            }
            Err(cause) => {
                let delay = failed.map_or(IMAGE_DELAY_FIRST, |(old, ..)| (old * 2).min(IMAGE_DELAY_MAX));
                let now = Timestamp::now();
                let until = now.checked_add(delay).unwrap_or(now);
                let short = format!("ErrImagePull: {cause}");
                self.backoff.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (delay, until, short));
                let text = format!("Failed to pull image \"{name}\": {cause}");
                node.event(pod, at, EventKind::Warning, "Failed", text);
                node.event(pod, at, EventKind::Warning, "Failed", "Error: ErrImagePull".into());
                Err(ImageFailure { reason: "ErrImagePull", message: cause, retry_at: until })
            }
        }
    }

    /// Forgets the failures of a pod that is gone.
    pub fn release(&self, pod_uid: &str) {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| key.0 != pod_uid);
    }
}

fn seconds(duration: Duration) -> String {
    if duration.as_millis() < 1000 {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{:.3}s", duration.as_secs_f64())
    }
}

async fn pull(node: &Node, pod: &Pod, name: &str, sandbox: &PodSandboxConfig) -> Result<Image, String> {
    let mut tries: Vec<Option<AuthConfig>> = credentials(node, pod, name).await.into_iter().map(Some).collect();
    if tries.is_empty() {
        tries.push(None);
    }
    let mut cause = String::new();
    for auth in tries {
        match node.runtime.pull(name, auth, Some(sandbox.clone())).await {
            Ok(reference) => {
                let image = node.runtime.image(&reference).await.map_err(|e| e.message().to_string())?;
                return image.ok_or_else(|| format!("image {reference} vanished after the pull"));
            }
            Err(status) => {
                cause = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
            }
        }
    }
    Err(cause)
}

/// The registry of an image name.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// Credentials from the pod's pull secrets whose registry matches.
async fn credentials(node: &Node, pod: &Pod, image: &str) -> Vec<AuthConfig> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    let secrets = pod.spec.as_ref().and_then(|s| s.image_pull_secrets.as_deref()).unwrap_or_default();
    for secret in secrets {
        let Ok(Some(data)) = node.objects.get(DataKind::Secret, namespace, &secret.name, uid).await else { continue };
        let text = data.get(".dockerconfigjson").or_else(|| data.get(".dockercfg"));
        let Some(json) = text.and_then(|t| serde_json::from_slice::<serde_json::Value>(t).ok()) else { continue };
        let entries = json.get("auths").unwrap_or(&json).as_object().cloned().unwrap_or_default();
        for (server, entry) in entries {
            let host = server.trim_start_matches("https://").trim_start_matches("http://");
            let host = host.split('/').next().unwrap_or_default();
            let same = host == registry(image) || (host == "index.docker.io" && registry(image) == "docker.io");
            if same {
                found.push(auth(&server, &entry));
            }
        }
    }
    found
}

fn auth(server: &str, entry: &serde_json::Value) -> AuthConfig {
    let text = |name: &str| entry.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_string();
    let (mut username, mut password) = (text("username"), text("password"));
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).unwrap_or_default();
    if let Some((user, word)) = String::from_utf8_lossy(&decoded).split_once(':')
        && username.is_empty()
    {
        (username, password) = (user.to_string(), word.trim_end_matches('\0').to_string());
    }
    AuthConfig {
        username,
        password,
        server_address: server.to_string(),
        identity_token: text("identitytoken"),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for good in ["busybox", "a/b:1", "localhost:5000/a_b/c-d:v1.2", "registry.k8s.io/pause:3.9", "a@sha256:0123"] {
            assert!(valid(good), "{good}");
        }
        for bad in ["", "UPPER", "a//b", "a:b:c d", "-a", "a:"] {
            assert!(!valid(bad), "{bad}");
        }
        let container = |image: &str, policy: Option<&str>| Container {
            image: Some(image.to_owned()),
            image_pull_policy: policy.map(str::to_owned),
            ..Container::default()
        };
        assert_eq!(policy(&container("tug.local/demo:latest", Some("Always"))), "IfNotPresent");
        assert_eq!(policy(&container("example.com/demo:latest", None)), "Always");
        assert_eq!(policy(&container("tug.local/demo:latest", Some("Never"))), "Never");
        assert_eq!(registry("localhost/x"), "localhost");
        assert_eq!(registry("a/b"), "docker.io");
    }
}
