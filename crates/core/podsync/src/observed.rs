//! What the node knows of one pod: the runtime's sandboxes and containers, and what earlier rounds remember.

use crate::{Backoff, CgroupLimits, ProbeKind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;
use std::collections::{BTreeMap, BTreeSet};

/// Reason of a container that was removed because the whole pod begins anew.
pub const RESTARTING_ALL: &str = "RestartingAllContainers";
const RESTARTING_ALL_MESSAGE: &str = "The container is removed because RestartAllContainers in place";

/// A pod sandbox as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Runtime id.
    pub id: String,
    /// Which try for this pod it is.
    pub attempt: u32,
    /// Whether its namespaces are up.
    pub ready: bool,
    /// Addresses, first is primary; empty with host networking.
    pub ips: Vec<String>,
    /// Creation time.
    pub created: Timestamp,
}

/// A container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime lost track of it.
    Unknown,
}

/// A container as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Runtime id.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// Sandbox it belongs to.
    pub sandbox_id: String,
    /// How many containers of this name came before.
    pub attempt: u32,
    /// Life state.
    pub state: ContainerState,
    /// Creation time.
    pub created: Timestamp,
    /// Start time, if started.
    pub started: Option<Timestamp>,
    /// End time, if ended.
    pub finished: Option<Timestamp>,
    /// Exit code, if ended.
    pub exit_code: i32,
    /// Runtime's reason: `Completed`, `Error`, `OOMKilled`, `StartError`, ...
    pub reason: String,
    /// Termination message.
    pub message: String,
    /// Image as asked for.
    pub image: String,
    /// Image digest reference.
    pub image_id: String,
    /// Absolute path of its log.
    pub log_path: String,
}

/// Everything the runtime has for a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Containers, newest first.
    pub containers: Vec<Container>,
}

impl Observed {
    /// The newest container of that name.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().filter(|c| c.name == name).max_by_key(|c| (c.attempt, c.created))
    }

    /// Whether the runtime has nothing of the pod.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().max_by_key(|s| (s.attempt, s.created))
    }
}

/// Why a container is not running yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// CamelCase reason, for example `ErrImagePull`.
    pub reason: String,
    /// Explanation for people.
    pub message: String,
}

/// What earlier rounds for this pod remember; lost without harm when the process restarts.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Containers (by name) whose start is under way; `""` is the sandbox.
    pub starting: BTreeSet<String>,
    /// Container and sandbox ids whose stop is under way.
    pub stopping: BTreeSet<String>,
    /// Why the last try to start a container failed.
    pub waiting: BTreeMap<String, Waiting>,
    /// Do not try to start this container before (after failed pulls and creations).
    pub retry_at: BTreeMap<String, Timestamp>,
    /// Restart delays by container name.
    pub crash: BTreeMap<String, Backoff>,
    /// Startup probe passed, or none is configured; by container id.
    pub started: BTreeSet<String>,
    /// Readiness by container id; absent counts as ready when there is no readiness probe.
    pub ready: BTreeMap<String, bool>,
    /// Containers that a liveness or startup probe condemned; by container id.
    pub condemned: BTreeMap<String, ProbeKind>,
    /// Containers removed because the whole pod begins anew; by container id.
    pub reborn: BTreeSet<String>,
    /// Containers ended only to start anew, whatever their exit code says; by container id.
    pub replaced: BTreeSet<String>,
    /// Resources that containers run with, by container id; absent where an earlier process started the container.
    pub resources: BTreeMap<String, ResourceRequirements>,
    /// Limits that the pod's control group was given; absent where an earlier process did.
    pub pod_limits: Option<CgroupLimits>,
    /// Why a resize has to wait: reason and message.
    pub resize_pending: Option<Waiting>,
    /// The pod's generation whose resources were granted last, where they were not the first ones.
    pub resize_generation: Option<i64>,
    /// Why a resize that was granted is not done.
    pub resize_error: Option<String>,
    /// Do not try to make a sandbox before.
    pub sandbox_retry_at: Option<Timestamp>,
    /// Set when the pod is refused or ended by the node: phase Failed with this reason and message.
    pub failed: Option<Waiting>,
    /// Set when the node ends a running pod: the condition DisruptionTarget has this message.
    pub disruption: Option<String>,
    /// Seconds that containers get instead of the pod's own grace period.
    pub grace: Option<i64>,
    /// Set when the pod must go although the API does not say so (for example it vanished while the node was away).
    pub terminate: bool,
}

impl Observed {
    /// Adds containers that the API's status speaks of and the runtime no longer has, so that they count as ended.
    ///
    /// A container that was running becomes `ContainerStatusUnknown` with exit code 137.
    /// One in `reborn` is to start again whatever its policy says.
    pub fn absorb(&mut self, status: &k8s_openapi::api::core::v1::PodStatus, reborn: &BTreeSet<String>) {
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        for old in lists.into_iter().flatten().flatten() {
            let attempt = u32::try_from(old.restart_count).unwrap_or(0);
            let known = self.latest(&old.name).is_some_and(|c| c.attempt >= attempt);
            let Some(id) = old.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id) else {
                continue;
            };
            if known {
                continue;
            }
            let epoch = Timestamp::UNIX_EPOCH;
            let ended = old.state.as_ref().and_then(|s| s.terminated.as_ref());
            let ended = ended.or_else(|| old.last_state.as_ref().and_then(|s| s.terminated.as_ref()));
            let running = old.state.as_ref().and_then(|s| s.running.as_ref());
            let time = |t: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| t.map(|t| t.0);
            let lost = running.is_some() || ended.is_none();
            let (exit_code, reason, message) = match ended {
                _ if reborn.contains(id) => (137, RESTARTING_ALL.into(), RESTARTING_ALL_MESSAGE.into()),
                Some(e) if !lost => {
                    (e.exit_code, e.reason.clone().unwrap_or_default(), e.message.clone().unwrap_or_default())
                }
                _ => (
                    137,
                    "ContainerStatusUnknown".into(),
                    "The container could not be located when the pod was terminated".into(),
                ),
            };
            self.containers.push(Container {
                id: id.to_string(),
                name: old.name.clone(),
                sandbox_id: String::new(),
                attempt,
                state: ContainerState::Exited,
                created: epoch,
                started: time(running.and_then(|r| r.started_at.as_ref()))
                    .or(time(ended.and_then(|e| e.started_at.as_ref()))),
                finished: if lost { None } else { time(ended.and_then(|e| e.finished_at.as_ref())) },
                exit_code,
                reason,
                message,
                image: old.image.clone(),
                image_id: old.image_id.clone(),
                log_path: String::new(),
            });
        }
    }
}
