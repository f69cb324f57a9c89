//! What keeps a deleted object from going away.

use serde_json::Value;

use crate::cause::Cause;
use crate::pod::Host;
use crate::view::{duration, list, name, namespace, number, since, text, texts};

/// Who removes a finalizer, in words.
pub fn owner(finalizer: &str) -> String {
    match finalizer {
        "foregroundDeletion" => "the garbage collector, when all that the object owns is gone".to_owned(),
        "orphan" => "the garbage collector, when what the object owns is released".to_owned(),
        "batch.kubernetes.io/job-tracking" => "the Job controller, when it has counted the pod".to_owned(),
        "kubernetes.io/pvc-protection" => "the control plane, when no pod uses the claim".to_owned(),
        "kubernetes.io/pv-protection" => "the control plane, when no claim is bound to the volume".to_owned(),
        "kubernetes" => "the namespace controller, when the namespace is empty".to_owned(),
        "service.kubernetes.io/load-balancer-cleanup" => "the controller of load balancers".to_owned(),
        _ => match finalizer.split_once('/') {
            Some((domain, _)) => format!("the controller of {domain}"),
            None => "whoever set it".to_owned(),
        },
    }
}

/// Finalizers of an object that is being deleted.
pub(crate) fn finalizers(object: &Value, resource: &str) -> Option<Cause> {
    let held = texts(object, "/metadata/finalizers");
    let first = held.first()?;
    let others = match held.len() {
        1 => String::new(),
        count => format!(" ({} more)", count - 1),
    };
    let what = format!("it was deleted and is kept by the finalizer {first}{others}, which {} removes", owner(first));
    let help = "see why that controller does not act; when it is gone for good, remove the finalizer yourself";
    let space = namespace(object);
    let space = if space.is_empty() { String::new() } else { format!(" -n {space}") };
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    let seen =
        format!("deletionTimestamp {}, finalizers {}", text(object, "/metadata/deletionTimestamp"), held.join(", "));
    let command = format!("kubectl patch {resource} {}{space} --type=merge -p '{patch}'", name(object));
    Some(Cause::new(what, help).seen(seen).run(command))
}

/// Why a deleted pod is still there.
pub(crate) fn pod(pod: &Value, host: Host<'_>, now: i64) -> Vec<Cause> {
    let on = text(pod, "/spec/nodeName");
    let overdue = since(pod, "/metadata/deletionTimestamp", now).unwrap_or(0);
    let grace = number(pod, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    let running: Vec<&str> = list(pod, "/status/containerStatuses")
        .iter()
        .filter(|status| status.pointer("/state/running").is_some())
        .map(|status| text(status, "/name"))
        .collect();
    let seen = format!("deletionTimestamp {}, grace period {grace} s", text(pod, "/metadata/deletionTimestamp"));
    let force = format!("kubectl delete pod {} -n {} --force --grace-period=0", name(pod), namespace(pod));
    let mut causes = Vec::new();
    let gone = matches!(host, Host::Gone);
    if !on.is_empty() && (gone || host.not_ready().is_some()) && !running.is_empty() {
        let state = if gone { "does not exist any more" } else { "is not ready" };
        causes.push(
            Cause::new(
                format!("it was deleted, and its node {on} {state}: nobody there can end its containers"),
                "bring the node back; if it is gone for good, delete the pod by force",
            )
            .seen(seen)
            .run(if gone { force } else { format!("tug why node {on}") }),
        );
    } else if !running.is_empty() && overdue < 0 {
        let hooks =
            list(pod, "/spec/containers").iter().any(|container| container.pointer("/lifecycle/preStop").is_some());
        let whom = if hooks { "its preStop hook and its containers have" } else { "its containers have" };
        let left = duration(-overdue);
        causes.push(
            Cause::new(
                format!(
                    "it was deleted and ends: {whom} {left} left of a grace period of {grace} s ({})",
                    running.join(", ")
                ),
                "wait; or let the program end on SIGTERM, or lower terminationGracePeriodSeconds",
            )
            .seen(seen)
            .run(format!("kubectl delete pod {} -n {} --grace-period=1", name(pod), namespace(pod))),
        );
    } else if !running.is_empty() {
        causes.push(
            Cause::new(
                format!(
                    "its grace period is over for {}, and {} on {on} {}",
                    duration(overdue),
                    running.join(", "),
                    if running.len() == 1 { "still runs" } else { "still run" }
                ),
                "see what the node says of the pod; a process in the kernel's hands cannot be killed",
            )
            .seen(seen)
            .run(format!("kubectl describe pod {} -n {}", name(pod), namespace(pod))),
        );
    }
    causes.extend(finalizers(pod, "pod"));
    causes
}
