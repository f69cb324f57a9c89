//! Why a PersistentVolumeClaim is not bound, does not grow or does not go.

use meta::labels::Selector;
use meta::quantity::Quantity;
use serde_json::Value;

use crate::cause::Cause;
use crate::ending;
use crate::view::{
    condition_is, condition_line, event, event_line, is_being_deleted, list, name, namespace, short, since, text, texts,
};

/// How long whoever makes volumes may take before the wait is called one, in seconds.
const PROVISIONER_ANSWERS_WITHIN: i64 = 10;
const DEFAULT_CLASS: &str = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What is known of a claim.
#[derive(Clone, Copy, Debug)]
pub struct ClaimFacts<'a> {
    pub claim: &'a Value,
    pub events: &'a [Value],
    /// All of the cluster; nothing where the caller may not see them.
    pub classes: Option<&'a [Value]>,
    pub volumes: Option<&'a [Value]>,
    /// Pods that name it in their volumes.
    pub pods: &'a [Value],
    /// Of a pod that uses it and has no node: what else stands in its way.
    pub waiting: Option<(&'a str, &'a [Cause])>,
    /// Asked about on behalf of a pod: that the pod has no node yet is not told again.
    pub for_pod: bool,
    /// Seconds since the epoch.
    pub now: i64,
}

/// Whether a pod's volumes name the claim.
pub fn uses_claim(pod: &Value, claim: &str) -> bool {
    list(pod, "/spec/volumes").iter().any(|volume| claim_of(pod, volume).as_deref() == Some(claim))
}

/// The claim behind a pod's volume: one that exists, or one that is made for the pod.
pub fn claim_of(pod: &Value, volume: &Value) -> Option<String> {
    match text(volume, "/persistentVolumeClaim/claimName") {
        "" if volume.get("ephemeral").is_some() => Some(format!("{}-{}", name(pod), text(volume, "/name"))),
        "" => None,
        name => Some(name.to_owned()),
    }
}

/// How it is, in a few words.
pub fn claim_state(claim: &Value) -> String {
    let phase = Some(text(claim, "/status/phase")).filter(|phase| !phase.is_empty()).unwrap_or("Pending");
    let phase = if is_being_deleted(claim) { "Terminating" } else { phase };
    let asked = text(claim, "/spec/resources/requests/storage");
    let class = match claim.pointer("/spec/storageClassName").and_then(Value::as_str) {
        Some("") | None => "of no class".to_owned(),
        Some(class) => format!("of class {class}"),
    };
    let volume = match text(claim, "/spec/volumeName") {
        "" => String::new(),
        volume => format!(", volume {volume}"),
    };
    format!("{phase}, {asked} {class}{volume}")
}

/// What stands in a claim's way, the true cause first.
pub fn claim(facts: &ClaimFacts<'_>) -> Vec<Cause> {
    let claim = facts.claim;
    if is_being_deleted(claim) {
        return vec![deleted(facts)];
    }
    match text(claim, "/status/phase") {
        "Bound" => growing(facts).into_iter().collect(),
        "Lost" => vec![
            Cause::new(
                format!("its volume {} is gone, and what was on it with it", text(claim, "/spec/volumeName")),
                "bring the volume's object back if the storage still exists; else delete the claim and make it again",
            )
            .seen(event(facts.events, "ClaimLost").map(event_line).unwrap_or_default())
            .seen("phase Lost"),
        ],
        _ => unbound(facts),
    }
}

fn deleted(facts: &ClaimFacts<'_>) -> Cause {
    let unfinished = |pod: &&Value| !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    let users: Vec<&str> = facts.pods.iter().filter(unfinished).map(name).collect();
    let Some(cause) = ending::finalizers(facts.claim, "pvc") else {
        return Cause::new("it was deleted and is about to go", "wait a moment and ask again");
    };
    match users.first() {
        Some(first) if texts(facts.claim, "/metadata/finalizers").iter().any(|f| f.ends_with("/pvc-protection")) => {
            Cause::new(
                format!("it was deleted and is kept until no pod uses it: {}", users.join(", ")),
                "delete these pods, or let them end",
            )
            .seen_all(cause.evidence)
            .run(format!("kubectl delete pod {first} -n {}", namespace(facts.claim)))
        }
        _ => cause,
    }
}

/// A bound claim that is to become larger and does not.
fn growing(facts: &ClaimFacts<'_>) -> Option<Cause> {
    let claim = facts.claim;
    let amount = |path: &str| text(claim, path).parse::<Quantity>().ok();
    let (asked, has) = (text(claim, "/spec/resources/requests/storage"), text(claim, "/status/capacity/storage"));
    if amount("/spec/resources/requests/storage")? <= amount("/status/capacity/storage")? {
        return None;
    }
    let what = format!("it is to grow from {has} to {asked}");
    if let Some(failed) = event(facts.events, "VolumeResizeFailed") {
        let what = format!("{what}, and that failed: {}", short(text(failed, "/message")));
        return Some(Cause::new(what, "mend what the message names, or ask for less").seen(event_line(failed)));
    }
    if let Some(pending) = condition_is(claim, "FileSystemResizePending", "True") {
        let (what, help) = match facts.pods.first() {
            None => (format!("{what}: its filesystem grows when a pod uses it"), "start the pod that uses it"),
            Some(pod) => (
                format!("{what}: the node of pod {} is to grow its filesystem", name(pod)),
                "wait a moment; if nothing happens, start the pod anew",
            ),
        };
        return Some(Cause::new(what, help).seen(condition_line(pending)));
    }
    let resizing = condition_is(claim, "Resizing", "True").map(condition_line).unwrap_or_default();
    Some(Cause::new(what, "wait; the provisioner of its storage class does it").seen(resizing))
}

fn unbound(facts: &ClaimFacts<'_>) -> Vec<Cause> {
    let claim = facts.claim;
    let wanted = text(claim, "/spec/volumeName");
    if !wanted.is_empty() {
        return named_volume(facts, wanted).into_iter().collect();
    }
    let class = claim.pointer("/spec/storageClassName").and_then(Value::as_str);
    let classes = facts.classes.unwrap_or_default();
    match class.filter(|class| !class.is_empty()) {
        None => vec![no_volume(facts, class.is_some())],
        Some(wanted) => match classes.iter().find(|class| name(class) == wanted) {
            Some(class) => of_class(facts, class),
            // A class that does not exist still ties together a claim and the volumes that name it.
            None if facts.classes.is_some() => vec![no_class(facts, wanted)],
            None => vec![told(facts).unwrap_or_else(hidden)],
        },
    }
}

/// Who asks may not see what would tell more.
fn hidden() -> Cause {
    let help = "ask somebody who may see storage classes and volumes";
    Cause::new("no volume is bound to it yet", help).seen("phase Pending")
}

fn no_class(facts: &ClaimFacts<'_>, wanted: &str) -> Cause {
    let names: Vec<&str> = facts.classes.unwrap_or_default().iter().map(name).collect();
    let known = if names.is_empty() { "there are none".to_owned() } else { format!("there are: {}", names.join(", ")) };
    let fits = facts.volumes.unwrap_or_default().iter().any(|v| text(v, "/spec/storageClassName") == wanted);
    if fits {
        return no_volume(facts, true);
    }
    Cause::new(
        format!("its storage class {wanted:?} does not exist"),
        format!("make the claim again with a class that exists ({known}), or create the class"),
    )
    .seen_all(told(facts).into_iter().flat_map(|cause| cause.evidence))
    .run("kubectl get storageclass")
}

fn of_class(facts: &ClaimFacts<'_>, class: &Value) -> Vec<Cause> {
    let (provisioner, class_name) = (text(class, "/provisioner"), name(class));
    let late = text(class, "/volumeBindingMode") == "WaitForFirstConsumer";
    let selected = !text(facts.claim, "/metadata/annotations/volume.kubernetes.io~1selected-node").is_empty();
    if late && !selected {
        return waits_for_pod(facts, class_name);
    }
    // That nobody makes volumes of this class is told as a failure to make one; what counts is what there is.
    if provisioner == NO_PROVISIONER {
        return vec![no_volume(facts, true)];
    }
    if let Some(failed) = event(facts.events, "ProvisioningFailed") {
        let message = text(failed, "/message");
        let said = message.split_once(": ").map_or(message, |(_, rest)| rest);
        let what = format!("{provisioner} could not make a volume: {}", short(said));
        let help = "mend what the message names, or make the claim again with another class or size";
        let describe = format!("kubectl describe pvc {} -n {}", name(facts.claim), namespace(facts.claim));
        return vec![Cause::new(what, help).seen(event_line(failed)).run(describe)];
    }
    let age = since(facts.claim, "/metadata/creationTimestamp", facts.now).unwrap_or(0);
    if age < PROVISIONER_ANSWERS_WITHIN {
        return Vec::new();
    }
    let what = format!("nothing was heard of {provisioner}, which makes the volumes of its storage class {class_name}");
    let help = "see whether that provisioner runs, or make the claim again with another class";
    let seen = ["ExternalProvisioning", "Provisioning"].into_iter().find_map(|reason| event(facts.events, reason));
    vec![Cause::new(what, help).seen(seen.map(event_line).unwrap_or_default()).run("kubectl get storageclass")]
}

/// Its class binds with the first pod that uses it.
fn waits_for_pod(facts: &ClaimFacts<'_>, class: &str) -> Vec<Cause> {
    let rule = format!("its storage class {class} waits for the first pod that uses it");
    let seen = event(facts.events, "WaitForFirstConsumer").or_else(|| event(facts.events, "WaitForPodScheduled"));
    let seen = seen.map(event_line).unwrap_or_default();
    let space = namespace(facts.claim);
    let Some(pod) = facts.pods.first() else {
        let what = format!("no pod uses it, and {rule}");
        return vec![Cause::new(what, "start a pod that uses it; until then nothing is wrong").seen(seen)];
    };
    if let Some(bypassing) = facts.pods.iter().find(|pod| !text(pod, "/spec/nodeName").is_empty()) {
        let what = format!(
            "pod {} names its node itself, so that no scheduler chooses where the volume is made; {rule}",
            name(bypassing)
        );
        let help = "make the pod again with a nodeSelector instead of nodeName";
        return vec![Cause::new(what, help).seen(format!("spec.nodeName {}", text(bypassing, "/spec/nodeName")))];
    }
    if facts.for_pod {
        return Vec::new();
    }
    if let Some((pod, causes)) = facts.waiting
        && !causes.is_empty()
    {
        return causes.iter().map(|cause| cause.clone().of(&format!("pod {pod}"))).collect();
    }
    let what = format!("{rule}, and pod {} has no node yet", name(pod));
    vec![Cause::new(what, "see why that pod waits").seen(seen).run(format!("tug why pod {} -n {space}", name(pod)))]
}

/// The claim names its volume.
fn named_volume(facts: &ClaimFacts<'_>, wanted: &str) -> Option<Cause> {
    let volumes = facts.volumes?;
    let Some(volume) = volumes.iter().find(|volume| name(volume) == wanted) else {
        let what = format!("the volume {wanted:?} that it names does not exist");
        return Some(Cause::new(what, "create it, or make the claim again without volumeName").run("kubectl get pv"));
    };
    let against = mismatches(facts.claim, volume);
    let what = match against.first() {
        None => return told(facts),
        Some(_) => format!("the volume {wanted} that it names does not fit: {}", against.join("; ")),
    };
    Some(Cause::new(what, "make the claim again so that it fits, or name another volume").run(describe_volume(wanted)))
}

fn describe_volume(volume: &str) -> String {
    format!("kubectl describe pv {volume}")
}

/// Nobody makes a volume for it, and none that exists fits. `named` tells whether it names a class at all.
fn no_volume(facts: &ClaimFacts<'_>, named: bool) -> Cause {
    let seen = told(facts).into_iter().flat_map(|cause| cause.evidence);
    let asked = text(facts.claim, "/spec/resources/requests/storage");
    let default = facts.classes.unwrap_or_default().iter().find(|class| text(class, DEFAULT_CLASS) == "true");
    let help = match (named, default) {
        (false, None) if facts.classes.is_some() => {
            "make the claim again with a storage class, mark one as the default, or create a volume that fits"
        }
        _ => "create a volume that fits, or make the claim again with a class whose provisioner makes them",
    };
    let why = match (named, default) {
        (false, None) if facts.classes.is_some() => "it names no storage class, and none is the default",
        _ => "its class makes no volumes by itself",
    };
    let candidates = facts.volumes.unwrap_or_default().iter().map(|volume| (mismatches(facts.claim, volume), volume));
    let cause = match candidates.min_by_key(|(against, _)| against.len()) {
        None => Cause::new(format!("there is no volume for its {asked}: {why}"), help),
        Some((against, volume)) if against.is_empty() => {
            let what = format!("the volume {} would fit and is not bound to it yet", name(volume));
            Cause::new(what, "wait a moment; then see whether the control plane runs").run("tug status")
        }
        Some((against, volume)) => {
            let what = format!(
                "no volume fits, and {why}; the nearest, {}, does not because {}",
                name(volume),
                against.join("; ")
            );
            Cause::new(what, help).run(describe_volume(name(volume)))
        }
    };
    let cause = cause.seen_all(seen);
    if cause.command.is_some() { cause } else { cause.run("kubectl get storageclass,pv") }
}

/// The newest of what the controllers say.
fn told(facts: &ClaimFacts<'_>) -> Option<Cause> {
    let reasons = ["ProvisioningFailed", "FailedBinding", "VolumeMismatch", "WaitForFirstConsumer"];
    let seen = reasons.into_iter().find_map(|reason| event(facts.events, reason))?;
    let what = format!("it is not bound: {}", short(text(seen, "/message")));
    Some(Cause::new(what, "mend what the message names").seen(event_line(seen)))
}

/// All that keeps a claim and a volume apart.
fn mismatches(claim: &Value, volume: &Value) -> Vec<String> {
    let mut against = Vec::new();
    let holder = (text(volume, "/spec/claimRef/namespace"), text(volume, "/spec/claimRef/name"));
    let is_mine = holder == (namespace(claim), name(claim));
    if is_being_deleted(volume) {
        against.push("it is being deleted".to_owned());
    } else if text(volume, "/status/phase") == "Released" {
        against.push(format!("it still holds the data of {}/{} (Released)", holder.0, holder.1));
    } else if !holder.1.is_empty() && !is_mine {
        against.push(format!("it belongs to {}/{}", holder.0, holder.1));
    }
    let class = |object: &Value| text(object, "/spec/storageClassName").to_owned();
    let (wanted, has) = (class(claim), class(volume));
    if wanted != has {
        let shown = |class: &str| if class.is_empty() { "none".to_owned() } else { class.to_owned() };
        against.push(format!("its class is {}, not {}", shown(&has), shown(&wanted)));
    }
    let (asked, capacity) = (text(claim, "/spec/resources/requests/storage"), text(volume, "/spec/capacity/storage"));
    if let (Ok(least), Ok(most)) = (asked.parse::<Quantity>(), capacity.parse::<Quantity>())
        && most < least
    {
        against.push(format!("it has {capacity} of the {asked} that are asked for"));
    }
    let modes = texts(volume, "/spec/accessModes");
    let missing: Vec<String> =
        texts(claim, "/spec/accessModes").into_iter().filter(|mode| !modes.contains(mode)).collect();
    if !missing.is_empty() {
        against.push(format!("it is {}, not {}", modes.join(", "), missing.join(", ")));
    }
    let mode = |object: &Value| match text(object, "/spec/volumeMode") {
        "" => "Filesystem".to_owned(),
        mode => mode.to_owned(),
    };
    if mode(claim) != mode(volume) {
        against.push(format!("it is of mode {}, not {}", mode(volume), mode(claim)));
    }
    if let Some(selector) = claim.pointer("/spec/selector").and_then(Selector::from_label_selector)
        && !selector.matches(&volume.pointer("/metadata/labels"))
    {
        against.push(format!("its labels are not {selector}"));
    }
    against
}
