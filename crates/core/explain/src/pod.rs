//! Why a pod does not run, is not ready, has failed or does not go.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cause::Cause;
use crate::container::{Part, missing, parts};
use crate::pending::{self, Placement};
use crate::view::{
    condition, condition_is, condition_line, duration, event, event_line, event_where, flag, is_being_deleted, list,
    name, namespace, number, short, since, text,
};
use crate::{ending, node};

/// How long a node may take until it has said something of a pod that is bound to it, in seconds.
const NODE_ANSWERS_WITHIN: i64 = 10;

/// A claim that a pod's volumes name.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    pub name: String,
    /// `Bound`, `Pending`, ...; nothing where there is no such claim.
    pub phase: Option<String>,
    pub class: String,
    /// What stands in its way, as far as it was looked into.
    pub causes: Vec<Cause>,
}

/// What is known of a pod.
#[derive(Clone, Copy, Debug)]
pub struct PodFacts<'a> {
    pub pod: &'a Value,
    /// Those about the pod.
    pub events: &'a [Value],
    /// All nodes of a pod that waits for one; else its own, as far as it exists. Nothing where the caller may not see
    /// nodes.
    pub nodes: Option<&'a [Value]>,
    /// Of a pod without a node.
    pub placement: Option<&'a Placement>,
    /// The end of each log that `wants_logs` asks for, by container.
    pub logs: &'a BTreeMap<String, String>,
    /// Names of imagePullSecrets that do not exist.
    pub missing_pull_secrets: &'a [String],
    pub claims: &'a [Claim],
    /// Seconds since the epoch.
    pub now: i64,
}

/// The node that a pod is bound to.
#[derive(Clone, Copy)]
pub(crate) enum Host<'a> {
    Known(&'a Value),
    Gone,
    /// The caller may not see it.
    Hidden,
}

impl<'a> Host<'a> {
    pub fn not_ready(self) -> Option<&'a Value> {
        match self {
            Host::Known(node) if condition_is(node, "Ready", "True").is_none() => Some(node),
            _ => None,
        }
    }
}

/// The containers whose last words matter, and whether those are of the run before the current one.
pub fn wants_logs(pod: &Value) -> Vec<(String, bool)> {
    let statuses = list(pod, "/status/initContainerStatuses").iter().chain(list(pod, "/status/containerStatuses"));
    let wanted = statuses.filter_map(|status| {
        let ended = status.pointer("/state/terminated");
        let failed = ended.is_some_and(|ended| number(ended, "/exitCode") != Some(0));
        let again = ended.is_none() && status.pointer("/lastState/terminated").is_some();
        (failed || again).then(|| (text(status, "/name").to_owned(), again))
    });
    wanted.collect()
}

/// The pod's state in a few words, as the STATUS column has it.
pub fn state(pod: &Value, now: i64) -> String {
    let age = since(pod, "/metadata/creationTimestamp", now).map(|age| format!(", {} old", duration(age)));
    let all = list(pod, "/spec/containers").len();
    let ready = list(pod, "/status/containerStatuses").iter().filter(|status| flag(status, "/ready")).count();
    let waiting = list(pod, "/status/initContainerStatuses").iter().chain(list(pod, "/status/containerStatuses"));
    let mut reasons = waiting.filter_map(|status| {
        let reason = [text(status, "/state/waiting/reason"), text(status, "/state/terminated/reason")];
        reason.into_iter().find(|reason| !matches!(*reason, "" | "PodInitializing" | "Completed"))
    });
    let phase = if is_being_deleted(pod) {
        "Terminating"
    } else if !text(pod, "/status/reason").is_empty() {
        text(pod, "/status/reason")
    } else {
        reasons.next().unwrap_or_else(|| text(pod, "/status/phase"))
    };
    format!("{phase}, {ready} of {all} containers ready{}", age.unwrap_or_default())
}

/// The pod of which a workload's trouble is best told: the one that is furthest from being ready.
pub fn worst(pods: &[Value], now: i64) -> Option<&Value> {
    let rank = |pod: &&Value| {
        let ready = condition_is(pod, "Ready", "True").is_some();
        let phase = text(pod, "/status/phase");
        let fails = parts_of(pod).any(|status| {
            let waiting = text(status, "/state/waiting/reason");
            !matches!(waiting, "" | "PodInitializing" | "ContainerCreating")
        });
        let level = match phase {
            _ if ready && !is_being_deleted(pod) => 0,
            "Succeeded" => 1,
            _ if is_being_deleted(pod) => 2,
            _ if fails => 6,
            "Failed" => 5,
            "Pending" => 4,
            _ => 3,
        };
        // Of equals the youngest: it was made from the newest template.
        (level, -since(pod, "/metadata/creationTimestamp", now).unwrap_or(0))
    };
    pods.iter().max_by_key(rank)
}

fn parts_of(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "/status/initContainerStatuses").iter().chain(list(pod, "/status/containerStatuses"))
}

/// What stands in a pod's way, the true cause first.
pub fn pod(facts: &PodFacts<'_>) -> Vec<Cause> {
    let pod = facts.pod;
    let host = match facts.nodes {
        None => Host::Hidden,
        Some(nodes) => nodes.iter().find(|n| name(n) == text(pod, "/spec/nodeName")).map_or(Host::Gone, Host::Known),
    };
    if is_being_deleted(pod) {
        return ending::pod(pod, host, facts.now);
    }
    match text(pod, "/status/phase") {
        "Succeeded" => Vec::new(),
        "Failed" => failed(facts),
        _ if text(pod, "/spec/nodeName").is_empty() => pending::causes(facts),
        _ => bound(facts, host),
    }
}

fn failed(facts: &PodFacts<'_>) -> Vec<Cause> {
    let (reason, message) = (text(facts.pod, "/status/reason"), text(facts.pod, "/status/message"));
    let seen = format!("{reason}: {}", short(message));
    let on = text(facts.pod, "/spec/nodeName");
    let disruption = condition_is(facts.pod, "DisruptionTarget", "True");
    let whole = match reason {
        "Evicted" => Some(evicted(on, message)),
        "DeadlineExceeded" => {
            let limit = number(facts.pod, "/spec/activeDeadlineSeconds").unwrap_or(0);
            let what = format!("it ran for longer than its activeDeadlineSeconds of {limit}");
            Some(Cause::new(what, "raise activeDeadlineSeconds, or make its work shorter"))
        }
        "NodeAffinity" | "NodePorts" | "UnexpectedAdmissionError" => Some(refused(on, message)),
        _ if reason.starts_with("OutOf") => Some(refused(on, message)),
        _ => disruption.map(|condition| {
            Cause::new(
                format!("it was told to go: {}", text(condition, "/reason")),
                "nothing in the pod: who made it makes another, when it was made by a controller",
            )
            .seen(condition_line(condition))
        }),
    };
    let mut causes: Vec<Cause> = whole.into_iter().map(|cause| cause.seen(seen.clone())).collect();
    if causes.is_empty() {
        causes.extend(parts(facts).iter().filter_map(Part::cause));
    }
    if causes.is_empty() && !message.is_empty() {
        causes.push(Cause::new(format!("it failed: {}", short(message)), "mend what the message names").seen(seen));
    }
    causes
}

fn evicted(on: &str, message: &str) -> Cause {
    if let Some((_, rest)) = message.split_once("low on resource: ") {
        let resource = rest.split(['.', ' ']).next().unwrap_or(rest);
        let what = format!("its node {on} evicted it: the node was short of {resource}");
        let help = format!("give it a request of {resource} that is what it uses, and see what fills the node");
        return Cause::new(what, help).run(format!("tug why node {on}"));
    }
    let what = format!("its node {on} evicted it: {}", short(message).trim_end_matches('.'));
    let help = if message.contains("EmptyDir volume") {
        "raise the sizeLimit of that emptyDir volume, or let it write less"
    } else if message.contains("ephemeral local storage") {
        "raise its limit of ephemeral-storage, or let it write less to its own files and logs"
    } else {
        "mend what the message names"
    };
    Cause::new(what, help)
}

fn refused(on: &str, message: &str) -> Cause {
    Cause::new(
        format!("the node {on} refused it: {}", short(message)),
        "leave nodeName out so that the scheduler chooses, or make room there; then create the pod again",
    )
    .run(format!("kubectl describe node {on}"))
}

fn bound(facts: &PodFacts<'_>, host: Host<'_>) -> Vec<Cause> {
    let on = text(facts.pod, "/spec/nodeName");
    if let Host::Gone = host {
        let what = format!("it is bound to the node {on}, which does not exist");
        let help = "bring the node back, or delete the pod so that another is placed";
        let command = format!("kubectl delete pod {} -n {}", name(facts.pod), namespace(facts.pod));
        return vec![Cause::new(what, help).run(command)];
    }
    let mut causes = Vec::new();
    if let Some(node) = host.not_ready() {
        let line = condition(node, "Ready").map(condition_line).unwrap_or_default();
        let what = format!("its node {on} is not ready: {}", node::not_ready(node));
        causes.push(Cause::new(what, "mend the node").seen(line).run(format!("tug why node {on}")));
    }
    causes.extend(containers(facts));
    if causes.is_empty() {
        causes.extend(setting_up(facts));
    }
    if causes.is_empty() {
        causes.extend(gates(facts));
    }
    causes
}

/// Init containers run one after the other: the first that is in the way is the cause. Others run side by side.
fn containers(facts: &PodFacts<'_>) -> Vec<Cause> {
    let all = parts(facts);
    let mut causes: Vec<(u8, Cause)> = Vec::new();
    for part in &all {
        let Some(cause) = part.cause() else { continue };
        if part.is_init && !part.is_sidecar() {
            return vec![cause];
        }
        // A container that does not run explains one beside it that is not ready, not the other way round.
        let rank = u8::from(part.status.pointer("/state/running").is_some());
        causes.push((rank, cause));
    }
    causes.sort_by_key(|(rank, _)| *rank);
    causes.into_iter().map(|(_, cause)| cause).collect()
}

/// Before the containers: volumes, the pod's network, a node that does not answer.
fn setting_up(facts: &PodFacts<'_>) -> Vec<Cause> {
    let creating = text(facts.pod, "/status/phase") != "Running"
        && parts_of(facts.pod).all(|status| status.pointer("/state/running").is_none());
    if !creating {
        return Vec::new();
    }
    let describe = format!("kubectl describe pod {} -n {}", name(facts.pod), namespace(facts.pod));
    let claims = pending::claims(facts);
    if !claims.is_empty() {
        return claims;
    }
    if let Some(event) = event(facts.events, "FailedMount").or_else(|| event(facts.events, "FailedAttachVolume")) {
        let message = text(event, "/message");
        let cause = match missing(message, namespace(facts.pod)) {
            Some((what, help, command)) => Cause::new(format!("a volume cannot be mounted: {what}"), help).run(command),
            None => {
                Cause::new(format!("a volume cannot be mounted: {}", short(message)), "mend what the message names")
                    .run(describe)
            }
        };
        return vec![cause.seen(event_line(event))];
    }
    if let Some(event) = event(facts.events, "FailedCreatePodSandBox") {
        if let Some(cause) = no_memory_for_sandbox(facts, text(event, "/message")) {
            return vec![cause.seen(event_line(event))];
        }
        let what = "the node cannot set up the pod's network and namespaces";
        let help = "see the node's log, and whether the pod's settings (sysctls, runtimeClassName) are known there";
        return vec![Cause::new(what, help).seen(event_line(event)).run(describe)];
    }
    if let Some(event) = event_where(facts.events, "Failed", |_| true) {
        let what = format!("the node cannot start it: {}", short(text(event, "/message")));
        return vec![Cause::new(what, "mend what the message names").seen(event_line(event)).run(describe)];
    }
    let age = since(facts.pod, "/metadata/creationTimestamp", facts.now).unwrap_or(0);
    if parts_of(facts.pod).next().is_none() && age > NODE_ANSWERS_WITHIN {
        let on = text(facts.pod, "/spec/nodeName");
        let what = format!("its node {on} has said nothing of it in {}", duration(age));
        return vec![Cause::new(what, "see whether the node works").run(format!("tug why node {on}"))];
    }
    if event(facts.events, "Pulling").is_some() && event(facts.events, "Pulled").is_none() {
        let what = "its image is being pulled";
        let seen = event(facts.events, "Pulling").map(event_line).unwrap_or_default();
        return vec![Cause::new(what, "wait; a smaller image, or one that is on the node, starts faster").seen(seen)];
    }
    Vec::new()
}

/// The limits of its containers are those of the pod's own cgroup, in which also its sandbox has to find room.
fn no_memory_for_sandbox(facts: &PodFacts<'_>, message: &str) -> Option<Cause> {
    if !message.contains("cannot allocate memory") && !message.contains("memory limit too low") {
        return None;
    }
    let limits = list(facts.pod, "/spec/containers").iter().filter_map(|container| {
        let limit = text(container, "/resources/limits/memory");
        Some((limit.parse::<meta::quantity::Quantity>().ok()?, limit))
    });
    let (_, limit) = limits.min()?;
    let what = format!("its memory limit of {limit} is too small even for the start");
    Some(Cause::new(what, format!("raise resources.limits.memory well above {limit}")))
}

fn gates(facts: &PodFacts<'_>) -> Vec<Cause> {
    let gates = list(facts.pod, "/spec/readinessGates").iter().map(|gate| text(gate, "/conditionType"));
    let closed = gates.filter(|gate| condition_is(facts.pod, gate, "True").is_none());
    closed
        .map(|gate| {
            let line = condition(facts.pod, gate).map(condition_line);
            Cause::new(
                format!("its readiness gate {gate} is not True"),
                "let the controller that answers for this gate set the condition",
            )
            .seen(line.unwrap_or_else(|| format!("there is no condition {gate}")))
        })
        .collect()
}
