//! Why a node takes no pods, or cannot run those that it has.

use serde_json::Value;

use crate::cause::Cause;
use crate::ending;
use crate::view::{condition, condition_is, condition_line, duration, flag, is_being_deleted, list, name, since, text};

/// Age of a lease beyond which the node is not heard of any more, in seconds; nodes renew theirs every 10.
const LEASE_FRESH: i64 = 40;

/// What is known of a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeFacts<'a> {
    pub node: &'a Value,
    /// Its lease in kube-node-lease, as far as there is one.
    pub lease: Option<&'a Value>,
    /// Seconds since the epoch.
    pub now: i64,
}

/// Why a node is not ready, in a few words.
pub(crate) fn not_ready(node: &Value) -> String {
    match condition(node, "Ready") {
        None => "it has not reported yet".to_owned(),
        Some(ready) if text(ready, "/status") == "Unknown" => "nothing is heard of it".to_owned(),
        Some(ready) => crate::view::short(text(ready, "/message")),
    }
}

/// What stands in a node's way, the true cause first.
pub fn node(facts: &NodeFacts<'_>) -> Vec<Cause> {
    let node = facts.node;
    let mut causes = Vec::new();
    if is_being_deleted(node) {
        causes.extend(ending::finalizers(node, "node"));
    }
    if condition_is(node, "Ready", "True").is_none() {
        causes.push(unready(facts));
    }
    causes.extend(pressures(node));
    let first = name(node);
    if flag(node, "/spec/unschedulable") {
        causes.push(
            Cause::new("it is cordoned: it keeps its pods and takes no new ones", "uncordon it")
                .seen("spec.unschedulable is true")
                .run(format!("kubectl uncordon {first}")),
        );
    }
    causes.extend(taints(node));
    causes
}

fn unready(facts: &NodeFacts<'_>) -> Cause {
    let node = facts.node;
    let address = list(node, "/status/addresses").iter().find(|address| text(address, "/type") == "InternalIP");
    let address = address.map(|address| text(address, "/address")).unwrap_or("unknown");
    let lease = facts.lease.and_then(|lease| since(lease, "/spec/renewTime", facts.now));
    let lease_line = match lease {
        Some(age) => format!("its lease was renewed {} ago", duration(age)),
        None => "it has no lease".to_owned(),
    };
    let ready = condition(node, "Ready");
    let line = ready.map(condition_line).unwrap_or_else(|| "there is no condition Ready".to_owned());
    let silent =
        ready.is_none_or(|ready| text(ready, "/status") == "Unknown") || lease.is_none_or(|age| age > LEASE_FRESH);
    if silent {
        let for_ = lease.map(|age| format!(" for {}", duration(age))).unwrap_or_default();
        return Cause::new(
            format!("nothing is heard of it{for_}: the machine, its agent or the network between (address {address}) is down"),
            "see on that machine whether tug runs, and start it: `tug up` for local nodes, `tug agent` for joined ones",
        )
        .seen(line)
        .seen(lease_line)
        .run("tug status");
    }
    let message = ready.map(|ready| text(ready, "/message")).unwrap_or_default();
    let (what, help) = if message.contains("etwork") {
        ("its pod network is not set up".to_owned(), "see the node's log for why the network could not be made")
    } else if message.contains("ontainer runtime") || message.contains("PLEG") {
        ("its container runtime does not answer".to_owned(), "see the node's log, and the one of its containerd")
    } else {
        (format!("it says itself that it is not ready: {}", crate::view::short(message)), "mend what the message names")
    };
    Cause::new(what, help).seen(line).seen(lease_line)
}

fn pressures(node: &Value) -> impl Iterator<Item = Cause> {
    let known = [
        ("MemoryPressure", "memory is short", "end what uses it, give pods memory limits, or add memory"),
        ("DiskPressure", "disk space is short", "remove files and images that are not needed, or add space"),
        ("PIDPressure", "process ids are short", "end what makes so many processes, or limit processes per pod"),
        ("NetworkUnavailable", "its network is not set up", "see the log of whoever sets up the network"),
    ];
    known.into_iter().filter_map(move |(type_, what, help)| {
        let line = condition_line(condition_is(node, type_, "True")?);
        let what = match type_ {
            "NetworkUnavailable" => what.to_owned(),
            _ => format!("{what} on it: it takes fewer pods and evicts some"),
        };
        Some(Cause::new(what, help).seen(line))
    })
}

/// Taints that people set; those of the cluster itself go with the conditions above.
fn taints(node: &Value) -> impl Iterator<Item = Cause> {
    let own = |taint: &&Value| !text(taint, "/key").starts_with("node.kubernetes.io/");
    let strong = |taint: &&Value| text(taint, "/effect") != "PreferNoSchedule";
    list(node, "/spec/taints").iter().filter(own).filter(strong).map(|taint| {
        let (key, value, effect) = (text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
        let shown = if value.is_empty() { format!("{key}:{effect}") } else { format!("{key}={value}:{effect}") };
        Cause::new(
            format!("its taint {shown} keeps out pods that do not tolerate it"),
            "remove the taint, or give such pods a toleration",
        )
        .seen(format!("taint {shown}"))
        .run(format!("kubectl taint node {} {key}:{effect}-", name(node)))
    })
}
