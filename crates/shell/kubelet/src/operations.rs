//! The operations that a pod's plan consists of, each with its events: sandbox, container start with image and hook, stop with hook.

use crate::container::{self, Inputs};
use crate::fields::Addresses;
use crate::node::Node;
use crate::runtime::cri;
use crate::{cgroups, check, sandbox, volumes};
use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use podsync::{CgroupLimits, KillReason, Waiting};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Shortest time between SIGTERM and SIGKILL, even where the grace period is used up.
const GRACE_MIN: i64 = 2;
/// Delay after a sandbox or volume could not be made.
const RETRY_DELAY: SignedDuration = SignedDuration::from_secs(5);
/// Delay after a container's configuration could not be resolved; a change of the missing object ends it early.
const CONFIG_RETRY_DELAY: SignedDuration = SignedDuration::from_secs(10);

/// Why something did not start, and when to try again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Waiting reason and message.
    pub waiting: Waiting,
    /// When to try again.
    pub retry_at: Timestamp,
}

fn failure(reason: &str, message: String, delay: SignedDuration) -> Failure {
    let now = Timestamp::now();
    let waiting = Waiting { reason: reason.into(), message };
    Failure { waiting, retry_at: now.checked_add(delay).unwrap_or(now) }
}

fn text(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// Makes volumes, control group and sandbox.
pub async fn create_sandbox(node: Arc<Node>, pod: Arc<Pod>, attempt: u32) -> Result<String, Failure> {
    let creating = |message: String| failure("ContainerCreating", message, RETRY_DELAY);
    if let Err(error) = volumes::prepare(&node, &pod).await {
        let message = format!("MountVolume.SetUp failed for volume \"{}\" : {}", error.volume, error.cause);
        node.event(&pod, None, EventKind::Warning, "FailedMount", message.clone());
        return Err(creating(message));
    }
    let spec = pod.spec.clone().unwrap_or_default();
    cgroups::keep(&node);
    let group = sandbox::cgroup_parent(&node, &pod);
    if let Err(error) = cgroups::ensure(&group, &podsync::pod_limits(&spec)) {
        let message =
            format!("unable to ensure pod container exists: failed to create container for {group} : {error}");
        node.event(&pod, None, EventKind::Warning, "FailedCreatePodContainer", message.clone());
        return Err(creating(message));
    }
    let logs = sandbox::log_directory(&node, &pod);
    if let Err(error) = std::fs::create_dir_all(&logs) {
        return Err(creating(format!("cannot make {}: {error}", logs.display())));
    }
    let handler = match runtime_handler(&node, spec.runtime_class_name.as_deref()).await {
        Ok(handler) => handler,
        Err(cause) => {
            let message = format!("Failed to create pod sandbox: {cause}");
            node.event(&pod, None, EventKind::Warning, "FailedCreatePodSandBox", message.clone());
            return Err(creating(message));
        }
    };
    if let Err(cause) = possible(&pod, &node.config.cluster_domain, &handler) {
        let message = format!("Failed to create pod sandbox: {cause}");
        node.event(&pod, None, EventKind::Warning, "FailedCreatePodSandBox", message.clone());
        return Err(creating(message));
    }
    for text in crate::names::dns_excess(&pod, &node.config) {
        node.event(&pod, None, EventKind::Warning, "DNSConfigForming", text);
    }
    let Ok(_slot) = node.start_slots.acquire().await else { return Err(creating("the node stops".into())) };
    match node.runtime.run_sandbox(sandbox::config(&node, &pod, attempt), handler).await {
        Ok(id) => {
            node.registry.own(&id, pod.metadata.uid.as_deref().unwrap_or_default());
            Ok(id)
        }
        Err(status) => {
            let message = format!("Failed to create pod sandbox: {}", text(&status));
            node.event(&pod, None, EventKind::Warning, "FailedCreatePodSandBox", message.clone());
            Err(creating(message))
        }
    }
}

/// What no sandbox of this runtime can have.
fn possible(pod: &Pod, cluster_domain: &str, handler: &str) -> Result<(), String> {
    if pod.spec.as_ref().and_then(|s| s.host_users) == Some(false) {
        let of = if handler.is_empty() { "runtime".to_string() } else { format!("RuntimeClass handler \"{handler}\"") };
        return Err(format!("can't set `spec.hostUsers: false`, {of} does not support user namespaces"));
    }
    crate::names::check_hostname(pod, cluster_domain)
}

/// The runtime's handler for a RuntimeClass; the empty one is the runtime's default.
async fn runtime_handler(node: &Node, class: Option<&str>) -> Result<String, String> {
    let Some(name) = class.filter(|name| !name.is_empty()) else { return Ok(String::new()) };
    let classes: kube::Api<RuntimeClass> = kube::Api::all(node.client.clone());
    let found = classes.get_opt(name).await.map_err(|e| format!("failed to get RuntimeClass \"{name}\": {e}"))?;
    found.map(|class| class.handler).ok_or_else(|| format!("RuntimeClass \"{name}\" not found"))
}

/// What a start needs.
pub struct Start {
    /// The node.
    pub node: Arc<Node>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container.
    pub spec: Container,
    /// Whether it stands among the init containers.
    pub init: bool,
    /// How many came before.
    pub attempt: u32,
    /// Its sandbox.
    pub sandbox_id: String,
    /// Its sandbox's attempt.
    pub sandbox_attempt: u32,
    /// Addresses of the pod.
    pub ips: Vec<String>,
    /// Runtime id of the container whose process namespace it joins.
    pub debugs: Option<String>,
}

impl Start {
    fn event(&self, kind: EventKind, reason: &str, message: String) {
        self.node.event(&self.pod, Some((&self.spec.name, self.init)), kind, reason, message);
    }

    /// Image, configuration, creation, start and postStart hook.
    pub async fn run(self) -> Result<String, Failure> {
        let sandbox = sandbox::config(&self.node, &self.pod, self.sandbox_attempt);
        let image = self.node.images.ensure(&self.node, &self.pod, &self.spec, self.init, &sandbox).await;
        let image = image.map_err(|f| {
            if f.reason == "ImagePullBackOff" {
                let name = self.spec.image.as_deref().unwrap_or_default();
                self.event(EventKind::Normal, "BackOff", format!("Back-off pulling image \"{name}\""));
                self.event(EventKind::Warning, "Failed", "Error: ImagePullBackOff".into());
            }
            Failure { waiting: Waiting { reason: f.reason.into(), message: f.message }, retry_at: f.retry_at }
        })?;
        let prepared = volumes::prepare(&self.node, &self.pod).await.map_err(|e| {
            failure("CreateContainerConfigError", format!("volume \"{}\": {}", e.volume, e.cause), CONFIG_RETRY_DELAY)
        })?;
        let addresses = Addresses { pod: self.ips.clone(), host: self.node.host_ips() };
        let inputs = Inputs {
            node: &self.node,
            pod: &self.pod,
            spec: &self.spec,
            attempt: self.attempt,
            addresses: &addresses,
            volumes: &prepared.paths,
            image: &image,
            debugs: self.debugs.as_deref(),
        };
        let config = container::config(&inputs).await.map_err(|message| {
            self.event(EventKind::Warning, "Failed", format!("Error: {message}"));
            failure("CreateContainerConfigError", message, CONFIG_RETRY_DELAY)
        })?;
        self.wait_for_policies().await?;
        let id = self.create_and_start(config, sandbox).await?;
        let hook = self.spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        if let Some(hook) = hook
            && let Err(cause) = run_hook(&self.node, &self.spec, &id, self.ips.first(), hook).await
        {
            let grace = podsync::grace_seconds(&self.pod);
            // the cause may hold secrets of the server that was asked
            self.event(EventKind::Warning, "FailedPostStartHook", "PostStartHook failed".into());
            let message = "FailedPostStartHook".to_string();
            self.event(EventKind::Normal, "Killing", message.clone());
            let _ = self.node.runtime.stop_container(&id, grace).await;
            return Err(failure("PostStartHookError", cause, SignedDuration::ZERO));
        }
        Ok(id)
    }

    /// A policy isolates its pods from their first instant on. Pods on the node's own network are out of its reach.
    async fn wait_for_policies(&self) -> Result<(), Failure> {
        let host_network = self.pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
        let Some(rules) = self.node.withdrawal.get().filter(|_| !host_network) else { return Ok(()) };
        let (namespace, name) = (self.pod.metadata.namespace.as_deref(), self.pod.metadata.name.as_deref());
        let addresses: Vec<std::net::IpAddr> = self.ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        if rules.guarded(namespace.unwrap_or_default(), name.unwrap_or_default(), &addresses).await {
            return Ok(());
        }
        let message = "the pod's network policies are not in force yet".to_string();
        self.event(EventKind::Warning, "Failed", format!("Error: {message}"));
        Err(failure("CreateContainerError", message, RETRY_DELAY))
    }

    async fn create_and_start(
        &self,
        config: cri::ContainerConfig,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String, Failure> {
        let slot = self.node.start_slots.acquire().await;
        let Ok(_slot) = slot else { return Err(failure("RunContainerError", "the node stops".into(), RETRY_DELAY)) };
        let runtime = &self.node.runtime;
        let id = runtime.create_container(&self.sandbox_id, config, sandbox).await.map_err(|status| {
            self.event(EventKind::Warning, "Failed", format!("Error: {}", status.message()));
            failure("CreateContainerError", status.message().to_string(), CONFIG_RETRY_DELAY)
        })?;
        self.node.registry.own(&id, self.pod.metadata.uid.as_deref().unwrap_or_default());
        self.event(EventKind::Normal, "Created", "Container created".into());
        if let Err(status) = runtime.start_container(&id).await {
            // the name tells more than the id, and makes equal events equal
            let text = format!("Error: {}", status.message()).replace(&id, &self.spec.name);
            self.event(EventKind::Warning, "Failed", text);
            // the runtime keeps the container as ended, so that its restart delay applies
            return Err(failure("RunContainerError", status.message().to_string(), SignedDuration::ZERO));
        }
        self.event(EventKind::Normal, "Started", "Container started".into());
        Ok(id)
    }
}

/// Runs a lifecycle hook in or against a container.
async fn run_hook(
    node: &Node,
    spec: &Container,
    id: &str,
    ip: Option<&String>,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        check::exec(node, id, action.command.clone().unwrap_or_default(), Duration::ZERO).await.map(drop)
    } else if let Some(action) = &hook.http_get {
        let ip = ip.map(String::as_str).unwrap_or("127.0.0.1");
        let mut action = action.clone();
        let reply = check::http(spec, ip, &action, "kube-lifecycle/1.36").await;
        // an HTTPS hook against a plain HTTP server falls back, as it did before hooks knew HTTPS
        match reply {
            Err(cause) if action.scheme.as_deref() == Some("HTTPS") && cause.contains("corrupt message") => {
                action.scheme = Some("HTTP".into());
                check::http(spec, ip, &action, "kube-lifecycle/1.36").await.map(drop)
            }
            other => other.map(drop),
        }
    } else if let Some(action) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
        Ok(())
    } else {
        Err("invalid handler: no handler is set".into())
    }
}

/// Brings a pod's control group to its new limits.
///
/// # Errors
/// What the kernel reports, or that the pod uses more memory than it is to have.
pub fn resize_pod(node: &Node, pod: &Pod, old: &CgroupLimits, new: &CgroupLimits) -> Result<(), String> {
    let group = sandbox::cgroup_parent(node, pod);
    let shrinks = new.memory_bytes.filter(|limit| old.memory_bytes.is_none_or(|old| *limit < old));
    if let Some(limit) = shrinks {
        fits(&group, "pod", limit)?;
    }
    set_limits(&group, new)
}

/// Gives a pod's control group limits that hold its containers both before and after a resize.
///
/// # Errors
/// What the kernel reports.
pub fn widen(node: &Node, pod: &Pod, limits: &CgroupLimits) -> Result<(), String> {
    set_limits(&sandbox::cgroup_parent(node, pod), limits)
}

fn set_limits(group: &str, limits: &CgroupLimits) -> Result<(), String> {
    cgroups::ensure(group, limits).map_err(|error| format!("cannot set the limits of {group}: {error}"))
}

/// A limit below what is in use would end the processes that use it.
fn fits(group: &str, whose: &str, limit: i64) -> Result<(), String> {
    let Some(usage) = cgroups::usage(group) else { return Err(format!("missing {whose} memory usage")) };
    let used = usage.memory_bytes;
    if used < u64::try_from(limit).unwrap_or(0) {
        return Ok(());
    }
    let why = format!("attempting to set {whose} memory limit ({limit}) below current usage ({used})");
    Err(format!("cannot decrease memory limits: {why}"))
}

/// Brings a running container to the resources in the pod, after giving the pod's control group enough for it.
///
/// # Errors
/// What the kernel or the runtime reports, or that the container uses more memory than it is to have.
pub async fn resize(
    node: &Node,
    pod: &Pod,
    spec: &Container,
    id: &str,
    shrinks_to: Option<i64>,
    pod_limits: &CgroupLimits,
) -> Result<(), String> {
    let group = sandbox::cgroup_parent(node, pod);
    if let Some(limit) = shrinks_to {
        fits(&format!("{group}/{id}"), &format!("container \"{}\"", spec.name), limit)?;
    }
    widen(node, pod, pod_limits)?;
    let mut resources = container::resources(node, pod, spec);
    for limit in [&mut resources.cpu_quota, &mut resources.memory_limit_in_bytes] {
        if *limit == 0 {
            *limit = -1;
        }
    }
    node.runtime.update_resources(id, resources).await.map_err(|status| text(&status))
}

/// What a stop needs.
pub struct Stop {
    /// The node.
    pub node: Arc<Node>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container in the pod, if the pod still has it.
    pub spec: Option<Container>,
    /// Whether it stands among the init containers.
    pub init: bool,
    /// Runtime id.
    pub id: String,
    /// Name, for the event.
    pub name: String,
    /// Why.
    pub reason: KillReason,
    /// Seconds until SIGKILL.
    pub grace: i64,
    /// The pod's address.
    pub ip: Option<String>,
    /// Whether it runs, so that its preStop hook can.
    pub running: bool,
    /// Containers that have to end before this one is told to.
    pub after: Vec<String>,
    /// The pod's living containers.
    pub living: watch::Receiver<BTreeSet<String>>,
}

impl Stop {
    /// New connections stop coming before the container is told to end.
    async fn withdraw(&self) {
        let addresses: Vec<std::net::IpAddr> = self.ip.iter().filter_map(|ip| ip.parse().ok()).collect();
        if let Some(withdrawal) = self.node.withdrawal.get() {
            withdrawal.everywhere(&addresses).await;
        }
    }

    /// Waits for the containers that have to end first, no longer than `limit`.
    async fn wait_for_turn(&mut self, limit: Duration) {
        let after = &self.after;
        let gone = self.living.wait_for(|living| after.iter().all(|id| !living.contains(id)));
        // neither the end of the wait nor that of the worker is an error: the container has to end in any case
        let _ = tokio::time::timeout(limit, gone).await;
    }

    /// Tells the container to end by a signal of its own choice and waits for it.
    async fn tell(&mut self, signal: u32, grace: i64) {
        if let Err(status) = self.node.runtime.kill(&self.id, signal).await {
            let cause = text(&status);
            let message = format!("cannot send signal {signal} to container \"{}\": {cause}", self.name);
            self.node.event(&self.pod, None, EventKind::Warning, "FailedKillPod", message);
        }
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let gone = self.living.wait_for(|living| !living.contains(&self.id));
        // the end of the wait is no error: the container is killed then
        let _ = tokio::time::timeout(limit, gone).await;
    }

    /// Withdrawal from the service rules, preStop hook and the turn of this container within the grace period, then SIGTERM, then SIGKILL.
    pub async fn run(mut self) {
        let message = self.reason.message(&self.name, self.init);
        let at = Some((self.name.as_str(), self.init));
        self.node.event(&self.pod, at, EventKind::Normal, "Killing", message);
        if matches!(self.reason, KillReason::PodEnds) && self.running && self.grace > 0 {
            self.withdraw().await;
        }
        let began = Instant::now();
        let whole = Duration::from_secs(u64::try_from(self.grace).unwrap_or(0));
        let hook = self.spec.as_ref().and_then(|s| Some((s, s.lifecycle.as_ref()?.pre_stop.as_ref()?)));
        if let Some((spec, hook)) = hook.filter(|_| self.running && !whole.is_zero()) {
            let run = run_hook(&self.node, spec, &self.id, self.ip.as_ref(), hook);
            match tokio::time::timeout(whole, run).await {
                Ok(Err(cause)) => {
                    tracing::info!(container = %self.name, "preStop hook failed: {cause}");
                    // the cause may hold secrets of the server that was asked
                    let text = "PreStopHook failed".to_string();
                    self.node.event(&self.pod, at, EventKind::Warning, "FailedPreStopHook", text);
                }
                Err(_) => tracing::info!(container = %self.name, "preStop hook did not end within the grace period"),
                Ok(Ok(())) => {}
            }
        }
        if !self.after.is_empty() {
            self.wait_for_turn(whole.saturating_sub(began.elapsed())).await;
        }
        let used = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
        let mut grace = (self.grace - used).max(GRACE_MIN);
        if let Some(signal) = self.spec.as_ref().and_then(podsync::stop_signal).filter(|_| self.running) {
            self.tell(signal, grace).await;
            // who did not end by it in time is not asked a second time
            grace = 0;
        }
        if let Err(status) = self.node.runtime.stop_container(&self.id, grace).await {
            let text =
                format!("error killing pod: failed to \"KillContainer\" for \"{}\": {}", self.name, text(&status));
            self.node.event(&self.pod, None, EventKind::Warning, "FailedKillPod", text);
            // bounded retry pace: the worker plans the stop again after this returns
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
