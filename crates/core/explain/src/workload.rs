//! Why a workload does not have the pods it is to have: denials, its worst pod, its own settings.

use serde_json::Value;

use crate::cause::Cause;
use crate::ending;
use crate::view::{
    condition_is, condition_line, duration, event, event_line, flag, is_being_deleted, list, name, namespace, number,
    pairs, short, since, text,
};

/// What is known of a Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet or Job.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadFacts<'a> {
    pub kind: &'a str,
    pub object: &'a Value,
    /// Of the object, and of the ReplicaSets that make a Deployment's pods.
    pub events: &'a [Value],
    /// A Deployment's ReplicaSet of the newest template.
    pub replica_set: Option<&'a Value>,
    pub pods: &'a [Value],
    /// What stands in the way of the worst of the pods.
    pub worst: Option<(&'a str, &'a [Cause])>,
    /// Seconds since the epoch.
    pub now: i64,
}

/// How long a controller may take until it has seen a change, in seconds.
const CONTROLLER_ANSWERS_WITHIN: i64 = 10;

impl WorkloadFacts<'_> {
    /// `deployment/web -n a`, as commands name it.
    fn target(&self) -> String {
        format!("{}/{} -n {}", self.kind.to_lowercase(), name(self.object), namespace(self.object))
    }

    fn wanted(&self) -> i64 {
        match self.kind {
            "DaemonSet" => number(self.object, "/status/desiredNumberScheduled").unwrap_or(0),
            "Job" => number(self.object, "/spec/completions").unwrap_or(1),
            _ => number(self.object, "/spec/replicas").unwrap_or(1),
        }
    }

    fn ready(&self) -> i64 {
        let path = match self.kind {
            "DaemonSet" => "/status/numberReady",
            "Job" => "/status/succeeded",
            _ => "/status/readyReplicas",
        };
        number(self.object, path).unwrap_or(0)
    }

    /// How it is, in a few words.
    pub fn state(&self) -> String {
        let word = if self.kind == "Job" { "succeeded" } else { "ready" };
        let begin = match self.kind {
            _ if is_being_deleted(self.object) => "Terminating, ",
            "Job" if condition_is(self.object, "Failed", "True").is_some() => "Failed, ",
            "Job" if condition_is(self.object, "Complete", "True").is_some() => "Complete, ",
            _ => "",
        };
        format!("{begin}{} of {} pods {word}", self.ready(), self.wanted())
    }

    fn is_done(&self) -> bool {
        let updated = match self.kind {
            "Deployment" | "StatefulSet" => number(self.object, "/status/updatedReplicas").unwrap_or(0),
            "DaemonSet" => number(self.object, "/status/updatedNumberScheduled").unwrap_or(0),
            _ => self.wanted(),
        };
        let partial = self.object.pointer("/spec/updateStrategy/rollingUpdate/partition").is_some()
            || text(self.object, "/spec/updateStrategy/type") == "OnDelete";
        self.ready() >= self.wanted() && (updated >= self.wanted() || partial)
    }
}

/// What stands in a workload's way, the true cause first.
pub fn workload(facts: &WorkloadFacts<'_>) -> Vec<Cause> {
    if is_being_deleted(facts.object) {
        return ending::finalizers(facts.object, &facts.kind.to_lowercase()).into_iter().collect();
    }
    if facts.kind == "Job" && condition_is(facts.object, "Complete", "True").is_some() {
        return Vec::new();
    }
    let mut causes: Vec<Cause> = settings(facts).into_iter().collect();
    if facts.is_done() && facts.kind != "Job" {
        return if facts.wanted() == 0 { causes } else { Vec::new() };
    }
    let of_pod: Vec<Cause> = facts
        .worst
        .map(|(pod, causes)| causes.iter().map(|cause| cause.clone().of(&format!("pod {pod}"))).collect())
        .unwrap_or_default();
    let denial = denial(facts);
    // Without pods of the newest template a denial explains all; beside broken ones it comes second.
    let no_new_pods =
        facts.replica_set.map_or(facts.pods.is_empty(), |set| number(set, "/status/replicas").unwrap_or(0) == 0);
    if no_new_pods || of_pod.is_empty() {
        causes.extend(denial);
        causes.extend(of_pod);
    } else {
        causes.extend(of_pod);
        causes.extend(denial);
    }
    if facts.kind == "Job" {
        given_up(facts, &mut causes);
    }
    causes.extend(not_progressing(facts, causes.is_empty()));
    if causes.is_empty() {
        causes.extend(unseen(facts));
    }
    causes
}

/// Settings by which the workload itself holds back its pods.
fn settings(facts: &WorkloadFacts<'_>) -> Option<Cause> {
    let object = facts.object;
    if flag(object, "/spec/suspend") {
        let patch = r#"{"spec":{"suspend":false}}"#;
        return Some(
            Cause::new("it is suspended (spec.suspend is true): it makes no pods", "resume it")
                .seen(condition_is(object, "Suspended", "True").map(condition_line).unwrap_or_default())
                .run(format!("kubectl patch {} --type=merge -p '{patch}'", facts.target())),
        );
    }
    if facts.kind == "Deployment" && flag(object, "/spec/paused") && !facts.is_done() {
        return Some(
            Cause::new("it is paused (spec.paused is true): a change of its template is not rolled out", "resume it")
                .seen(condition_is(object, "Progressing", "Unknown").map(condition_line).unwrap_or_default())
                .run(format!("kubectl rollout resume {}", facts.target())),
        );
    }
    if facts.kind == "DaemonSet" && facts.wanted() == 0 {
        let selector = pairs(object, "/spec/template/spec/nodeSelector").join(",");
        let what = if selector.is_empty() {
            "no node takes its pods: by affinity or taints".to_owned()
        } else {
            format!("no node takes its pods: none that may has the labels {selector}")
        };
        return Some(
            Cause::new(what, "label a node, or correct nodeSelector, affinity and tolerations of its template")
                .seen("status.desiredNumberScheduled is 0")
                .run("kubectl get nodes --show-labels"),
        );
    }
    if facts.wanted() == 0 {
        let command = match facts.kind {
            "Job" => None,
            _ => Some(format!("kubectl scale {} --replicas=1", facts.target())),
        };
        let cause = Cause::new("it is to have no pods", "scale it up").seen("the number of wanted pods is 0");
        return Some(Cause { command, ..cause });
    }
    None
}

/// Pods that the API server did not let be made.
fn denial(facts: &WorkloadFacts<'_>) -> Option<Cause> {
    let of = |object: &Value| condition_is(object, "ReplicaFailure", "True").cloned();
    let condition = facts.replica_set.and_then(of).or_else(|| of(facts.object));
    let event = event(facts.events, "FailedCreate");
    let current = facts.kind != "Deployment" && facts.kind != "ReplicaSet" && facts.kind != "ReplicationController";
    let message = match (&condition, event) {
        (Some(condition), _) => text(condition, "/message"),
        // Kinds without such a condition tell it by events alone.
        (None, Some(event)) if current && i64::try_from(facts.pods.len()).unwrap_or(i64::MAX) < facts.wanted() => {
            text(event, "/message")
        }
        _ => return None,
    };
    let seen = condition.as_ref().map(condition_line).or_else(|| event.map(event_line));
    Some(denied(message, namespace(facts.object)).seen(seen.unwrap_or_default()))
}

/// What a refusal to create a pod says, and what helps.
pub(crate) fn denied(message: &str, space: &str) -> Cause {
    if let Some((_, rest)) = message.split_once("exceeded quota: ") {
        let quota = rest.split(',').next().unwrap_or(rest).trim();
        let amounts = rest.split_once(',').map_or(rest, |(_, amounts)| amounts);
        let what = format!("the quota {quota:?} of {space} denies more pods: {}", short(amounts));
        return Cause::new(what, "raise the quota, ask for less, or delete what is not needed")
            .run(format!("kubectl describe quota {quota} -n {space}"));
    }
    if let Some((_, rest)) = message.split_once("failed quota: ") {
        let quota = rest.split(':').next().unwrap_or(rest).trim();
        let what = format!("the quota {quota:?} of {space} wants each pod to state {}", short(rest));
        return Cause::new(what, "state these requests and limits in the template, or give the namespace a LimitRange")
            .run(format!("kubectl describe quota {quota} -n {space}"));
    }
    let with = |what: String, help: &str, command: String| Cause::new(what, help).run(command);
    // Which pod was refused does not matter: it was given a name only for the refusal.
    let said = message.split_once("is forbidden: ").map_or(message, |(_, said)| said);
    if message.contains("violates PodSecurity") {
        let rest = message.split("violates PodSecurity").nth(1).unwrap_or_default();
        let what = format!("the Pod Security Standard of {space} denies its pods: {}", short(rest));
        let help =
            "set the securityContext fields that the message names, or let the namespace enforce a weaker standard";
        return with(what, help, format!("kubectl get namespace {space} --show-labels"));
    }
    if message.contains("serviceaccount") && message.contains("not found") {
        let what = format!("its service account does not exist: {}", short(message));
        return with(
            what,
            "create it, or correct serviceAccountName",
            format!("kubectl get serviceaccounts -n {space}"),
        );
    }
    if message.contains("per Container is") || message.contains("per Pod is") {
        let what = format!("a LimitRange of {space} denies its pods: {}", short(said));
        return with(
            what,
            "ask for an amount within the range, or change it",
            format!("kubectl describe limitrange -n {space}"),
        );
    }
    let help = "change the template as the message asks, or the policy that denies it";
    if let Some((_, rest)) = message.split_once("ValidatingAdmissionPolicy '") {
        let policy = rest.split('\'').next().unwrap_or_default();
        let text = rest.split_once("denied request: ").map_or(rest, |(_, text)| text);
        let what = format!("the ValidatingAdmissionPolicy {policy} denies its pods: {}", short(text));
        return with(what, help, format!("kubectl describe validatingadmissionpolicy {policy}"));
    }
    if let Some((_, rest)) = message.split_once("admission webhook ") {
        let what = format!("the admission webhook {}", short(rest));
        let command = "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations";
        return with(what, help, command.to_owned());
    }
    if let Some((_, rest)) = message.split_once("failed calling webhook ") {
        let what = format!("an admission webhook does not answer, and its pods wait for it: {}", short(rest));
        let help = "bring up what serves the webhook, or delete its configuration";
        let command = "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations";
        return with(what, help, command.to_owned());
    }
    let what = format!("its pods are refused by the API server: {}", short(said));
    Cause::new(what, "change the template as the message asks")
}

/// A failed Job's pods tell why; the Job tells why it does not try again.
fn given_up(facts: &WorkloadFacts<'_>, causes: &mut Vec<Cause>) {
    let failed =
        condition_is(facts.object, "Failed", "True").or_else(|| condition_is(facts.object, "FailureTarget", "True"));
    let Some(failed) = failed else { return };
    let failures = number(facts.object, "/status/failed").unwrap_or(0);
    let (what, help, first) = match text(failed, "/reason") {
        "BackoffLimitExceeded" => {
            let limit = number(facts.object, "/spec/backoffLimit").unwrap_or(6);
            let pods = if failures == 1 { "pod" } else { "pods" };
            let what = format!("the Job gave up after {failures} failed {pods}: its backoffLimit is {limit}");
            (what, "mend what makes the pods fail, then create the Job again; or raise backoffLimit", false)
        }
        "DeadlineExceeded" => {
            let limit = number(facts.object, "/spec/activeDeadlineSeconds").unwrap_or(0);
            let what = format!("the Job took longer than its activeDeadlineSeconds of {limit}");
            (what, "raise activeDeadlineSeconds or make the work shorter, then create the Job again", true)
        }
        "PodFailurePolicy" => {
            let what = "a rule of its podFailurePolicy made the Job fail".to_owned();
            (what, "mend what makes the pods fail, or change the rule, then create the Job again", false)
        }
        "FailedIndexes" | "MaxFailedIndexesExceeded" => {
            let indexes = text(facts.object, "/status/failedIndexes");
            let word = if indexes.contains([',', '-']) { "indexes" } else { "index" };
            (
                format!("the Job's {word} {indexes} failed for good"),
                "mend these indexes, then create the Job again",
                false,
            )
        }
        other => (format!("the Job failed: {other}"), "mend what the condition names, then create the Job again", true),
    };
    let target = facts.target();
    let (short_target, space) = target.split_once(" -n ").unwrap_or((&target, ""));
    let command = format!("kubectl logs {short_target} -n {space} --all-pods");
    let cause = Cause::new(what, help).seen(condition_line(failed)).run(command);
    // What ended the pods is the cause, except that a deadline ends pods which had no fault.
    if first { causes.insert(0, cause) } else { causes.push(cause) }
}

fn not_progressing(facts: &WorkloadFacts<'_>, alone: bool) -> Option<Cause> {
    if facts.kind != "Deployment" {
        return None;
    }
    let stuck = condition_is(facts.object, "Progressing", "False")?;
    let deadline = number(facts.object, "/spec/progressDeadlineSeconds").unwrap_or(600);
    let what = format!("its rollout made no progress for longer than its progressDeadlineSeconds of {deadline}");
    let help = if alone { "see its pods" } else { "mend the cause above, or go back to the version before" };
    Some(Cause::new(what, help).seen(condition_line(stuck)).run(format!("kubectl rollout undo {}", facts.target())))
}

/// Nothing is known to be wrong and yet pods are missing.
fn unseen(facts: &WorkloadFacts<'_>) -> Option<Cause> {
    let age = since(facts.object, "/metadata/creationTimestamp", facts.now).unwrap_or(0);
    let behind = number(facts.object, "/metadata/generation") > number(facts.object, "/status/observedGeneration");
    if facts.kind != "Job" && behind && age > CONTROLLER_ANSWERS_WITHIN {
        let what = format!("its controller has not seen the last change, and it is {} old", duration(age));
        return Some(Cause::new(what, "see whether the control plane runs").run("tug status"));
    }
    let missing = facts.wanted() - i64::try_from(facts.pods.len()).unwrap_or(0);
    if facts.kind == "Job" {
        return None;
    }
    let what = if missing > 0 {
        format!("{missing} of its pods are still to be made")
    } else {
        let young = list(facts.object, "/status/conditions").is_empty();
        let word = if young { "start" } else { "become ready" };
        format!("its pods are about to {word}: {} of {} are", facts.ready(), facts.wanted())
    };
    Some(Cause::new(what, "wait a moment and ask again").run(format!("kubectl rollout status {}", facts.target())))
}
