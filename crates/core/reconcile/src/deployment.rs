//! Deployment: roll one ReplicaSet's pods over to another's, within the bounds the user set.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::labels::Selector;
use serde_json::{Value, json};

use crate::deployment_rollout as rollout;
use crate::deployment_status as progress;
use crate::ownership::{Owner, reference, selector_of};
use crate::plan::{DEPLOYMENTS, Note, Op, Plan, REPLICA_SETS, Step, to_value};
use crate::pod::PodView;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
pub const TEMPLATE_HASH: &str = "pod-template-hash";
const REVISION_HISTORY_BYTES_MAX: usize = 2000;
/// Annotations of a Deployment that say something about it alone.
const ANNOTATIONS_KEPT_BACK: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];

/// One ReplicaSet of the Deployment, with the size it has in this plan so far.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub object: Arc<ReplicaSet>,
    pub replicas: i32,
    /// Pods by its last report.
    pub running: i32,
    pub available: i32,
    /// The report is about the present size; until then pods of a former size may still be made.
    pub seen: bool,
}

impl Set {
    fn new(object: Arc<ReplicaSet>) -> Self {
        let replicas = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let running = object.status.as_ref().map_or(0, |status| status.replicas);
        let available = object.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
        let observed = object.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        let seen = observed >= object.metadata.generation.unwrap_or(0);
        // Pods beyond the size are on their way out: they must not be counted on.
        Self { available: available.min(replicas), object, replicas, running, seen }
    }

    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub fn revision(&self) -> i64 {
        self.annotation(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
    }

    /// Older first, equal times by name.
    pub fn age_key(&self) -> (Option<Timestamp>, String) {
        (self.object.metadata.creation_timestamp.as_ref().map(|time| time.0), self.name().to_owned())
    }
}

/// The Deployment with its defaults resolved.
pub(crate) struct Rollout<'a> {
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    pub replicas: i32,
    pub surge: i32,
    pub unavailable: i32,
    pub recreate: bool,
    pub now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Deployment, spec: &'a DeploymentSpec, now: Timestamp) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        let recreate = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".into());
        let bound = |value: Option<&IntOrString>, up| scaled(value.unwrap_or(&quarter), replicas, up);
        let surge = bound(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
        let mut unavailable = bound(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
        if surge == 0 && unavailable == 0 {
            // Rounding must not leave a rollout without any room to move.
            unavailable = 1;
        }
        let (surge, unavailable) = if recreate { (0, 0) } else { (surge, unavailable.min(replicas)) };
        Self { deployment, spec, replicas, surge, unavailable, recreate, now }
    }

    pub fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.deployment.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub fn max_total(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// Sets a ReplicaSet's size; true when the size changes. `annotate` also renews the size annotations alone.
    pub fn scale(&self, set: &mut Set, size: i32, annotate: bool, plan: &mut Plan) -> bool {
        let wanted = self.size_annotations();
        let stale = wanted.iter().any(|(key, value)| set.annotation(key) != Some(value));
        let resized = set.replicas != size;
        if !(resized || annotate && stale) {
            return false;
        }
        let meta = &set.object.metadata;
        let body = json!({
            "metadata": { "resourceVersion": meta.resource_version, "uid": meta.uid, "annotations": wanted },
            "spec": { "replicas": size },
        });
        let mut step = Step::from(Op::merge(REPLICA_SETS, self.namespace(), set.name(), body));
        if resized {
            let direction = if set.replicas < size { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {} to {size}", set.name(), set.replicas);
            step = step.on_success(Note::normal(&self.about(), "ScalingReplicaSet", message));
        }
        plan.push(step);
        set.replicas = size;
        resized
    }

    pub fn size_annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (DESIRED_REPLICAS.to_owned(), self.replicas.to_string()),
            (MAX_REPLICAS.to_owned(), self.max_total().to_string()),
        ])
    }

    pub fn about(&self) -> k8s_openapi::api::core::v1::ObjectReference {
        reference(DEPLOYMENTS, &self.deployment.metadata)
    }
}

fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    let scaled = meta::intstr::scaled(&to_value(value), i64::from(total), round_up).unwrap_or(0);
    i32::try_from(scaled.max(0)).unwrap_or(i32::MAX)
}

/// What to do about a Deployment, given the ReplicaSets of its namespace and the pods of those it owns.
pub fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[Arc<PodView>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &deployment.spec else { return plan };
    let rollout = Rollout::new(deployment, spec, now);
    let Some(selector) = selector_of(&spec.selector).filter(|selector| !selector.is_empty()) else {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.notes.push(Note::warning(&rollout.about(), "SelectingAll", message));
        return plan;
    };
    let (mut owned, patches) = claim(deployment, selector, sets);
    if !patches.is_empty() {
        plan.steps.extend(patches.into_iter().map(Step::from));
        return plan;
    }
    owned.sort_by_cached_key(Set::age_key);
    let current = owned.iter().position(|set| same_template(&set.object, &spec.template));
    if deployment.metadata.deletion_timestamp.is_some() {
        progress::sync(&rollout, &owned, current, false, &mut plan);
        return plan;
    }
    let paused = spec.paused.unwrap_or(false);
    if paused || is_resized(&rollout, &owned) {
        if let Some(current) = current {
            renew(&rollout, &mut owned, current, &mut plan);
        }
        if plan.is_empty() {
            rollout::resize(&rollout, &mut owned, current, &mut plan);
        }
        if paused {
            clean_up_history(&rollout, &owned, current, &mut plan);
        }
        progress::sync(&rollout, &owned, current, false, &mut plan);
        return plan;
    }
    let Some(current) = current else {
        if rollout.recreate && rollout::stop_old(&rollout, &mut owned, None, pods, &mut plan) {
            progress::sync(&rollout, &owned, None, true, &mut plan);
            return plan;
        }
        create_set(&rollout, &owned, &mut plan);
        return plan;
    };
    renew(&rollout, &mut owned, current, &mut plan);
    if plan.is_empty() {
        let moved = if rollout.recreate {
            rollout::recreate(&rollout, &mut owned, current, pods, &mut plan)
        } else {
            rollout::roll(&rollout, &mut owned, current, &mut plan)
        };
        if !moved && progress::is_complete(&rollout) {
            clean_up_history(&rollout, &owned, Some(current), &mut plan);
        }
    }
    progress::sync(&rollout, &owned, Some(current), true, &mut plan);
    plan
}

fn claim(deployment: &Deployment, selector: Selector, sets: &[Arc<ReplicaSet>]) -> (Vec<Set>, Vec<Op>) {
    let (owned, patches) = Owner::new(DEPLOYMENTS, &deployment.metadata, Some(selector)).claim(REPLICA_SETS, sets);
    (owned.into_iter().map(Set::new).collect(), patches)
}

/// The user changed `spec.replicas` since the active ReplicaSets were last sized.
fn is_resized(rollout: &Rollout<'_>, owned: &[Set]) -> bool {
    owned.iter().filter(|set| set.replicas > 0).any(|set| {
        let desired = set.annotation(DESIRED_REPLICAS).and_then(|desired| desired.parse::<i32>().ok());
        desired.is_some_and(|desired| desired != rollout.replicas)
    })
}

/// Equal but for the hash label, which only ReplicaSets have.
fn same_template(set: &ReplicaSet, wanted: &PodTemplateSpec) -> bool {
    let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return false };
    template.spec == wanted.spec && comparable(template.metadata.as_ref()) == comparable(wanted.metadata.as_ref())
}

fn comparable(meta: Option<&ObjectMeta>) -> ObjectMeta {
    let mut meta = meta.cloned().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(TEMPLATE_HASH);
    }
    meta.labels = meta.labels.filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    meta.creation_timestamp = None;
    meta
}

/// A short, safe name for a template: the same template and collision count always give the same.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash: u32 = 2_166_136_261;
    let text = to_value(template).to_string();
    for byte in text.bytes().chain(collisions.into_iter().flat_map(i32::to_le_bytes)) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    }
    // Decimal digits mapped to letters that spell no words, as pod names have always looked.
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn max_revision(owned: &[Set], except: Option<usize>) -> i64 {
    let others = owned.iter().enumerate().filter(|(index, _)| Some(*index) != except);
    others.map(|(_, set)| set.revision()).max().unwrap_or(0)
}

fn shared_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.into_iter().filter(|(key, _)| !ANNOTATIONS_KEPT_BACK.contains(&key.as_str())).collect()
}

/// The new ReplicaSet, sized as far as the bounds allow at once.
fn create_set(rollout: &Rollout<'_>, owned: &[Set], plan: &mut Plan) {
    let (deployment, spec) = (rollout.deployment, rollout.spec);
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let name = format!("{}-{hash}", rollout.name());
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.into(), hash);
    let mut annotations = shared_annotations(deployment);
    annotations.extend(rollout.size_annotations());
    let revision = (max_revision(owned, None) + 1).to_string();
    annotations.insert(REVISION.into(), revision.clone());
    let size = rollout::new_set_size(rollout, owned, 0);
    let object = json!({
        "apiVersion": REPLICA_SETS.api_version, "kind": REPLICA_SETS.kind,
        "metadata": {
            "name": name, "namespace": rollout.namespace(), "labels": labels, "annotations": annotations,
            "ownerReferences": [Owner::new(DEPLOYMENTS, &deployment.metadata, None).reference()],
        },
        "spec": {
            "replicas": size, "minReadySeconds": spec.min_ready_seconds.unwrap_or(0),
            "selector": to_value(&selector), "template": to_value(&template),
        },
    });
    let namespace = rollout.namespace().to_owned();
    let mut step = Step::from(Op::Create { resource: REPLICA_SETS, namespace, object });
    if size > 0 {
        let message = format!("Scaled up replica set {name} from 0 to {size}");
        step = step.on_success(Note::normal(&rollout.about(), "ScalingReplicaSet", message));
    }
    let failed = format!("Failed to create new replica set {name:?}: {{error}}");
    plan.push(step.on_failure(Note::warning(&rollout.about(), "ReplicaSetCreateError", failed)));
    set_revision(rollout, &revision, plan);
    progress::created(rollout, &name, plan);
}

fn set_revision(rollout: &Rollout<'_>, revision: &str, plan: &mut Plan) {
    let known = rollout.deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION));
    if known.map(String::as_str) != Some(revision) {
        let body = json!({ "metadata": { "annotations": { REVISION: revision } } });
        plan.push(Op::update(DEPLOYMENTS, rollout.namespace(), rollout.name(), body));
    }
}

/// Keeps what the current ReplicaSet copies from its Deployment up to date: annotations, minReadySeconds, and the
/// highest revision (a rollback makes an old ReplicaSet the newest again).
fn renew(rollout: &Rollout<'_>, owned: &mut [Set], current: usize, plan: &mut Plan) {
    let newest = max_revision(owned, Some(current)) + 1;
    let set = &mut owned[current];
    let known = set.object.metadata.annotations.clone().unwrap_or_default();
    let mut wanted = shared_annotations(rollout.deployment);
    let revision = if set.revision() < newest { newest } else { set.revision() };
    if revision != set.revision() && set.revision() > 0 {
        let history = known.get(REVISION_HISTORY).map(String::as_str).unwrap_or_default();
        let mut entries: Vec<String> = history.split(',').filter(|e| !e.is_empty()).map(str::to_owned).collect();
        entries.push(set.revision().to_string());
        while entries.iter().map(|entry| entry.len() + 1).sum::<usize>() > REVISION_HISTORY_BYTES_MAX {
            entries.remove(0);
        }
        wanted.insert(REVISION_HISTORY.into(), entries.join(","));
    }
    wanted.insert(REVISION.into(), revision.to_string());
    wanted.retain(|key, value| known.get(key) != Some(value));
    let min_ready = rollout.spec.min_ready_seconds.unwrap_or(0);
    let known_ready = set.object.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    if !wanted.is_empty() || min_ready != known_ready {
        let meta = &set.object.metadata;
        let mut body = json!({
            "metadata": { "resourceVersion": meta.resource_version, "uid": meta.uid, "annotations": wanted },
        });
        if min_ready != known_ready {
            body["spec"] = json!({ "minReadySeconds": min_ready });
        }
        plan.push(Op::merge(REPLICA_SETS, rollout.namespace(), set.name(), body));
    }
    set_revision(rollout, &revision.to_string(), plan);
}

/// Deletes the oldest empty ReplicaSets beyond `revisionHistoryLimit`.
fn clean_up_history(rollout: &Rollout<'_>, owned: &[Set], current: Option<usize>, plan: &mut Plan) {
    let limit = rollout.spec.revision_history_limit.unwrap_or(10);
    if limit == i32::MAX {
        return;
    }
    let mut old: Vec<&Set> = owned
        .iter()
        .enumerate()
        .filter(|(index, set)| Some(*index) != current && set.object.metadata.deletion_timestamp.is_none())
        .map(|(_, set)| set)
        .collect();
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.sort_by_key(|set| (set.revision(), set.age_key()));
    for set in old.into_iter().take(surplus) {
        let meta = &set.object.metadata;
        let running = set.object.status.as_ref().is_some_and(|status| status.replicas != 0);
        let unobserved = set.object.status.as_ref().and_then(|status| status.observed_generation) < meta.generation;
        if set.replicas != 0 || running || unobserved {
            continue;
        }
        plan.push(Op::Delete {
            resource: REPLICA_SETS,
            namespace: rollout.namespace().to_owned(),
            name: set.name().to_owned(),
            uid: meta.uid.clone(),
            grace: None,
        });
    }
}

/// The ReplicaSet name to be made is taken: by our own earlier write (then just wait for the cache), or by another
/// template with the same hash (then count the collision, so that the next hash differs).
pub fn on_name_taken(deployment: &Deployment, live: &ReplicaSet) -> Option<Value> {
    let ours = live
        .metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == deployment.metadata.uid.as_ref());
    let spec = deployment.spec.as_ref()?;
    if ours && same_template(live, &spec.template) {
        return None;
    }
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    Some(json!({ "collisionCount": collisions.saturating_add(1) }))
}
