//! DaemonSet: one pod on every node that fits, replaced when it ends, updated within the bounds the user set.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, ObjectReference, PodSpec, Toleration};
use serde_json::{Value, json};

use crate::daemonset_rollout as rollout;
use crate::node_fit::{Fit, fit};
use crate::ownership::{Owner, reference, selector_of};
use crate::plan::{CONTROLLER_REVISIONS, DAEMON_SETS, Note, Op, PODS, Plan, Step, difference, to_value};
use crate::pod::PodView;
use crate::pod_template::pod_of;
use crate::revisions::{self, REVISION_LABEL, Record, Revision};

/// The annotation of DaemonSets and the label of their pods that counted templates before revisions did.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const TEMPLATE_GENERATION_LABEL: &str = "pod-template-generation";
/// Pods created or deleted in one reconcile; the rest follows in the next (upstream: BurstReplicas).
pub const BURST_PODS_MAX: usize = 250;
/// A node whose pod failed gets the next one at once, then later each time.
const FAILED_POD_DELAY_MIN: Duration = Duration::from_secs(1);
const FAILED_POD_DELAY_MAX: Duration = Duration::from_secs(15 * 60);
/// Nodes whose failures are remembered; beyond it the oldest are forgotten, which only shortens their delay.
const FAILED_PODS_MAX: usize = 10_000;
const REVISIONS_KEPT: i32 = 10;

/// Conditions of a node that a daemon's pod puts up with.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// When pods of a DaemonSet last failed on a node, and how long the next replacement waits.
#[derive(Clone, Debug, Default)]
pub struct FailedPods(BTreeMap<(String, String), (Timestamp, Duration)>);

impl FailedPods {
    /// `None`: the pod may be replaced now, which is counted. Otherwise how long to wait.
    fn replace(&mut self, key: (String, String), now: Timestamp) -> Option<Duration> {
        let since = |last: Timestamp| Duration::try_from(now.duration_since(last)).unwrap_or_default();
        self.0.retain(|_, (last, _)| since(*last) <= FAILED_POD_DELAY_MAX * 2);
        if let Some((last, delay)) = self.0.get_mut(&key) {
            let passed = since(*last);
            if passed < *delay {
                return Some(*delay - passed);
            }
            (*last, *delay) = (now, (*delay * 2).min(FAILED_POD_DELAY_MAX));
            return None;
        }
        if self.0.len() >= FAILED_PODS_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (last, _))| *last).map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, (now, FAILED_POD_DELAY_MIN));
        None
    }
}

fn owner_of(set: &DaemonSet) -> Owner {
    let selector = set.spec.as_ref().and_then(|spec| selector_of(&spec.selector)).filter(|s| !s.is_empty());
    Owner::new(DAEMON_SETS, &set.metadata, selector)
}

/// The template's tolerations with those that every daemon has.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network = spec.host_network.unwrap_or(false).then_some(NETWORK_UNAVAILABLE);
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let (key, operator, effect) = (Some(key.into()), Some("Exists".into()), Some(effect.into()));
        let wanted = Toleration { key, operator, effect, ..Toleration::default() };
        // One with a limit of time loses the limit.
        let same = |known: &&mut Toleration| Toleration { toleration_seconds: None, ..(*known).clone() } == wanted;
        match all.iter_mut().find(same) {
            Some(known) => *known = wanted,
            None => all.push(wanted),
        }
    }
    all
}

/// The set's revisions, sorted, and the patches that adopt or release others.
fn claimed_revisions(set: &DaemonSet, revisions: &[Revision]) -> (Vec<Revision>, Vec<Op>) {
    let owner = owner_of(set);
    let (mut owned, patches) = owner.claim(CONTROLLER_REVISIONS, revisions);
    let adopted = |revision: &&Revision| {
        let free = revision.metadata.owner_references.iter().flatten().all(|owner| owner.controller != Some(true));
        free && revision.metadata.deletion_timestamp.is_none()
            && owner.selector.as_ref().is_some_and(|s| s.matches(&revision.metadata.labels.as_ref()))
    };
    owned.extend(revisions.iter().filter(adopted).cloned());
    revisions::sort(&mut owned);
    (owned, patches)
}

/// Records the template as a revision, adopts and releases revisions, and leaves one of those that say the same. To be
/// applied before [`plan`] is asked.
pub fn history(set: &DaemonSet, revisions: &[Revision], pods: &[Arc<PodView>]) -> Plan {
    let mut plan = Plan::default();
    let (Some(spec), owner) = (&set.spec, owner_of(set)) else { return plan };
    if set.metadata.deletion_timestamp.is_some() || owner.selector.is_none() {
        return plan;
    }
    let (owned, patches) = claimed_revisions(set, revisions);
    plan.steps.extend(patches.into_iter().map(Step::from));
    for revision in owned.iter().filter(|revision| revisions::label(revision, REVISION_LABEL).is_none()) {
        let name = revisions::name(revision);
        let body = json!({ "metadata": { "uid": revision.metadata.uid, "labels": { REVISION_LABEL: name } } });
        plan.push(Op::merge(CONTROLLER_REVISIONS, &owner.namespace, name, body));
    }
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let (meta, template) = (&set.metadata, &spec.template);
    Record { owner: &owner, meta, template, collisions, hash_label: REVISION_LABEL }.plan(&owned, &mut plan);
    if let Some(kept) = revisions::find(&owned, template) {
        let equal =
            |revision: &&Revision| revision.metadata.uid != kept.metadata.uid && revisions::is_of(revision, template);
        let equal: Vec<&Revision> = owned.iter().filter(equal).collect();
        if !equal.is_empty() {
            merge_revisions(&owner, &kept, &equal, pods, &mut plan);
        }
    }
    plan
}

/// The pods of equal revisions become the kept one's, then the others go.
fn merge_revisions(owner: &Owner, kept: &Revision, equal: &[&Revision], pods: &[Arc<PodView>], plan: &mut Plan) {
    let hash = revisions::label(kept, REVISION_LABEL).unwrap_or_else(|| revisions::name(kept));
    for pod in owner.claim(PODS, pods).0 {
        if pod.labels.get(REVISION_LABEL).map(String::as_str) != Some(hash) {
            let body = json!({ "metadata": { "uid": pod.uid, "labels": { REVISION_LABEL: hash } } });
            plan.push(Op::merge(PODS, &pod.namespace, &pod.name, body));
        }
    }
    for revision in equal {
        plan.push(Op::Delete {
            resource: CONTROLLER_REVISIONS,
            namespace: owner.namespace.clone(),
            name: revisions::name(revision).to_owned(),
            uid: revision.metadata.uid.clone(),
            grace: None,
        });
    }
}

/// The collision count to write when the name of a new revision is taken; `None`: just look again.
pub fn on_name_taken(set: &DaemonSet, live: &ControllerRevision) -> Option<Value> {
    let template = &set.spec.as_ref()?.template;
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let count = revisions::on_name_taken(live, &owner_of(set), template, collisions)?;
    Some(json!({ "collisionCount": count }))
}

/// A set with its template's revision, its pods by node and the nodes.
pub(crate) struct Scene<'a> {
    pub set: &'a DaemonSet,
    pub spec: &'a DaemonSetSpec,
    pub owner: Owner,
    revisions: Vec<Revision>,
    /// The label of pods made from the template as it is.
    pub hash: String,
    pub generation: Option<&'a str>,
    pub tolerations: Vec<Toleration>,
    pub nodes: BTreeMap<&'a str, &'a Node>,
    /// All pods of the set.
    pods: Vec<Arc<PodView>>,
    /// Pods by the node they are on or meant for; the assigned come first, then the oldest.
    pub on_node: BTreeMap<String, Vec<Arc<PodView>>>,
    claims_of_pods: Vec<Op>,
    pub now: Timestamp,
}

impl<'a> Scene<'a> {
    /// `None` until the template's revision is recorded.
    fn new(
        set: &'a DaemonSet,
        revisions: &[Revision],
        pods: &[Arc<PodView>],
        nodes: &'a [Arc<Node>],
        now: Timestamp,
    ) -> Option<Self> {
        let (spec, owner) = (set.spec.as_ref()?, owner_of(set));
        let (revisions, _) = claimed_revisions(set, revisions);
        let current = revisions::find(&revisions, &spec.template)?;
        let hash = revisions::label(&current, REVISION_LABEL)?.to_owned();
        let (mut pods, claims_of_pods) = owner.claim(PODS, pods);
        pods.sort_by_cached_key(|pod| (pod.node.is_empty(), pod.created, pod.name.clone()));
        let mut on_node: BTreeMap<String, Vec<Arc<PodView>>> = BTreeMap::new();
        for pod in &pods {
            let gone = pod.is_finished() && pod.deletion.is_some();
            if !gone && !pod.target_node.is_empty() {
                on_node.entry(pod.target_node.clone()).or_default().push(pod.clone());
            }
        }
        let nodes = nodes.iter().map(|node| (node.metadata.name.as_deref().unwrap_or_default(), node.as_ref()));
        let nodes = nodes.collect();
        let generation = set.metadata.annotations.as_ref().and_then(|all| all.get(TEMPLATE_GENERATION));
        let generation = generation.map(String::as_str).filter(|text| text.parse::<i64>().is_ok());
        let tolerations = spec.template.spec.as_ref().map(tolerations).unwrap_or_default();
        let scene = Self {
            set,
            spec,
            owner,
            revisions,
            hash,
            generation,
            tolerations,
            nodes,
            pods,
            on_node,
            claims_of_pods,
            now,
        };
        Some(scene)
    }

    pub fn fit(&self, node: &str) -> Fit {
        let spec = self.spec.template.spec.as_ref();
        let node = self.nodes.get(node);
        node.zip(spec).map_or(Fit::Leave, |(node, spec)| fit(spec, &self.tolerations, node))
    }

    pub fn desired(&self) -> usize {
        self.nodes.keys().filter(|node| self.fit(node) == Fit::Run).count()
    }

    pub fn is_updated(&self, pod: &PodView) -> bool {
        let label = |key: &str| pod.labels.get(key).map(String::as_str);
        label(REVISION_LABEL) == Some(&self.hash)
            || self.generation.is_some() && label(TEMPLATE_GENERATION_LABEL) == self.generation
    }

    pub fn is_available(&self, pod: &PodView) -> bool {
        pod.is_available(self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn about(&self) -> ObjectReference {
        reference(DAEMON_SETS, &self.set.metadata)
    }

    /// Deletions first: a refused creation must not keep what is broken or surplus alive.
    fn act(&self, delete: &[Arc<PodView>], create: &[String], plan: &mut Plan) {
        let about = self.about();
        plan.batch.extend(delete.iter().take(BURST_PODS_MAX).map(|pod| {
            let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), Some(pod.uid.clone()));
            let done = format!("Deleted pod: {name}");
            Step::from(Op::Delete { resource: PODS, namespace, name, uid, grace: None })
                .on_success(Note::normal(&about, "SuccessfulDelete", done))
                .on_failure(Note::warning(&about, "FailedDelete", "Error deleting: {error}"))
        }));
        plan.batch.extend(create.iter().take(BURST_PODS_MAX).map(|node| {
            let namespace = self.owner.namespace.clone();
            Step::from(Op::Create { resource: PODS, namespace, object: self.pod(node) })
                .on_success(Note::normal(&about, "SuccessfulCreate", "Created pod: {name}"))
                .on_failure(Note::warning(&about, "FailedCreate", "Error creating: {error}"))
        }));
    }

    /// The pod of one node: the scheduler binds it, and its affinity leaves no other node.
    fn pod(&self, node: &str) -> Value {
        let mut pod = pod_of(&self.spec.template, &self.owner);
        pod["metadata"]["generateName"] = format!("{}-", self.owner.name).into();
        let labels = &mut pod["metadata"]["labels"];
        labels[REVISION_LABEL] = self.hash.as_str().into();
        if let Some(generation) = self.generation {
            labels[TEMPLATE_GENERATION_LABEL] = generation.into();
        }
        pod["spec"]["tolerations"] = to_value(&self.tolerations);
        let field = json!({ "key": "metadata.name", "operator": "In", "values": [node] });
        pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({ "nodeSelectorTerms": [{ "matchFields": [field] }] });
        pod
    }
}

/// What to create and delete now. Empty until [`history`] is applied. `failed` remembers where pods failed.
pub fn plan(
    set: &DaemonSet,
    revisions: &[Revision],
    pods: &[Arc<PodView>],
    nodes: &[Arc<Node>],
    failed: &mut FailedPods,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    if owner_of(set).selector.is_none() {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        plan.notes.push(Note::warning(&reference(DAEMON_SETS, &set.metadata), "SelectingAll", message));
        return plan;
    }
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let Some(scene) = Scene::new(set, revisions, pods, nodes, now) else { return plan };
    plan.steps.extend(scene.claims_of_pods.iter().cloned().map(Step::from));
    // An adoption changes what is owned: look again when the cache shows it.
    if !plan.is_empty() {
        return plan;
    }
    let (mut delete, mut create) = (Vec::new(), Vec::new());
    for node in scene.nodes.keys() {
        keep_node(&scene, node, failed, &mut delete, &mut create, &mut plan);
    }
    // Nobody will bind a pod to a node that is gone.
    let homeless = scene.on_node.iter().filter(|(node, _)| !scene.nodes.contains_key(node.as_str()));
    let unbound = |pod: &&Arc<PodView>| pod.node.is_empty() && pod.deletion.is_none();
    delete.extend(homeless.flat_map(|(_, pods)| pods).filter(unbound).cloned());
    if delete.is_empty() && create.is_empty() && rollout::is_rolling(&scene) {
        (delete, create) = rollout::roll(&scene);
    }
    scene.act(&delete, &create, &mut plan);
    plan
}

/// One node gets its pod, loses what does not belong there, and has failed and surplus pods removed.
fn keep_node(
    scene: &Scene<'_>,
    node: &str,
    failed: &mut FailedPods,
    delete: &mut Vec<Arc<PodView>>,
    create: &mut Vec<String>,
    plan: &mut Plan,
) {
    let (fit, pods) = (scene.fit(node), scene.on_node.get(node));
    let Some(pods) = pods else {
        create.extend((fit == Fit::Run).then(|| node.to_owned()));
        return;
    };
    let present = pods.iter().filter(|pod| pod.deletion.is_none());
    if fit == Fit::Leave {
        delete.extend(present.cloned());
        return;
    }
    let mut running = Vec::new();
    for pod in present {
        let told = format!("daemon pod {}/{} on node {node}, will try to", pod.namespace, pod.name);
        match pod.phase {
            "Failed" => {
                let generation = scene.set.status.as_ref().and_then(|status| status.observed_generation);
                let key = (format!("{}/{}", scene.owner.uid, generation.unwrap_or(0)), node.to_owned());
                if let Some(wait) = failed.replace(key, scene.now) {
                    plan.requeue(wait);
                    continue;
                }
                let message = format!("Found failed {told} kill it");
                plan.notes.push(Note::warning(&scene.about(), "FailedDaemonPod", message));
                delete.push(pod.clone());
            }
            "Succeeded" => {
                let message = format!("Found succeeded {told} delete it");
                plan.notes.push(Note::normal(&scene.about(), "SucceededDaemonPod", message));
                delete.push(pod.clone());
            }
            _ => running.push(pod.clone()),
        }
    }
    if !rollout::surges(scene) {
        delete.extend(running.into_iter().skip(1));
    } else if running.is_empty() {
        create.extend((fit == Fit::Run).then(|| node.to_owned()));
    } else {
        delete.extend(rollout::surplus(scene, &running));
    }
}

/// The status patch due for what is observed now, and the revisions to forget.
pub fn status(
    set: &DaemonSet,
    revisions: &[Revision],
    pods: &[Arc<PodView>],
    nodes: &[Arc<Node>],
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    if set.metadata.deletion_timestamp.is_some() || owner_of(set).selector.is_none() {
        return plan;
    }
    let Some(scene) = Scene::new(set, revisions, pods, nodes, now) else { return plan };
    let old = set.status.clone().unwrap_or_default();
    if let Some(patch) = difference(&old, &observed(&scene, &old)) {
        plan.push(Op::update_status(DAEMON_SETS, &scene.owner.namespace, &scene.owner.name, patch));
    }
    let old: Vec<Revision> =
        scene.revisions.iter().filter(|r| !revisions::is_of(r, &scene.spec.template)).cloned().collect();
    let used: HashSet<&str> =
        scene.pods.iter().filter_map(|pod| pod.labels.get(REVISION_LABEL)).map(String::as_str).collect();
    let live = |revision: &ControllerRevision| {
        revisions::label(revision, REVISION_LABEL).is_some_and(|hash| used.contains(hash))
    };
    let limit = scene.spec.revision_history_limit.unwrap_or(REVISIONS_KEPT);
    revisions::truncate(&old, limit, live, &mut plan);
    let min_ready = scene.spec.min_ready_seconds.unwrap_or(0);
    let waiting = scene.pods.iter().filter(|pod| pod.ready && !scene.is_available(pod));
    if let Some(next) = waiting.filter_map(|pod| pod.available_at(min_ready)).min() {
        let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        plan.requeue(wait + Duration::from_millis(10));
    }
    plan
}

/// Of a node with several pods, the first counts.
fn observed(scene: &Scene<'_>, old: &DaemonSetStatus) -> DaemonSetStatus {
    let (mut desired, mut current, mut misscheduled, mut ready, mut updated, mut available) = (0, 0, 0, 0, 0, 0);
    for node in scene.nodes.keys() {
        let pod = scene.on_node.get(*node).and_then(|pods| pods.first());
        if scene.fit(node) != Fit::Run {
            misscheduled += i32::from(pod.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = pod else { continue };
        current += 1;
        ready += i32::from(pod.ready);
        available += i32::from(scene.is_available(pod));
        updated += i32::from(scene.is_updated(pod));
    }
    let non_zero = |number: i32| (number != 0).then_some(number);
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misscheduled,
        number_ready: ready,
        updated_number_scheduled: non_zero(updated),
        number_available: non_zero(available),
        number_unavailable: non_zero(desired - available),
        observed_generation: scene.set.metadata.generation.or(old.observed_generation),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
    }
}
