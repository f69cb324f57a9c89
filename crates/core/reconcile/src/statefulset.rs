//! StatefulSet: pods that keep their names and claims, made, updated and ended in the order of their ordinals.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, PodTemplateSpec};
use serde_json::{Value, json};

use crate::ownership::{Owner, reference, selector_of};
use crate::plan::{CONTROLLER_REVISIONS, Note, Op, PERSISTENT_VOLUME_CLAIMS, PODS, Plan, STATEFUL_SETS, Step};
use crate::plan::{PatchKind, to_value};
use crate::pod::PodView;
use crate::pod_template::pod_of;
use crate::revisions::{self, HASH_LABEL, REVISION_LABEL, Record, Revision};
pub use crate::statefulset_claims::ClaimView;
use crate::statefulset_claims::{Holder, claim_name, claim_of, deletes_on_scale, owners_due};
pub use crate::statefulset_status::status;

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in the name of a pod of this set; `None` for any other name.
pub(crate) fn ordinal_of(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn owner_of(set: &StatefulSet) -> Owner {
    let selector = set.spec.as_ref().and_then(|spec| selector_of(&spec.selector));
    Owner::new(STATEFUL_SETS, &set.metadata, selector)
}

/// The revisions that count: the set's own and orphans it may adopt, sorted, as far as its selector matches them.
pub(crate) fn revisions_of(set: &StatefulSet, revisions: &[Revision]) -> (Vec<Revision>, Vec<Op>) {
    let owner = owner_of(set);
    let matches = |revision: &&Revision| {
        owner.selector.as_ref().is_some_and(|selector| selector.matches(&revision.metadata.labels.as_ref()))
    };
    let candidates: Vec<Revision> = revisions.iter().filter(matches).cloned().collect();
    let (_, adoptions) = owner.claim(CONTROLLER_REVISIONS, &candidates);
    let foreign = |revision: &Revision| {
        let owners = revision.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|known| known.controller == Some(true) && known.uid != owner.uid)
    };
    let mut known: Vec<Revision> = candidates.into_iter().filter(|revision| !foreign(revision)).collect();
    revisions::sort(&mut known);
    (known, adoptions)
}

/// Records the template as a revision and adopts what the set has lost. To be applied before [`plan`] is asked.
pub fn history(set: &StatefulSet, revisions: &[Revision]) -> Plan {
    let mut plan = Plan::default();
    // A set on its way out loses its revisions to the garbage collector: nobody makes them again.
    let Some(spec) = set.spec.as_ref().filter(|_| set.metadata.deletion_timestamp.is_none()) else { return plan };
    let (known, adoptions) = revisions_of(set, revisions);
    plan.steps.extend(adoptions.into_iter().map(Step::from));
    let owner = owner_of(set);
    let collisions = Some(set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0));
    let record =
        Record { owner: &owner, meta: &set.metadata, template: &spec.template, collisions, hash_label: HASH_LABEL };
    record.plan(&known, &mut plan);
    plan
}

/// The collision count to write when the name of a new revision is taken; `None`: just look again.
pub fn on_name_taken(set: &StatefulSet, live: &k8s_openapi::api::apps::v1::ControllerRevision) -> Option<Value> {
    let template = &set.spec.as_ref()?.template;
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let count = revisions::on_name_taken(live, &owner_of(set), template, collisions)?;
    Some(json!({ "collisionCount": count }))
}

/// A set with its revisions resolved and its pods in their places.
pub(crate) struct Scene<'a> {
    pub set: &'a StatefulSet,
    pub spec: &'a StatefulSetSpec,
    pub owner: Owner,
    /// Sorted.
    pub revisions: Vec<Revision>,
    /// The revision of the template as it is, and the one that the update started from.
    pub update: Revision,
    pub current: Revision,
    /// The set's pods.
    pub pods: Vec<Arc<PodView>>,
    /// Adoptions and releases due.
    claims_of_pods: Vec<Op>,
    pub now: Timestamp,
}

impl<'a> Scene<'a> {
    /// `None` until the template's revision is recorded.
    pub fn new(
        set: &'a StatefulSet,
        revisions: &[Revision],
        pods: &[Arc<PodView>],
        now: Timestamp,
    ) -> Option<Scene<'a>> {
        let spec = set.spec.as_ref()?;
        let owner = owner_of(set);
        let (revisions, _) = revisions_of(set, revisions);
        let update = revisions::find(&revisions, &spec.template)?;
        let started = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current = revisions.iter().find(|revision| Some(revisions::name(revision)) == started);
        let current = current.unwrap_or(&update).clone();
        let member = |pod: &Arc<PodView>| ordinal_of(&owner.name, &pod.name).is_some();
        let (members, others): (Vec<_>, Vec<_>) = pods.iter().cloned().partition(member);
        let (pods, mut claims_of_pods) = owner.claim(PODS, &members);
        // A pod of another name is none of the set's, whatever its labels say.
        claims_of_pods.extend(Owner { selector: None, ..owner.clone() }.claim(PODS, &others).1);
        Some(Self { set, spec, owner, revisions, update, current, pods, claims_of_pods, now })
    }

    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1).max(0)
    }

    fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
    }

    pub fn min_ready(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    pub fn is_rolling(&self) -> bool {
        self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    fn rolling(&self) -> Option<&RollingUpdateStatefulSetStrategy> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()
    }

    fn partition(&self) -> i32 {
        self.rolling().and_then(|rolling| rolling.partition).unwrap_or(0)
    }

    /// One pod after the other, each waiting for those before it.
    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn about(&self) -> ObjectReference {
        reference(STATEFUL_SETS, &self.set.metadata)
    }

    fn is_available(&self, pod: &PodView) -> bool {
        pod.deletion.is_none() && pod.is_available(self.min_ready(), self.now)
    }

    /// The revision that a pod made now would have: those below the partition (or, without one, those that were there
    /// when the update began) come back as they were.
    fn revision_for(&self, ordinal: i32) -> &Revision {
        let kept = match self.rolling() {
            _ if !self.is_rolling() => 0,
            Some(_) => self.partition(),
            None => self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0),
        };
        if ordinal < self.start().saturating_add(kept) { &self.current } else { &self.update }
    }

    fn templates(&self) -> &[PersistentVolumeClaim] {
        self.spec.volume_claim_templates.as_deref().unwrap_or_default()
    }

    /// The event of a write about a pod: `SuccessfulCreate` and `FailedCreate`, and so on for each verb.
    fn told(&self, step: impl Into<Step>, verb: &'static str, pod: &str) -> Step {
        let (done, failed) = match verb {
            "Create" => ("SuccessfulCreate", "FailedCreate"),
            "Delete" => ("SuccessfulDelete", "FailedDelete"),
            _ => ("SuccessfulUpdate", "FailedUpdate"),
        };
        let (set, about) = (&self.owner.name, self.about());
        step.into()
            .on_success(Note::normal(&about, done, format!("{verb} Pod {pod} in StatefulSet {set} successful")))
            .on_failure(Note::warning(
                &about,
                failed,
                format!("{verb} Pod {pod} in StatefulSet {set} failed error: {{error}}"),
            ))
    }

    fn delete(&self, pod: &PodView) -> Step {
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        let op = Op::Delete { resource: PODS, namespace, name, uid: Some(pod.uid.clone()), grace: None };
        self.told(op, "Delete", &pod.name)
    }

    fn pod(&self, ordinal: i32, revision: &Revision, template: &PodTemplateSpec) -> Value {
        let name = format!("{}-{ordinal}", self.owner.name);
        let mut pod = pod_of(template, &self.owner);
        let meta = &mut pod["metadata"];
        meta["name"] = name.clone().into();
        meta["labels"][POD_NAME_LABEL] = name.clone().into();
        meta["labels"][POD_INDEX_LABEL] = ordinal.to_string().into();
        meta["labels"][REVISION_LABEL] = revisions::name(revision).into();
        let spec = &mut pod["spec"];
        spec["hostname"] = name.into();
        spec["subdomain"] = self.spec.service_name.as_deref().unwrap_or_default().into();
        if !self.templates().is_empty() {
            let mut volumes = self.volumes(ordinal);
            let claimed = |volume: &Value| volumes.iter().any(|claim| claim["name"] == volume["name"]);
            let own = spec["volumes"].as_array().into_iter().flatten();
            let own: Vec<Value> = own.filter(|volume| !claimed(volume)).cloned().collect();
            volumes.extend(own);
            spec["volumes"] = volumes.into();
        }
        pod
    }

    fn volumes(&self, ordinal: i32) -> Vec<Value> {
        let volume = |template: &PersistentVolumeClaim| {
            let name = template.metadata.name.as_deref().unwrap_or_default();
            let claim = claim_name(template, &self.owner.name, ordinal);
            json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } })
        };
        self.templates().iter().map(volume).collect()
    }
}

/// What to make, delete, repair and update now. Empty until [`history`] is applied.
pub fn plan(
    set: &StatefulSet,
    revisions: &[Revision],
    pods: &[Arc<PodView>],
    claims: &[Arc<ClaimView>],
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Some(scene) = Scene::new(set, revisions, pods, now) else { return plan };
    plan.steps.extend(scene.claims_of_pods.iter().cloned().map(Step::from));
    // An adoption changes what is owned: look again when the cache shows it.
    if !plan.is_empty() || set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    Work { places: Places::new(&scene), scene: &scene, claims, plan: &mut plan }.run();
    plan
}

/// Which pod stands at which ordinal.
struct Places {
    first: i32,
    replicas: Vec<Option<Arc<PodView>>>,
    /// Pods outside the range, highest ordinal first.
    condemned: Vec<(i32, Arc<PodView>)>,
}

impl Places {
    fn new(scene: &Scene<'_>) -> Self {
        let (first, size) = (scene.start(), usize::try_from(scene.replicas()).unwrap_or(0));
        let (mut replicas, mut condemned) = (vec![None; size], Vec::new());
        for pod in &scene.pods {
            let Some(ordinal) = ordinal_of(&scene.owner.name, &pod.name) else { continue };
            let index = ordinal.checked_sub(first).and_then(|index| usize::try_from(index).ok());
            match index.and_then(|index| replicas.get_mut(index)) {
                Some(place) => *place = Some(pod.clone()),
                None => condemned.push((ordinal, pod.clone())),
            }
        }
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        Self { first, replicas, condemned }
    }

    fn ordinal(&self, index: usize) -> i32 {
        self.first.saturating_add(i32::try_from(index).unwrap_or(i32::MAX))
    }
}

struct Work<'a, 'p> {
    scene: &'a Scene<'a>,
    places: Places,
    claims: &'a [Arc<ClaimView>],
    plan: &'p mut Plan,
}

impl Work<'_, '_> {
    fn run(&mut self) {
        for index in 0..self.places.replicas.len() {
            if self.keep(index) && self.scene.is_ordered() {
                return;
            }
        }
        for index in 0..self.places.condemned.len() {
            let (ordinal, pod) = self.places.condemned[index].clone();
            self.own_claims(ordinal, &pod.name, &pod.uid);
        }
        if self.end_condemned() && self.scene.is_ordered() || !self.scene.is_rolling() {
            return;
        }
        match self.scene.rolling().and_then(|rolling| rolling.max_unavailable.as_ref()) {
            None => self.update_next(),
            Some(bound) => {
                let total = i64::from(self.scene.replicas());
                let bound = meta::intstr::scaled(&to_value(bound), total, false).unwrap_or(1).max(1);
                self.update_some(usize::try_from(bound).unwrap_or(1));
            }
        }
    }

    /// Does what one replica needs; true when, in order, nothing after it may happen yet.
    fn keep(&mut self, index: usize) -> bool {
        let (scene, ordinal) = (self.scene, self.places.ordinal(index));
        let Some(pod) = self.places.replicas[index].clone() else {
            self.create(ordinal);
            return true;
        };
        if pod.is_finished() {
            // It is made again when it is gone.
            if pod.deletion.is_none() {
                self.act(scene.delete(&pod));
            }
            return true;
        }
        if pod.phase == "Pending" && pod.deletion.is_none() {
            self.make_claims(ordinal, &pod.name);
        }
        self.own_claims(ordinal, &pod.name, &pod.uid);
        if scene.is_ordered() && !(pod.phase == "Running" && scene.is_available(&pod)) {
            return true;
        }
        if pod.deletion.is_none() {
            self.repair(ordinal, &pod);
        }
        false
    }

    /// Ordered work goes step by step, the rest at once.
    fn act(&mut self, step: Step) {
        if self.scene.is_ordered() { self.plan.steps.push(step) } else { self.plan.batch.push(step) }
    }

    fn create(&mut self, ordinal: i32) {
        let scene = self.scene;
        let name = format!("{}-{ordinal}", scene.owner.name);
        let revision = scene.revision_for(ordinal);
        // What a stranger wrote into a revision is no template: nothing can be made of it.
        let Some(template) = revisions::template_of(revision) else { return };
        let holder = Holder::pod(&name, "");
        let policy = scene.spec.persistent_volume_claim_retention_policy.as_ref();
        let stale = |claim: &ClaimView| deletes_on_scale(policy) && holder.is_stale(claim);
        if self.claims_at(ordinal).any(|(_, claim)| claim.is_some_and(stale)) {
            // It goes with the pod that owned it; its removal brings us back.
            return;
        }
        if let Some(claim) = self.make_claims(ordinal, &name) {
            let set = &scene.owner.name;
            let why = format!("Create Pod {name} in StatefulSet {set} failed error: pvc {claim} is being deleted");
            self.plan.notes.push(Note::warning(&scene.about(), "FailedCreate", why));
            return;
        }
        let object = scene.pod(ordinal, revision, &template);
        let namespace = scene.owner.namespace.clone();
        self.act(scene.told(Op::Create { resource: PODS, namespace, object }, "Create", &name));
    }

    fn claims_at(&self, ordinal: i32) -> impl Iterator<Item = (&PersistentVolumeClaim, Option<&ClaimView>)> {
        let (set, known) = (&self.scene.owner.name, self.claims);
        self.scene.templates().iter().map(move |template| {
            let name = claim_name(template, set, ordinal);
            (template, known.iter().find(|claim| claim.name == name).map(Arc::as_ref))
        })
    }

    /// Makes missing claims. Names one that is on its way out: a new pod has to wait for that.
    fn make_claims(&mut self, ordinal: i32, pod: &str) -> Option<String> {
        let scene = self.scene;
        let (set, about) = (&scene.owner.name, scene.about());
        let (mut steps, mut leaving) = (Vec::new(), None);
        for (template, known) in self.claims_at(ordinal) {
            let name = claim_name(template, set, ordinal);
            match known {
                Some(claim) if claim.deleting => leaving = Some(name),
                Some(_) => {}
                None => {
                    let selected = scene.spec.selector.match_labels.as_ref();
                    let namespace = scene.owner.namespace.clone();
                    let object = claim_of(template, set, &namespace, ordinal, selected);
                    let done = format!("Create Claim {name} Pod {pod} in StatefulSet {set} success");
                    let failed =
                        format!("Create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {{error}}");
                    steps.push(
                        Step::from(Op::Create { resource: PERSISTENT_VOLUME_CLAIMS, namespace, object })
                            .on_success(Note::normal(&about, "SuccessfulCreate", done))
                            .on_failure(Note::warning(&about, "FailedCreate", failed)),
                    );
                }
            }
        }
        self.plan.steps.extend(steps);
        leaving
    }

    /// Makes set or pod the owner of the pod's claims, or neither, as the retention policy says.
    fn own_claims(&mut self, ordinal: i32, pod: &str, pod_uid: &str) {
        let scene = self.scene;
        let policy = scene.spec.persistent_volume_claim_retention_policy.as_ref();
        let (set, pod) = (Holder::set(&scene.owner.name, &scene.owner.uid), Holder::pod(pod, pod_uid));
        let index = ordinal.checked_sub(self.places.first).and_then(|index| usize::try_from(index).ok());
        let scaled_away = index.is_none_or(|index| index >= self.places.replicas.len());
        let mut steps = Vec::new();
        for claim in self.claims_at(ordinal).filter_map(|(_, claim)| claim) {
            let Some(due) = owners_due(claim, &set, &pod, scaled_away, policy) else { continue };
            let body = json!({ "metadata": { "uid": claim.uid, "ownerReferences": due.owners } });
            let mut step = Step::from(Op::update(PERSISTENT_VOLUME_CLAIMS, &scene.owner.namespace, &claim.name, body));
            if due.conflicting {
                let why = format!(
                    "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a manging controller, \
                     the retention policy is ignored for this claim",
                    claim.name
                );
                step = step.on_success(Note::warning(&scene.about(), "ConflictingController", why));
            }
            steps.push(step);
        }
        self.plan.steps.extend(steps);
    }

    /// A pod whose name label or volumes are not those of its place gets them back. Volumes cannot change: the API's
    /// refusal is what the user then reads.
    fn repair(&mut self, ordinal: i32, pod: &PodView) {
        let scene = self.scene;
        let mut body = json!({ "metadata": { "uid": pod.uid } });
        let named = pod.labels.get(POD_NAME_LABEL) == Some(&pod.name);
        if !named {
            body["metadata"]["labels"] = json!({ POD_NAME_LABEL: pod.name, POD_INDEX_LABEL: ordinal.to_string() });
        }
        let has = |template: &PersistentVolumeClaim| {
            let volume = template.metadata.name.as_deref().unwrap_or_default();
            let claim = claim_name(template, &scene.owner.name, ordinal);
            pod.claims.iter().any(|(known, name)| known == volume && *name == claim)
        };
        let stored = scene.templates().iter().all(has);
        if !stored {
            body["spec"] = json!({ "volumes": scene.volumes(ordinal) });
        }
        if named && stored {
            return;
        }
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        let kind = PatchKind::Strategic;
        let op = Op::Patch { resource: PODS, namespace, name, subresource: None, kind, body };
        self.act(scene.told(op, "Update", &pod.name));
    }

    /// Deletes pods beyond the range, in order from the highest; true when nothing else may happen yet.
    fn end_condemned(&mut self) -> bool {
        let scene = self.scene;
        // In order, every replica is available by now: the first that is not is one of these.
        let from_lowest = self.places.condemned.iter().rev();
        let first_unavailable = from_lowest.map(|(_, pod)| pod).find(|pod| !scene.is_available(pod)).cloned();
        for (_, pod) in self.places.condemned.clone() {
            let healthy = pod.phase == "Running" && scene.is_available(&pod);
            let is_first = first_unavailable.as_ref().is_some_and(|first| first.uid == pod.uid);
            // One that has finished serves nobody: waiting for it to get healthy would be for ever.
            let waits = !healthy && !is_first && !pod.is_finished();
            if scene.is_ordered() && (pod.deletion.is_some() || waits) {
                return true;
            }
            if pod.deletion.is_none() {
                self.act(scene.delete(&pod));
            }
            if scene.is_ordered() {
                return true;
            }
        }
        false
    }

    fn revision_at(&self, index: usize) -> &str {
        match &self.places.replicas[index] {
            Some(pod) => pod.labels.get(REVISION_LABEL).map_or("", String::as_str),
            None => revisions::name(self.scene.revision_for(self.places.ordinal(index))),
        }
    }

    /// The pod with the highest ordinal that is of an old revision, once those above it are available.
    fn update_next(&mut self) {
        let (scene, update) = (self.scene, revisions::name(&self.scene.update).to_owned());
        for index in (usize::try_from(scene.partition()).unwrap_or(0)..self.places.replicas.len()).rev() {
            let place = self.places.replicas[index].clone();
            if let Some(pod) = place.as_ref().filter(|pod| pod.deletion.is_none() && self.revision_at(index) != update)
            {
                // A finished pod is on its way out already.
                if !pod.is_finished() {
                    self.act(scene.delete(pod));
                }
                return;
            }
            if place.is_none_or(|pod| !scene.is_available(&pod)) {
                return;
            }
        }
    }

    /// As many pods of an old revision as may be unavailable at once, from the highest ordinal.
    fn update_some(&mut self, bound: usize) {
        let (scene, update) = (self.scene, revisions::name(&self.scene.update).to_owned());
        let available = |place: &&Option<Arc<PodView>>| place.as_ref().is_some_and(|pod| scene.is_available(pod));
        let missing = self.places.replicas.len() - self.places.replicas.iter().filter(available).count();
        let mut left = bound.saturating_sub(missing);
        for index in (usize::try_from(scene.partition()).unwrap_or(0)..self.places.replicas.len()).rev() {
            if left == 0 {
                return;
            }
            let place = self.places.replicas[index].clone();
            let leaves = |pod: &&Arc<PodView>| pod.deletion.is_none() && !pod.is_finished();
            if let Some(pod) = place.as_ref().filter(leaves).filter(|_| self.revision_at(index) != update) {
                self.act(scene.delete(pod));
                left -= 1;
            }
        }
    }
}
