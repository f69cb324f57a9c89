//! Why no node takes a pod: the scheduler's own answers, grouped, with the nearest way out of each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::cause::Cause;
use crate::container::parts;
use crate::pod::PodFacts;
use crate::view::{
    amount, changed_through, condition_is, duration, event_line, event_where, list, name, namespace, number, pairs,
    since, text,
};

/// Up to this many nodes are shown one by one.
const NODES_SHOWN_MAX: usize = 5;
/// The cluster itself sets taints of this domain.
const OWN_TAINTS: &str = "node.kubernetes.io/";
const CORDON_TAINT: &str = "node.kubernetes.io/unschedulable";
/// How long a scheduler may take before it is taken not to run, in seconds.
const SCHEDULER_ANSWERS_WITHIN: i64 = 5;

/// What one node says of the pod.
#[derive(Clone, Debug, Default)]
pub struct NodeAnswer {
    pub name: String,
    /// In the scheduler's words; empty where the pod fits.
    pub reasons: Vec<String>,
    /// What is left and what there is in all: CPU in thousandths, all else in units.
    pub free: BTreeMap<String, i64>,
    pub allocatable: BTreeMap<String, i64>,
}

/// What placement says of a pod without a node.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    pub nodes: Vec<NodeAnswer>,
    /// What the pod asks for, in the units of the nodes' amounts.
    pub requests: BTreeMap<String, i64>,
}

pub(crate) fn causes(facts: &PodFacts<'_>) -> Vec<Cause> {
    let pod = facts.pod;
    let gates: Vec<&str> = list(pod, "/spec/schedulingGates").iter().map(|gate| text(gate, "/name")).collect();
    if !gates.is_empty() {
        let word = if gates.len() == 1 { "gate" } else { "gates" };
        let what = format!("it waits for its scheduling {word} {} to be removed", gates.join(", "));
        let help = "let the controller that set the gate remove it, or remove it yourself";
        let patch = r#"[{"op":"remove","path":"/spec/schedulingGates"}]"#;
        let command = format!("kubectl patch pod {} -n {} --type=json -p '{patch}'", name(pod), namespace(pod));
        return vec![Cause::new(what, help).seen(told(facts)).run(command)];
    }
    let mut causes = claims(facts);
    // Without its claims no node takes it: that all of them say so adds nothing.
    let of_claims = |cause: &Cause| cause.cause.to_lowercase().contains("persistentvolumeclaim");
    let known = !causes.is_empty();
    causes.extend(nodes(facts).into_iter().filter(|cause| !known || !of_claims(cause)));
    causes
}

/// What the scheduler itself said last.
fn told(facts: &PodFacts<'_>) -> String {
    if let Some(event) = event_where(facts.events, "FailedScheduling", |_| true) {
        return event_line(event);
    }
    condition_is(facts.pod, "PodScheduled", "False").map(crate::view::condition_line).unwrap_or_default()
}

pub(crate) fn claims(facts: &PodFacts<'_>) -> Vec<Cause> {
    let space = namespace(facts.pod);
    let mut causes = Vec::new();
    for claim in facts.claims {
        let Some(phase) = &claim.phase else {
            let what = format!("its PersistentVolumeClaim {:?} does not exist in {space}", claim.name);
            causes.push(
                Cause::new(what, "create the claim, or correct its name in the pod's volumes")
                    .seen(told(facts))
                    .run(format!("kubectl get pvc -n {space}")),
            );
            continue;
        };
        if phase != "Bound"
            && let Some(cause) = claim.causes.first()
        {
            let of_claim = cause.clone().of(&format!("its PersistentVolumeClaim {:?} is {phase}", claim.name));
            causes.push(of_claim.seen(told(facts)));
        }
    }
    causes
}

fn nodes(facts: &PodFacts<'_>) -> Vec<Cause> {
    let Some(placement) = facts.placement else { return unseen(facts) };
    let placement = &told_once(facts, placement);
    let facts = &PodFacts { placement: Some(placement), ..*facts };
    if placement.nodes.is_empty() {
        let cause = Cause::new(
            "the cluster has no nodes",
            "add one: on the first machine, ask for a token and the command to join",
        );
        return vec![cause.seen(told(facts)).run("tug token create")];
    }
    let fitting: Vec<&NodeAnswer> = placement.nodes.iter().filter(|node| node.reasons.is_empty()).collect();
    if !fitting.is_empty() {
        return unanswered(facts, &fitting);
    }
    let reasons = ranked(facts, placement);
    let all = placement.nodes.len();
    let mut causes: Vec<Cause> = reasons.into_iter().map(|reason| of_reason(facts, placement, reason, all)).collect();
    if let Some(first) = causes.first_mut() {
        let few = if all <= NODES_SHOWN_MAX { per_node(placement) } else { Vec::new() };
        *first = std::mem::take(first).seen(told(facts)).seen_all(few);
    }
    causes
}

/// The placement with what says the same twice taken out: a cordoned node also has a taint that says so.
fn told_once(facts: &PodFacts<'_>, placement: &Placement) -> Placement {
    let mut placement = placement.clone();
    for node in &mut placement.nodes {
        let cordoned = node.reasons.iter().any(|reason| reason.contains("unschedulable"));
        let object = facts.nodes.unwrap_or_default().iter().find(|object| name(object) == node.name);
        if cordoned && object.is_some_and(|object| untolerated(facts.pod, object).next().is_none()) {
            node.reasons.retain(|reason| !reason.contains("untolerated taint"));
        }
    }
    placement
}

/// Nodes that the pod does not choose, and nodes that are kept for others, have little to do with its trouble, unless
/// all are such: what the remaining ones say comes first, and of that what most of them say.
fn ranked<'a>(facts: &PodFacts<'_>, placement: &'a Placement) -> Vec<&'a str> {
    let nearest = nearest(facts, placement);
    let mut ranked: Vec<(u8, std::cmp::Reverse<usize>, usize, &str)> = Vec::new();
    for reason in placement.nodes.iter().flat_map(|node| &node.reasons) {
        if ranked.iter().any(|(.., other)| other == reason) {
            continue;
        }
        let count = nearest.iter().filter(|node| node.reasons.contains(reason)).count();
        // Of two that as many say, the one that lies in the pod's own wishes.
        let order = [is_about_selection(reason), reason.starts_with("Insufficient"), reason.contains("taint"), true];
        let order = order.iter().position(|is| *is).unwrap_or_default();
        ranked.push((u8::from(count == 0), std::cmp::Reverse(count), order, reason));
    }
    ranked.sort();
    ranked.into_iter().map(|(.., reason)| reason).collect()
}

fn nearest<'a>(facts: &PodFacts<'_>, placement: &'a Placement) -> Vec<&'a NodeAnswer> {
    let for_others: BTreeSet<&str> = facts
        .nodes
        .unwrap_or_default()
        .iter()
        // The cluster's own taints tell of trouble.
        .filter(|node| untolerated(facts.pod, node).any(|taint| !text(taint, "/key").starts_with(OWN_TAINTS)))
        .map(name)
        .collect();
    let chosen = |node: &&NodeAnswer| !node.reasons.iter().any(|reason| is_about_selection(reason));
    let open = |node: &&NodeAnswer| !for_others.contains(node.name.as_str());
    let narrowed = |nodes: Vec<&'a NodeAnswer>, keep: &dyn Fn(&&'a NodeAnswer) -> bool| {
        let kept: Vec<&NodeAnswer> = nodes.iter().copied().filter(keep).collect();
        if kept.is_empty() { nodes } else { kept }
    };
    narrowed(narrowed(placement.nodes.iter().collect(), &chosen), &open)
}

fn is_about_selection(reason: &str) -> bool {
    reason.contains("affinity/selector") || reason.contains("[NodeAffinity]")
}

/// Taints of a node that keep the pod out; the one of a cordon is told as a cordon.
fn untolerated<'a>(pod: &Value, node: &'a Value) -> impl Iterator<Item = &'a Value> {
    let cordoned = node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true);
    list(node, "/spec/taints").iter().filter(move |taint| {
        let is_cordon = cordoned && text(taint, "/key") == CORDON_TAINT;
        !is_cordon && text(taint, "/effect") != "PreferNoSchedule" && !is_tolerated(pod, taint)
    })
}

fn is_tolerated(pod: &Value, taint: &Value) -> bool {
    list(pod, "/spec/tolerations").iter().any(|toleration| {
        let same = |path: &str| text(toleration, path) == text(taint, path);
        let exists = text(toleration, "/operator") == "Exists";
        let key = same("/key") || (exists && text(toleration, "/key").is_empty());
        key && (exists || same("/value")) && (text(toleration, "/effect").is_empty() || same("/effect"))
    })
}

/// The nodes that refuse the pod for this reason.
fn refusing<'a>(facts: &PodFacts<'a>, placement: &Placement, reason: &str) -> Vec<&'a Value> {
    let says = |node: &NodeAnswer| node.reasons.iter().any(|other| other == reason);
    let names: BTreeSet<&str> =
        placement.nodes.iter().filter(|node| says(node)).map(|node| node.name.as_str()).collect();
    facts.nodes.unwrap_or_default().iter().filter(|node| names.contains(name(node))).collect()
}

/// Who may not see the nodes is told what the scheduler said.
fn unseen(facts: &PodFacts<'_>) -> Vec<Cause> {
    let scheduled = condition_is(facts.pod, "PodScheduled", "False").map(|condition| text(condition, "/message"));
    match scheduled.filter(|message| !message.is_empty()) {
        Some(message) => {
            let what = format!("no node takes it: {}", crate::view::short(message));
            let help = "change what the scheduler names; who may see the nodes is told more";
            vec![Cause::new(what, help).seen(told(facts))]
        }
        None => Vec::new(),
    }
}

/// A node would take it, and nobody bound it there.
fn unanswered(facts: &PodFacts<'_>, fitting: &[&NodeAnswer]) -> Vec<Cause> {
    let age = since(facts.pod, "/metadata/creationTimestamp", facts.now).unwrap_or(0);
    let node = fitting.first().map(|node| node.name.as_str()).unwrap_or_default();
    let scheduler = Some(text(facts.pod, "/spec/schedulerName")).filter(|s| !s.is_empty());
    match scheduler {
        Some(other) if other != "default-scheduler" => {
            let what = format!("it waits for the scheduler {other:?}, which did not place it in {}", duration(age));
            let help = "start that scheduler, or leave schedulerName out so that the cluster's own places it";
            vec![Cause::new(what, help).seen(told(facts)).run("kubectl get pods -A")]
        }
        _ if age < SCHEDULER_ANSWERS_WITHIN => Vec::new(),
        _ => {
            let what = format!("{node} would take it, but the scheduler did not place it in {}", duration(age));
            let help = "see whether the scheduler runs: it is a part of the control plane";
            vec![Cause::new(what, help).seen(told(facts)).run("tug status")]
        }
    }
}

fn per_node(placement: &Placement) -> Vec<String> {
    let line = |node: &NodeAnswer| {
        let reasons = node.reasons.iter().map(|reason| match reason.strip_prefix("Insufficient ") {
            Some(resource) => {
                let of = |map: &BTreeMap<String, i64>| amount(resource, map.get(resource).copied().unwrap_or(0));
                format!("{reason} ({} free of {})", of(&node.free), of(&node.allocatable))
            }
            None => reason.clone(),
        });
        format!("{}: {}", node.name, reasons.collect::<Vec<_>>().join(", "))
    };
    placement.nodes.iter().map(line).collect()
}

/// How many nodes say a thing, as the beginning of a sentence.
#[derive(Clone, Copy)]
struct Share {
    count: usize,
    all: usize,
}

impl Share {
    /// With a verb behind it, in its forms for one and for several.
    fn does(self, one: &str, several: &str) -> String {
        format!("{self} {}", if self.count == 1 { one } else { several })
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.count, self.all) {
            (1, 1) => write!(f, "the only node"),
            (2, 2) => write!(f, "both nodes"),
            (count, all) if count == all => write!(f, "all {all} nodes"),
            (count, all) => write!(f, "{count} of {all} nodes"),
        }
    }
}

fn of_reason(facts: &PodFacts<'_>, placement: &Placement, reason: &str, all: usize) -> Cause {
    let says = |node: &&NodeAnswer| node.reasons.iter().any(|other| other == reason);
    let share = Share { count: placement.nodes.iter().filter(says).count(), all };
    let objects = refusing(facts, placement, reason);
    if let Some(resource) = reason.strip_prefix("Insufficient ") {
        return insufficient(facts, placement, resource, share);
    }
    if is_about_selection(reason) {
        return selector(facts, &objects, share);
    }
    if reason.contains("untolerated taint") {
        let nearest: Vec<&str> = nearest(facts, placement).iter().map(|node| node.name.as_str()).collect();
        return taints(facts.pod, &objects, &nearest, share);
    }
    if reason.contains("unschedulable") {
        let first = objects.first().map(|node| name(node)).unwrap_or_default();
        let names = some(objects.iter().map(|node| name(node)));
        let what = format!("{} no new pods: cordoned ({names})", share.does("takes", "take"));
        return Cause::new(what, "uncordon a node, or add one").run(format!("kubectl uncordon {first}"));
    }
    if reason == "Too many pods" {
        let what = share.does("holds as many pods as it may", "hold as many pods as they may");
        return Cause::new(what, "delete pods that are not needed, or add a node").run("kubectl get pods -A -o wide");
    }
    if reason.contains("free ports") {
        let ports: BTreeSet<String> = parts(facts)
            .iter()
            .flat_map(|part| list(part.spec, "/ports"))
            .filter_map(|port| number(port, "/hostPort").filter(|port| *port > 0).map(|port| port.to_string()))
            .collect();
        let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
        let what = format!("it wants host port {ports}, which other pods hold on {share}");
        return Cause::new(what, "use another hostPort, or a Service instead of one; or add a node");
    }
    relation(reason, share)
}

fn relation(reason: &str, share: Share) -> Cause {
    let (what, help) = if reason.contains("anti-affinity") {
        (
            "its anti-affinity, or that of a pod there, keeps it from",
            "weaken the anti-affinity to preferred, or add a node",
        )
    } else if reason.contains("pod affinity") {
        (
            "its pod affinity finds no pod to be with on",
            "start the pods it wants to be with, or weaken the rule to preferred",
        )
    } else if reason.contains("volume node affinity conflict") || reason.contains("no available volume zone") {
        (
            "a volume that it uses cannot be reached from",
            "make room where the volume is, or delete its claim and make it anew",
        )
    } else if reason.contains("available persistent volumes to bind") {
        (
            "its claims find no volume on",
            "create volumes there that fit its claims, or use a class whose provisioner makes them",
        )
    } else if reason.contains("enough free storage") {
        (
            "the storage that its claims ask for is not free on",
            "ask for less, remove volumes that are not needed, or add storage",
        )
    } else if reason.contains("max volume count") {
        ("as many volumes as may be are attached to", "delete pods with volumes there, or add a node")
    } else if reason.contains("ReadWriteOncePod") {
        ("another pod uses its ReadWriteOncePod claim, say", "delete that pod, or use a claim of its own")
    } else if reason.contains("missing required label") {
        ("its topologySpreadConstraints need a label that is not on", "label the nodes with the topologyKey")
    } else if reason.contains("topology spread") {
        (
            "it would break the maxSkew of its topologySpreadConstraints on",
            "raise maxSkew, use ScheduleAnyway, or add nodes",
        )
    } else {
        return Cause::new(
            format!("{} it: {reason}", share.does("refuses", "refuse")),
            "change what the reason names, in the pod or on a node",
        );
    };
    Cause::new(format!("{what} {share}"), help).seen(reason)
}

fn insufficient(facts: &PodFacts<'_>, placement: &Placement, resource: &str, share: Share) -> Cause {
    let asked = placement.requests.get(resource).copied().unwrap_or(0);
    let get = |map: &BTreeMap<String, i64>| map.get(resource).copied().unwrap_or(0);
    // Room on other nodes is of no use to it: they refuse it for another reason.
    let short_of = |node: &&NodeAnswer| node.reasons.iter().any(|r| r.strip_prefix("Insufficient ") == Some(resource));
    let candidates = || placement.nodes.iter().filter(short_of);
    let roomiest = candidates().max_by_key(|node| get(&node.free));
    let largest = candidates().max_by_key(|node| get(&node.allocatable));
    let (Some(roomiest), Some(largest)) = (roomiest, largest) else { return Cause::default() };
    let (free, whole) = (get(&roomiest.free).max(0), get(&largest.allocatable));
    let wants = format!("it asks for {resource} {}", amount(resource, asked));
    if whole == 0 {
        let what = format!("{wants}, and {} none at all", share.does("has", "have"));
        return Cause::new(what, format!("add a node that has {resource}, or take the request out"));
    }
    let what = format!(
        "{wants}, and {} it: the largest free room is {}, on {}",
        share.does("lacks", "lack"),
        amount(resource, free),
        roomiest.name
    );
    let help = if asked > whole {
        format!(
            "ask for {} or less, or add a larger node: the largest, {}, has {} in all",
            amount(resource, free),
            largest.name,
            amount(resource, whole)
        )
    } else {
        format!("ask for {} or less, delete pods that hold {resource}, or add a node", amount(resource, free))
    };
    let cause = Cause::new(what, help);
    match changed_through(facts.pod).filter(|_| matches!(resource, "cpu" | "memory") && free > 0) {
        Some(owner) => {
            let containers = list(facts.pod, "/spec/containers").len().max(1);
            let each = free / i64::try_from(containers).unwrap_or(1);
            let amount = amount(resource, each);
            cause.run(format!(
                "kubectl set resources {owner} --requests={resource}={amount} -n {}",
                namespace(facts.pod)
            ))
        }
        None => cause.run(format!("kubectl describe node {}", roomiest.name)),
    }
}

/// The pod's selector beside what nodes have.
fn selector(facts: &PodFacts<'_>, nodes: &[&Value], share: Share) -> Cause {
    let wanted = pairs(facts.pod, "/spec/nodeSelector");
    let first = nodes.first().map(|node| name(node)).unwrap_or("NODE");
    let missing = |node: &Value| {
        let labels = pairs(node, "/metadata/labels");
        wanted.iter().filter(|pair| !labels.contains(pair)).count()
    };
    let nearest = nodes.iter().min_by_key(|node| missing(node)).map(|node| name(node)).unwrap_or(first);
    if wanted.is_empty() || nodes.iter().all(|node| missing(node) == 0) {
        let affinity = facts.pod.pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
        let terms = affinity.map(Value::to_string).unwrap_or_default();
        let help = "label a node as the terms ask, or weaken the affinity to preferred";
        let what = format!("its required node affinity does not match {share}");
        return Cause::new(what, help).seen(crate::view::short(&terms)).run("kubectl get nodes --show-labels");
    }
    let lacking: Vec<&str> = nodes
        .iter()
        .find(|node| name(node) == nearest)
        .map(|node| {
            let labels = pairs(node, "/metadata/labels");
            wanted.iter().filter(|pair| !labels.contains(pair)).map(String::as_str).collect()
        })
        .unwrap_or_default();
    let mut cause = Cause::new(
        format!("its nodeSelector {} does not match {share}", wanted.join(",")),
        "give a node the label, or correct the selector",
    );
    for pair in &lacking {
        let key = pair.split('=').next().unwrap_or_default();
        let has = nodes.iter().filter_map(|node| {
            let value = node.pointer("/metadata/labels")?.get(key)?.as_str()?;
            Some(format!("{} has {key}={value}", name(node)))
        });
        cause = cause.seen_all(has.take(NODES_SHOWN_MAX));
    }
    let overwrite = if cause.evidence.is_empty() { "" } else { " --overwrite" };
    cause.run(format!("kubectl label node {nearest} {}{overwrite}", lacking.join(" ")))
}

fn taints(pod: &Value, nodes: &[&Value], nearest: &[&str], share: Share) -> Cause {
    let mut by_taint: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for node in nodes {
        for taint in untolerated(pod, node) {
            let (key, value) = (text(taint, "/key"), text(taint, "/value"));
            let full = if value.is_empty() { key.to_owned() } else { format!("{key}={value}") };
            let key = (format!("{full}:{}", text(taint, "/effect")), key.to_owned());
            by_taint.entry(key).or_default().push(name(node));
        }
    }
    let is_near = |nodes: &[&str]| nodes.iter().filter(|node| nearest.contains(node)).count();
    let most = by_taint.iter().max_by_key(|(_, nodes)| (is_near(nodes), nodes.len()));
    let Some(((taint, key), on)) = most else {
        return Cause::new(format!("{share} had a taint that it does not tolerate"), "look again: the taint is gone");
    };
    let first = on.first().copied().unwrap_or_default();
    let lines = by_taint.iter().map(|((taint, _), nodes)| format!("taint {taint} on {}", some(nodes.iter().copied())));
    let what = format!("{} it out by the taint {taint}, which it does not tolerate", share.does("keeps", "keep"));
    let (help, command) = match key.strip_prefix(OWN_TAINTS) {
        Some(trouble) => (
            format!("mend the node: the cluster itself sets this taint while a node is {}", trouble.replace('-', " ")),
            format!("tug why node {first}"),
        ),
        None => (
            "remove the taint, or give the pod a toleration for it".to_owned(),
            format!("kubectl taint node {first} {key}:{}-", taint.rsplit(':').next().unwrap_or_default()),
        ),
    };
    Cause::new(what, help).seen_all(lines).run(command)
}

/// A few names, and how many more.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown = names.get(..NODES_SHOWN_MAX.min(names.len())).unwrap_or_default().join(", ");
    match names.len().saturating_sub(NODES_SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
