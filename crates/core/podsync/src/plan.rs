//! The next runtime actions for a pod: sandbox first, init containers in order, then the rest; restarts and endings.

use crate::status::pod_is_finished;
use crate::{Backoff, Container, ContainerKind, ContainerState, Memory, Observed, all_containers, grace_seconds};
use crate::{ProbeKind, RESTARTING_ALL};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, ContainerRestartRule, Pod, PodSpec};

/// The action of a restart rule that begins the whole pod anew.
const RESTART_ALL: &str = "RestartAllContainers";

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
    /// Another container's restart rule asks for all of them to begin anew.
    AllRestart,
}

impl KillReason {
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
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |old| old.min(at)));
    }
}

/// What the container's own rules say about this exit code: `Restart` or `RestartAllContainers`.
fn matching_rule(spec: &Spec, exit_code: i32) -> Option<&str> {
    spec.restart_policy.as_ref()?;
    let matches = |rule: &&ContainerRestartRule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    spec.restart_policy_rules.iter().flatten().find(matches).map(|rule| rule.action.as_str())
}

/// Whether a container that ended with this code is started again.
pub(crate) fn should_restart(pod: &Pod, kind: ContainerKind, spec: &Spec, exit_code: i32) -> bool {
    if kind == ContainerKind::Ephemeral {
        return false;
    }
    if matches!(matching_rule(spec, exit_code), Some("Restart" | RESTART_ALL)) {
        return true;
    }
    let own = spec.restart_policy.as_deref();
    let policy = own.or(pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref())).unwrap_or("Always");
    match (kind, policy) {
        (ContainerKind::Sidecar, _) => true,
        // an init container has to succeed once, so Always means until it does
        (ContainerKind::Init, "Always") => exit_code != 0,
        (_, "Always") => true,
        (_, "OnFailure") => exit_code != 0,
        _ => false,
    }
}

/// Whether this ended container is started again: by its policy, or because the whole pod begins anew.
pub(crate) fn restarts(pod: &Pod, kind: ContainerKind, spec: &Spec, ended: &Container) -> bool {
    ended.reason == RESTARTING_ALL || should_restart(pod, kind, spec, ended.exit_code)
}

/// Whether a failure of the container can lead to its restart at all.
fn may_restart(pod: &Pod, spec: &Spec) -> bool {
    if spec.restart_policy_rules.iter().flatten().any(|rule| rule.action == "Restart") {
        return true;
    }
    let policy = spec.restart_policy.as_deref().or(pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()));
    policy != Some("Never")
}

/// The container of the current sandbox whose end asks for the whole pod to begin anew.
pub(crate) fn whole_restart<'a>(pod: &Pod, observed: &'a Observed) -> Option<&'a Container> {
    let sandbox = observed.sandbox()?;
    all_containers(pod.spec.as_ref()?).find_map(|(_, spec)| {
        let latest = observed.latest(&spec.name)?;
        let asks = latest.state == ContainerState::Exited
            && latest.sandbox_id == sandbox.id
            && matching_rule(spec, latest.exit_code) == Some(RESTART_ALL);
        asks.then_some(latest)
    })
}

/// Whether some container has a rule that can restart the whole pod.
pub(crate) fn may_restart_whole(spec: &PodSpec) -> bool {
    all_containers(spec).any(|(_, c)| c.restart_policy_rules.iter().flatten().any(|rule| rule.action == RESTART_ALL))
}

/// Moment at which the pod's `activeDeadlineSeconds` ends it.
pub(crate) fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// What a pod past its `activeDeadlineSeconds` is told.
pub const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// Whether the pod's `activeDeadlineSeconds` are over.
pub fn is_past_deadline(pod: &Pod, now: Timestamp) -> bool {
    deadline(pod).is_some_and(|at| now >= at)
}

/// When a container that ended may start again, if not at once.
pub(crate) fn crash_hold(memory: &Memory, container: &Container) -> Option<Timestamp> {
    let failed = container.finished.unwrap_or(container.created);
    Backoff::not_before(memory.crash.get(&container.name).copied(), failed)
}

/// Decides what to do for `pod`. Running it twice on the same input gives the same plan.
pub fn plan(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &pod.spec else { return plan };
    remove_leftovers(observed, memory, &mut plan);

    if let Some(at) = deadline(pod) {
        plan.wake(at);
    }
    let ends = pod.metadata.deletion_timestamp.is_some()
        || memory.terminate
        || memory.failed.is_some()
        || is_past_deadline(pod, now)
        || api_phase_is_terminal(pod)
        || pod_is_finished(pod, observed);
    if ends {
        end_pod(pod, observed, memory, &mut plan);
        return plan;
    }

    let network_ok = |ips: &[String]| crate::is_host_network(spec) || !ips.is_empty();
    let sandbox = observed.sandbox().filter(|s| s.ready && network_ok(&s.ips) && !memory.stopping.contains(&s.id));
    let Some(sandbox) = sandbox else {
        replace_sandbox(pod, observed, memory, now, &mut plan);
        return plan;
    };
    if let Some(cause) = whole_restart(pod, observed) {
        begin_anew(observed, memory, cause, now, &mut plan);
        return plan;
    }
    let mut starter = Starter { pod, observed, memory, now, sandbox_id: &sandbox.id, plan: &mut plan };
    starter.containers();
    plan
}

fn api_phase_is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Ends and removes all containers of the sandbox; the one that asked for it goes last, so that a restart of the node agent
/// finds it and goes on.
fn begin_anew(observed: &Observed, memory: &Memory, cause: &Container, now: Timestamp, plan: &mut Plan) {
    if let Some(at) = crash_hold(memory, cause).filter(|at| *at > now) {
        plan.wake(at);
        return;
    }
    plan.actions.retain(|action| !matches!(action, Action::RemoveContainer { .. }));
    let living: Vec<&Container> = observed.containers.iter().filter(|c| alive(c)).collect();
    for container in &living {
        stop(container, KillReason::AllRestart, 0, memory, plan);
    }
    if !living.is_empty() || !memory.starting.is_empty() {
        return;
    }
    let here: Vec<&Container> = observed.containers.iter().filter(|c| !c.sandbox_id.is_empty()).collect();
    let others = here.iter().filter(|c| c.id != cause.id);
    let mut due: Vec<(&Container, Option<Backoff>)> = others.map(|c| (*c, None)).collect();
    if due.is_empty() {
        let failed = cause.finished.unwrap_or(cause.created);
        due.push((cause, Some(Backoff::next(memory.crash.get(&cause.name).copied(), failed, now))));
    }
    for (container, crash) in due.into_iter().filter(|(c, _)| !memory.stopping.contains(&c.id)) {
        let restart = Some(WholeRestart { name: container.name.clone(), crash });
        plan.actions.push(Action::RemoveContainer { id: container.id.clone(), restart });
    }
}

/// Something that has to be stopped. A container that was made and never started holds no process.
fn alive(container: &Container) -> bool {
    matches!(container.state, ContainerState::Running | ContainerState::Unknown)
}

/// Keeps the current and the previous container of each name.
fn remove_leftovers(observed: &Observed, memory: &Memory, plan: &mut Plan) {
    let mut names: Vec<&str> = observed.containers.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut same: Vec<&Container> = observed.containers.iter().filter(|c| c.name == name).collect();
        same.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created)));
        for old in same.iter().skip(2).filter(|c| c.state == ContainerState::Exited && !c.sandbox_id.is_empty()) {
            if !memory.stopping.contains(&old.id) {
                plan.actions.push(Action::RemoveContainer { id: old.id.clone(), restart: None });
            }
        }
    }
    let newest = observed.sandbox().map(|s| s.id.as_str());
    for sandbox in &observed.sandboxes {
        let used = observed.containers.iter().any(|c| c.sandbox_id == sandbox.id);
        if Some(sandbox.id.as_str()) != newest && !used && !memory.stopping.contains(&sandbox.id) {
            plan.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
        }
    }
}

/// Ends all containers at once; a sidecar gets its SIGTERM after the main containers and the sidecars behind it have ended.
/// The sandbox goes last.
fn end_pod(pod: &Pod, observed: &Observed, memory: &Memory, plan: &mut Plan) {
    plan.wake_at = None;
    let Some(spec) = &pod.spec else { return };
    let place = |name: &str| spec.init_containers.iter().flatten().position(|c| c.name == name && crate::is_sidecar(c));
    let living: Vec<(&Container, Option<usize>)> =
        observed.containers.iter().filter(|c| alive(c)).map(|c| (c, place(&c.name))).collect();
    // a start under way will show up as a container or as a failure; wait for it before the sandbox goes
    let waiting = !memory.starting.is_empty() || !living.is_empty();
    for (container, own) in &living {
        if memory.stopping.contains(&container.id) {
            continue;
        }
        let before = living.iter().filter(|(_, other)| own.is_some() && (other.is_none() || other > own));
        plan.actions.push(Action::Stop {
            id: container.id.clone(),
            name: container.name.clone(),
            reason: KillReason::PodEnds,
            grace: memory.grace.unwrap_or_else(|| grace_seconds(pod)),
            after: before.map(|(c, _)| c.id.clone()).collect(),
        });
    }
    if waiting {
        return;
    }
    let mut left = false;
    for sandbox in observed.sandboxes.iter().filter(|s| s.ready) {
        left = true;
        if !memory.stopping.contains(&sandbox.id) {
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
    plan.ended = !left && memory.stopping.is_empty();
}

fn stop(container: &Container, reason: KillReason, grace: i64, memory: &Memory, plan: &mut Plan) {
    if !memory.stopping.contains(&container.id) {
        let (id, name) = (container.id.clone(), container.name.clone());
        plan.actions.push(Action::Stop { id, name, reason, grace, after: Vec::new() });
    }
}

fn replace_sandbox(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp, plan: &mut Plan) {
    let mut living = false;
    for container in observed.containers.iter().filter(|c| alive(c)) {
        living = true;
        stop(container, KillReason::SandboxChanged, grace_seconds(pod), memory, plan);
    }
    for sandbox in observed.sandboxes.iter().filter(|s| s.ready) {
        living = true;
        if !memory.stopping.contains(&sandbox.id) {
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
    if living || memory.starting.contains("") {
        return;
    }
    if let Some(at) = memory.sandbox_retry_at.filter(|at| *at > now) {
        plan.wake(at);
        return;
    }
    let attempt = observed.sandboxes.iter().map(|s| s.attempt + 1).max().unwrap_or(0);
    plan.actions.push(Action::CreateSandbox { attempt });
}

struct Starter<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    memory: &'a Memory,
    now: Timestamp,
    sandbox_id: &'a str,
    plan: &'a mut Plan,
}

impl Starter<'_> {
    fn here(&self, name: &str) -> Option<&Container> {
        self.observed.latest(name).filter(|c| c.sandbox_id == self.sandbox_id)
    }

    fn containers(&mut self) {
        let pod = self.pod;
        let Some(spec) = &pod.spec else { return };
        for container in crate::ephemeral_containers(spec) {
            if self.observed.latest(&container.name).is_none() {
                self.start(ContainerKind::Ephemeral, &container);
            }
        }
        let main_began = spec.containers.iter().any(|c| self.here(&c.name).is_some());
        for (kind, container) in all_containers(spec) {
            let go_on = match kind {
                ContainerKind::Init if main_began => true,
                ContainerKind::Init => self.init(container),
                ContainerKind::Sidecar => self.keep_running(kind, container) || main_began,
                ContainerKind::Main => {
                    self.keep_running(kind, container);
                    true
                }
                ContainerKind::Ephemeral => true,
            };
            if !go_on {
                return;
            }
        }
    }

    /// Runs an init container to success; true when the next may start.
    fn init(&mut self, spec: &Spec) -> bool {
        match self.here(&spec.name).cloned() {
            Some(c) if c.state == ContainerState::Exited && c.exit_code == 0 => true,
            Some(c) if c.state == ContainerState::Running => false,
            _ => {
                self.start(ContainerKind::Init, spec);
                false
            }
        }
    }

    /// Keeps a container running as its policy says; true when it has started.
    fn keep_running(&mut self, kind: ContainerKind, spec: &Spec) -> bool {
        let Some(container) = self.here(&spec.name).cloned() else {
            self.start(kind, spec);
            return false;
        };
        if container.state != ContainerState::Running {
            self.start(kind, spec);
            return false;
        }
        if let Some(probe) = self.memory.condemned.get(&container.id).copied() {
            let reason = KillReason::ProbeFailed { probe, restarts: may_restart(self.pod, spec) };
            stop(&container, reason, probe_grace(self.pod, spec, probe), self.memory, self.plan);
        } else if container.image != spec.image.as_deref().unwrap_or_default() {
            stop(&container, KillReason::SpecChanged, grace_seconds(self.pod), self.memory, self.plan);
        }
        self.memory.started.contains(&container.id)
    }

    fn start(&mut self, kind: ContainerKind, spec: &Spec) {
        if self.memory.starting.contains(&spec.name) {
            return;
        }
        let latest = self.observed.latest(&spec.name);
        let mut crash = None;
        if let Some(old) = latest.filter(|c| c.state == ContainerState::Exited) {
            let same_sandbox = old.sandbox_id == self.sandbox_id;
            let counts = same_sandbox || kind == ContainerKind::Main;
            if counts && !restarts(self.pod, kind, spec, old) {
                return;
            }
            // a restart of the whole pod was held back before, by the container that asked for it
            if old.reason != RESTARTING_ALL {
                if let Some(at) = crash_hold(self.memory, old).filter(|at| *at > self.now) {
                    self.plan.wake(at);
                    return;
                }
                let failed = old.finished.unwrap_or(old.created);
                crash = Some(Backoff::next(self.memory.crash.get(&spec.name).copied(), failed, self.now));
            }
        }
        if let Some(at) = self.memory.retry_at.get(&spec.name).filter(|at| **at > self.now) {
            self.plan.wake(*at);
            return;
        }
        let attempt = latest.map_or(0, |c| c.attempt + 1);
        let (name, sandbox_id) = (spec.name.clone(), self.sandbox_id.to_string());
        self.plan.actions.push(Action::Start { name, kind, attempt, sandbox_id, crash });
    }
}

/// A failed probe may have a grace period of its own; the end of the pod overrides it.
fn probe_grace(pod: &Pod, spec: &Spec, probe: ProbeKind) -> i64 {
    let own = match probe {
        ProbeKind::Startup => spec.startup_probe.as_ref(),
        ProbeKind::Liveness => spec.liveness_probe.as_ref(),
        ProbeKind::Readiness => None,
    };
    let own =
        own.and_then(|p| p.termination_grace_period_seconds).filter(|_| pod.metadata.deletion_timestamp.is_none());
    own.unwrap_or_else(|| grace_seconds(pod))
}
