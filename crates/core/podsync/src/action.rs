//! What a plan consists of: actions of the runtime, with their reasons.

use crate::{Backoff, ContainerKind, ProbeKind};
use jiff::Timestamp;

/// Why a container is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// The pod is deleted, evicted, past its deadline or finished.
    PodEnds,
    /// A liveness or startup probe failed.
    ProbeFailed {
        /// Which one.
        probe: ProbeKind,
        /// Whether the container starts again.
        restarts: bool,
    },
    /// Its sandbox is gone or unusable.
    SandboxChanged,
    /// Its image in the pod was changed.
    SpecChanged,
    /// It was granted other resources, and its policy wants a restart for the change.
    Resized,
    /// Another container's restart rule asks for all of them to begin anew.
    AllRestart,
}

impl KillReason {
    /// Whether the container is ended only to start anew: it does so also where its policy would let a success be the end.
    pub fn replaces(&self) -> bool {
        matches!(self, Self::ProbeFailed { restarts: true, .. } | Self::SpecChanged | Self::Resized)
    }

    /// The text of the `Killing` event.
    pub fn message(&self, container: &str, init: bool) -> String {
        match self {
            Self::PodEnds | Self::SandboxChanged => format!("Stopping container {container}"),
            Self::ProbeFailed { probe, .. } if init => {
                format!("Init container {container} failed {} probe", probe.as_str().to_lowercase())
            }
            Self::ProbeFailed { probe, restarts } => {
                let then = if *restarts { ", will be restarted" } else { "" };
                format!("Container {container} failed {} probe{then}", probe.as_str().to_lowercase())
            }
            Self::SpecChanged if init => format!("Init container {container} definition changed"),
            Self::SpecChanged => format!("Container {container} definition changed, will be restarted"),
            Self::Resized => format!("Container {container} resize requires restart"),
            Self::AllRestart => "killing".to_string(),
        }
    }
}

/// One thing to do in the runtime. Independent of each other; all may run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a sandbox with this attempt number.
    CreateSandbox { attempt: u32 },
    /// Stop a sandbox (its network and namespaces go).
    StopSandbox { id: String },
    /// Remove a stopped sandbox that no container needs.
    RemoveSandbox { id: String },
    /// Create and start a container; `crash` is the restart delay to remember.
    Start { name: String, kind: ContainerKind, attempt: u32, sandbox_id: String, crash: Option<Backoff> },
    /// preStop hook, wait for the end of the containers in `after`, SIGTERM, SIGKILL `grace` seconds after the beginning.
    Stop { id: String, name: String, reason: KillReason, grace: i64, after: Vec<String> },
    /// Remove a dead container that is no longer the current or previous one, or all for a restart of the whole pod.
    RemoveContainer { id: String, restart: Option<WholeRestart> },
}

/// A container goes because the whole pod begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeRestart {
    /// Its name.
    pub name: String,
    /// The restart delay to remember, for the container that asked for this.
    pub crash: Option<Backoff>,
}

/// What to do now and when to look again without an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Actions to start now.
    pub actions: Vec<Action>,
    /// Earliest moment at which time alone changes the plan.
    pub wake_at: Option<Timestamp>,
    /// Nothing of this pod is alive and nothing will be started any more.
    pub ended: bool,
}

impl Plan {
    pub(crate) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |old| old.min(at)));
    }
}
