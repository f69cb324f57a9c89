//! What objects of each resource count as, and under which names.

use std::collections::{BTreeMap, BTreeSet};

use meta::quantity::Quantity;
use serde_json::{Map, Value, json};

use super::amounts::{Amounts, add, count, read};
use super::pod::{Side, effective, has_pod_level};
use super::scope;
use crate::admission::json::{list, text};

const PODS: [&str; 11] = [
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// What every container must state where a quota limits it.
const STATED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const SERVICES: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];
const CLAIMS: [&str; 3] = ["count/persistentvolumeclaims", "persistentvolumeclaims", "requests.storage"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
const OF_DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// Devices that a request for all of a class counts as: the most that one claim can be given.
const DEVICES_MAX: i64 = 32;
/// Kinds that were counted under their bare name before `count/` existed.
const BARE_COUNTS: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
/// Never stored, or never counted.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("", "events"),
    ("events.k8s.io", "events"),
];

/// How one resource is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluator {
    Pods,
    Services,
    Claims,
    ResourceClaims,
    /// Objects as such, by these names.
    Objects(Vec<String>),
}

impl Evaluator {
    /// `None` for what no quota counts.
    pub fn of(group: &str, plural: &str) -> Option<Self> {
        if IGNORED.contains(&(group, plural)) {
            return None;
        }
        Some(match (group, plural) {
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "persistentvolumeclaims") => Self::Claims,
            ("resource.k8s.io", "resourceclaims") => Self::ResourceClaims,
            ("", plural) if BARE_COUNTS.contains(&plural) => {
                Self::Objects(vec![format!("count/{plural}"), plural.to_owned()])
            }
            ("", plural) => Self::Objects(vec![format!("count/{plural}")]),
            (group, plural) => Self::Objects(vec![format!("count/{plural}.{group}")]),
        })
    }

    /// Group and plural of the objects that a quota on `name` counts; `None` where nothing is.
    pub fn resource_of(name: &str) -> Option<(String, String)> {
        let core = |plural: &str| Some((String::new(), plural.to_owned()));
        let known = [(Self::Pods, "pods"), (Self::Services, "services"), (Self::Claims, "persistentvolumeclaims")];
        if let Some((_, plural)) = known.iter().find(|(evaluator, _)| evaluator.counts(name)) {
            return core(plural);
        }
        if Self::ResourceClaims.counts(name) {
            return Some(("resource.k8s.io".to_owned(), "resourceclaims".to_owned()));
        }
        if BARE_COUNTS.contains(&name) {
            return core(name);
        }
        let counted = name.strip_prefix("count/")?;
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        Self::of(group, plural).map(|_| (group.to_owned(), plural.to_owned()))
    }

    /// The part of an object that [`Evaluator::usage`] and [`Evaluator::in_scope`] read.
    pub fn essence(&self, object: &Value) -> Value {
        match self {
            Self::Pods => pod_essence(object),
            Self::Services => {
                json!({"spec": pick(&object["spec"], &["type", "ports", "allocateLoadBalancerNodePorts"])})
            }
            Self::Claims => json!({
                "metadata": {"annotations": pick(&object["metadata"]["annotations"], &[CLASS_ANNOTATION])},
                "spec": pick(&object["spec"], &["storageClassName", "resources", "volumeAttributesClassName"]),
                "status": pick(
                    &object["status"],
                    &["allocatedResources", "currentVolumeAttributesClassName", "modifyVolumeStatus"],
                ),
            }),
            Self::ResourceClaims => json!({"spec": pick(&object["spec"], &["devices"])}),
            Self::Objects(_) => Value::Null,
        }
    }

    /// Whether a quota on `name` counts these objects.
    pub fn counts(&self, name: &str) -> bool {
        match self {
            Self::Pods => {
                PODS.contains(&name)
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || is_extended(name)
            }
            Self::Services => SERVICES.contains(&name),
            Self::Claims => {
                let of_class = name.split_once(OF_CLASS).map(|(_, what)| what);
                CLAIMS.contains(&name) || matches!(of_class, Some("persistentvolumeclaims" | "requests.storage"))
            }
            Self::ResourceClaims => name == "count/resourceclaims.resource.k8s.io" || name.ends_with(OF_DEVICE_CLASS),
            Self::Objects(names) => names.iter().any(|own| own == name),
        }
    }

    /// The names of a quota's limits that count these objects.
    pub fn counted<'a>(&self, hard: &'a Amounts) -> Vec<&'a String> {
        hard.keys().filter(|name| self.counts(name)).collect()
    }

    /// Whether the amounts depend on more than that the object exists.
    pub fn reads_content(&self) -> bool {
        !matches!(self, Self::Objects(_))
    }

    /// Whether the quota with this `spec` counts this object, as far as scopes go.
    pub fn in_scope(&self, spec: &Value, object: &Value) -> bool {
        match self {
            Self::Pods => scope::holds_for_pod(spec, object),
            Self::Claims => scope::holds_for_claim(spec, object),
            _ => scope::has_none(spec),
        }
    }

    /// Whether a write of this kind is checked; `old` is none on create.
    pub fn handles(&self, subresource: &str, new: &Value, old: Option<&Value>) -> bool {
        match (self, subresource, old) {
            (Self::Pods, "", Some(old)) => scope::is_terminating(old) != scope::is_terminating(new),
            (Self::Pods, "resize", Some(_)) => true,
            (Self::Claims, "status", Some(old)) => {
                let names = |claim: &Value| {
                    let status = &claim["status"];
                    let names = [&status["currentVolumeAttributesClassName"], &status["allocatedResources"]];
                    (names.map(Clone::clone), status["modifyVolumeStatus"]["targetVolumeAttributesClassName"].clone())
                };
                names(old) != names(new)
            }
            (Self::Services | Self::Claims | Self::ResourceClaims, "", _) => true,
            (_, "", None) => true,
            _ => false,
        }
    }

    /// What the object counts as at `now` (seconds since the epoch).
    pub fn usage(&self, object: &Value, now: i64) -> Amounts {
        match self {
            Self::Pods => pod_usage(object, now),
            Self::Services => service_usage(object),
            Self::Claims => claim_usage(object),
            Self::ResourceClaims => device_usage(object),
            Self::Objects(names) => names.iter().map(|name| (name.clone(), count(1))).collect(),
        }
    }

    /// What the containers of a pod leave out though a quota limits it: `must specify ...`.
    pub fn missing(&self, limited: &[&String], object: &Value) -> Option<String> {
        if *self != Self::Pods || has_pod_level(object) {
            return None;
        }
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let spec = &object["spec"];
        for container in list(spec, "containers").iter().chain(list(spec, "initContainers")) {
            let resources = &container["resources"];
            let stated = named(&read(&resources["requests"]), &read(&resources["limits"]));
            for name in limited.iter().filter(|name| STATED.contains(&name.as_str())) {
                if !stated.contains_key(*name) {
                    missing.entry(name.as_str()).or_default().insert(text(container, "name"));
                }
            }
        }
        let each = missing.into_iter().map(|(name, containers)| {
            let containers: Vec<&str> = containers.into_iter().collect();
            format!("{name} for: {}", containers.join(","))
        });
        let each: Vec<String> = each.collect();
        (!each.is_empty()).then(|| format!("must specify {}", each.join("; ")))
    }
}

/// `requests.example.com/gpu`: a resource that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let device = name.starts_with("requests.deviceclass.resource.kubernetes.io/");
    name.starts_with("requests.") && (device || name.contains('/') && !name.contains("kubernetes.io/"))
}

/// Amounts of a pod or container under the names that quotas use.
fn named(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::from([("pods".to_owned(), count(1))]);
    for name in COMPUTE {
        if let Some(request) = requests.get(name) {
            usage.insert(name.to_owned(), *request);
            usage.insert(format!("requests.{name}"), *request);
        }
        if let Some(limit) = limits.get(name) {
            usage.insert(format!("limits.{name}"), *limit);
        }
    }
    for (name, request) in requests {
        if name.starts_with("hugepages-") {
            usage.insert(name.clone(), *request);
            usage.insert(format!("requests.{name}"), *request);
        } else if is_extended(&format!("requests.{name}")) {
            usage.insert(format!("requests.{name}"), *request);
        }
    }
    usage
}

fn pick(object: &Value, keys: &[&str]) -> Value {
    let found = keys.iter().filter(|key| !object[**key].is_null());
    Value::Object(found.map(|key| ((*key).to_owned(), object[*key].clone())).collect::<Map<_, _>>())
}

fn pod_essence(pod: &Value) -> Value {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let each = |object: &Value, key: &str, fields: &[&str]| {
        Value::Array(list(object, key).iter().map(|one| pick(one, fields)).collect())
    };
    let mut small = pick(spec, &["resources", "overhead", "priorityClassName", "activeDeadlineSeconds", "affinity"]);
    for key in ["containers", "initContainers"] {
        small[key] = each(spec, key, &["name", "resources", "restartPolicy"]);
    }
    let mut state = pick(status, &["phase", "qosClass"]);
    for key in ["containerStatuses", "initContainerStatuses"] {
        state[key] = each(status, key, &["name", "resources", "allocatedResources"]);
    }
    let resize = list(status, "conditions").iter().filter(|condition| condition["type"] == "PodResizePending");
    state["conditions"] = resize.map(|condition| pick(condition, &["type", "reason"])).collect();
    let metadata = pick(&pod["metadata"], &["deletionTimestamp", "deletionGracePeriodSeconds"]);
    json!({"metadata": metadata, "spec": small, "status": state})
}

/// When a pod that is being deleted stops counting even if nobody confirms its end (seconds since the epoch).
pub fn counts_until(pod: &Value) -> Option<i64> {
    let metadata = &pod["metadata"];
    let deleted = meta::time::parse_seconds(text(metadata, "deletionTimestamp"))?;
    Some(deleted.saturating_add(metadata["deletionGracePeriodSeconds"].as_i64()?))
}

fn pod_usage(pod: &Value, now: i64) -> Amounts {
    let mut usage = Amounts::from([("count/pods".to_owned(), count(1))]);
    if takes_resources(pod, now) {
        add(&mut usage, &named(&effective(pod, Side::Requests), &effective(pod, Side::Limits)));
    }
    usage
}

/// A pod that ended, or should have ended long ago on a node that does not answer, holds nothing but its name.
fn takes_resources(pod: &Value, now: i64) -> bool {
    if matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed") {
        return false;
    }
    counts_until(pod).is_none_or(|end| now <= end)
}

fn service_usage(service: &Value) -> Amounts {
    let spec = &service["spec"];
    let ports = list(spec, "ports");
    let (mut node_ports, mut balancers) = (0, 0);
    match text(spec, "type") {
        "NodePort" => node_ports = ports.len(),
        "LoadBalancer" => {
            let held = || ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count();
            node_ports = if spec["allocateLoadBalancerNodePorts"] == false { held() } else { ports.len() };
            balancers = 1;
        }
        _ => {}
    }
    let amounts = [1, 1, node_ports, balancers];
    SERVICES.iter().zip(amounts).map(|(name, amount)| ((*name).to_owned(), count(amount))).collect()
}

fn claim_usage(claim: &Value) -> Amounts {
    let class = match claim["metadata"]["annotations"][CLASS_ANNOTATION].as_str() {
        Some(class) => class,
        None => text(&claim["spec"], "storageClassName"),
    };
    let mut usage = Amounts::from([(CLAIMS[0].to_owned(), count(1)), (CLAIMS[1].to_owned(), count(1))]);
    let storage = |list: &Value| Quantity::from_value(&list["storage"]).ok();
    let wanted = storage(&claim["spec"]["resources"]["requests"]);
    let held = storage(&claim["status"]["allocatedResources"]);
    let storage = wanted.map(|wanted| held.map_or(wanted, |held| held.max(wanted)));
    if let Some(storage) = storage {
        usage.insert(CLAIMS[2].to_owned(), storage);
    }
    if !class.is_empty() {
        usage.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), count(1));
        if let Some(storage) = storage {
            usage.insert(format!("{class}{OF_CLASS}requests.storage"), storage);
        }
    }
    usage
}

fn device_usage(claim: &Value) -> Amounts {
    let mut usage = Amounts::from([("count/resourceclaims.resource.k8s.io".to_owned(), count(1))]);
    let of = |request: &Value| {
        let number = match text(request, "allocationMode") {
            "ExactCount" => request["count"].as_i64().unwrap_or(0),
            "All" => DEVICES_MAX,
            _ => 0,
        };
        let name = format!("{}{OF_DEVICE_CLASS}", text(request, "deviceClassName"));
        Amounts::from([(name, count(usize::try_from(number).unwrap_or(0)))])
    };
    for request in list(&claim["spec"]["devices"], "requests") {
        let alternatives = list(request, "firstAvailable");
        if !alternatives.is_empty() {
            let mut most = Amounts::new();
            alternatives.iter().for_each(|one| super::amounts::raise(&mut most, &of(one)));
            add(&mut usage, &most);
        } else if request["exactly"].is_object() {
            add(&mut usage, &of(&request["exactly"]));
        }
    }
    usage
}
