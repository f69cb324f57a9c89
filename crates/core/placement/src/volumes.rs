//! Claims, volumes and classes as placement sees them, and what a pod's volumes mean for a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use meta::labels::Selector;
use meta::quantity::Quantity;

use crate::plugin::Rejection;
use crate::pod::PodInfo;
use crate::snapshot::NodeSpec;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

pub const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
pub const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
pub const VOLUME_MISSING: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
pub const UNBOUND_IMMEDIATE: &str = "pod has unbound immediate PersistentVolumeClaims";

/// A volume of a pod that is a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    pub claim: String,
    /// Made for this pod.
    pub ephemeral: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ClaimInfo {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Empty: none yet.
    pub volume: String,
    /// Both sides of the binding are written, and the claim's status says so: its node asks for that.
    pub bound: bool,
    pub lost: bool,
    pub deleting: bool,
    pub class: String,
    pub selected_node: Option<String>,
    pub bytes: i64,
    pub modes: Vec<String>,
    pub block: bool,
    pub attributes_class: String,
    /// `Some(None)`: a selector that matches nothing.
    pub selector: Option<Option<Selector>>,
    pub owner: Option<String>,
}

impl ClaimInfo {
    pub fn new(claim: &PersistentVolumeClaim) -> Self {
        let (meta, spec) = (&claim.metadata, claim.spec.clone().unwrap_or_default());
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name)).cloned();
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        let selector = spec.selector.as_ref().and_then(|selector| serde_json::to_value(selector).ok());
        let owners = meta.owner_references.iter().flatten();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            bound: annotation(BIND_COMPLETED).is_some() && phase == Some("Bound"),
            lost: phase == Some("Lost"),
            deleting: meta.deletion_timestamp.is_some(),
            class: annotation(CLASS_BETA).or(spec.storage_class_name).unwrap_or_default(),
            selected_node: annotation(SELECTED_NODE),
            bytes: storage(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref())),
            modes: spec.access_modes.unwrap_or_default(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            attributes_class: spec.volume_attributes_class_name.unwrap_or_default(),
            selector: selector.map(|selector| Selector::from_label_selector(&selector)),
            owner: owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()),
            volume: spec.volume_name.unwrap_or_default(),
        }
    }

    pub fn is_for_one_pod(&self) -> bool {
        self.modes.iter().any(|mode| mode == "ReadWriteOncePod")
    }

    fn is_fully_bound(&self) -> bool {
        self.bound && !self.volume.is_empty()
    }
}

#[derive(Clone, Debug, Default)]
pub struct VolumeInfo {
    pub name: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    /// `None`: every node.
    pub affinity: Option<NodeSelector>,
    /// Namespace, name and uid of the claim that it is reserved for.
    pub claim: Option<(String, String, String)>,
    pub bytes: i64,
    pub class: String,
    pub modes: Vec<String>,
    pub block: bool,
    pub attributes_class: String,
    pub available: bool,
    pub deleting: bool,
    /// Driver and handle.
    pub csi: Option<(String, String)>,
}

impl VolumeInfo {
    pub fn new(volume: &PersistentVolume) -> Self {
        let (meta, spec) = (&volume.metadata, volume.spec.clone().unwrap_or_default());
        let annotations = meta.annotations.as_ref();
        let class = annotations.and_then(|all| all.get(CLASS_BETA)).cloned().or(spec.storage_class_name);
        let reference = spec.claim_ref.map(|claim| {
            (claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default(), claim.uid.unwrap_or_default())
        });
        Self {
            name: meta.name.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            affinity: spec.node_affinity.and_then(|affinity| affinity.required),
            claim: reference,
            bytes: storage(spec.capacity.as_ref()),
            class: class.unwrap_or_default(),
            modes: spec.access_modes.unwrap_or_default(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            attributes_class: spec.volume_attributes_class_name.unwrap_or_default(),
            available: volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available"),
            deleting: meta.deletion_timestamp.is_some(),
            csi: spec.csi.map(|csi| (csi.driver, csi.volume_handle)),
        }
    }

    /// Whether the volume can be used on the node.
    fn reaches(&self, node: &NodeSpec) -> bool {
        self.affinity.as_ref().is_none_or(|selector| nodes::selects(selector, node.traits()))
    }

    fn is_reserved_for(&self, claim: &ClaimInfo) -> bool {
        self.claim.as_ref().is_some_and(|(namespace, name, uid)| {
            *namespace == claim.namespace && *name == claim.name && (uid.is_empty() || *uid == claim.uid)
        })
    }

    /// Whether it can become the claim's volume.
    fn suits(&self, claim: &ClaimInfo) -> bool {
        let fits = self.bytes >= claim.bytes
            && self.block == claim.block
            && self.attributes_class == claim.attributes_class
            && !self.deleting;
        if self.claim.is_some() {
            return fits && self.is_reserved_for(claim);
        }
        let selected = match &claim.selector {
            None => true,
            Some(selector) => selector.as_ref().is_some_and(|selector| selector.matches(&self.labels)),
        };
        fits && selected
            && self.available
            && self.class == claim.class
            && claim.modes.iter().all(|mode| self.modes.contains(mode))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassInfo {
    pub name: String,
    pub provisioner: String,
    /// Volumes are chosen with the pod's node.
    pub waits: bool,
    pub topologies: Vec<TopologySelectorTerm>,
}

impl ClassInfo {
    pub fn new(class: &StorageClass) -> Self {
        Self {
            name: class.metadata.name.clone().unwrap_or_default(),
            provisioner: class.provisioner.clone(),
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            topologies: class.allowed_topologies.clone().unwrap_or_default(),
        }
    }

    /// Whether volumes can be made for the node.
    fn makes_for(&self, node: &NodeSpec) -> bool {
        let in_term = |term: &TopologySelectorTerm| {
            let mut all = term.match_label_expressions.iter().flatten();
            all.all(|one| node.labels.get(&one.key).is_some_and(|value| one.values.contains(value)))
        };
        let makes = !self.provisioner.is_empty() && self.provisioner != NO_PROVISIONER;
        makes && (self.topologies.is_empty() || self.topologies.iter().any(in_term))
    }
}

fn storage(resources: Option<&BTreeMap<String, Text>>) -> i64 {
    let text = resources.and_then(|all| all.get("storage"));
    text.and_then(|text| text.0.parse::<Quantity>().ok()).map_or(0, Quantity::value)
}

/// What to write before a pod can be bound to its node.
#[derive(Clone, Debug, Default)]
pub struct VolumePlan {
    /// Free volumes and the claims that get them.
    pub bind: Vec<(Arc<VolumeInfo>, Arc<ClaimInfo>)>,
    /// Claims whose volume has to be made for the node.
    pub provision: Vec<Arc<ClaimInfo>>,
}

impl VolumePlan {
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

/// Everything about storage in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    claims: BTreeMap<(String, String), Arc<ClaimInfo>>,
    volumes: BTreeMap<String, Arc<VolumeInfo>>,
    classes: BTreeMap<String, Arc<ClassInfo>>,
    /// How many volumes of a driver a node takes.
    limits: BTreeMap<String, BTreeMap<String, usize>>,
}

/// A pod's claims by what they need; an error holds for every node.
pub(crate) type Claims = Result<Sorted, String>;

/// Claims of one pod.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    pub bound: Vec<Arc<ClaimInfo>>,
    /// Their volumes are chosen with the node.
    pub delayed: Vec<Arc<ClaimInfo>>,
}

impl Volumes {
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<ClaimInfo>> {
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub fn volume(&self, name: &str) -> Option<&Arc<VolumeInfo>> {
        self.volumes.get(name)
    }

    pub fn set_claim(&mut self, namespace: &str, name: &str, claim: Option<Arc<ClaimInfo>>) {
        let key = (namespace.to_owned(), name.to_owned());
        match claim {
            Some(claim) => drop(self.claims.insert(key, claim)),
            None => drop(self.claims.remove(&key)),
        }
    }

    pub fn set_volume(&mut self, name: &str, volume: Option<Arc<VolumeInfo>>) {
        match volume {
            Some(volume) => drop(self.volumes.insert(name.to_owned(), volume)),
            None => drop(self.volumes.remove(name)),
        }
    }

    pub fn set_class(&mut self, name: &str, class: Option<Arc<ClassInfo>>) {
        match class {
            Some(class) => drop(self.classes.insert(name.to_owned(), class)),
            None => drop(self.classes.remove(name)),
        }
    }

    /// Takes the limits that a node's drivers name.
    pub fn set_limits(&mut self, node: &str, drivers: Option<&CSINode>) {
        let limits: BTreeMap<String, usize> = drivers
            .iter()
            .flat_map(|node| &node.spec.drivers)
            .filter_map(|driver| {
                let count = driver.allocatable.as_ref()?.count?;
                Some((driver.name.clone(), usize::try_from(count).ok()?))
            })
            .collect();
        if limits.is_empty() {
            self.limits.remove(node);
        } else {
            self.limits.insert(node.to_owned(), limits);
        }
    }

    pub(crate) fn limits(&self, node: &str) -> Option<&BTreeMap<String, usize>> {
        self.limits.get(node)
    }

    /// The pod's claims that exist.
    pub(crate) fn claims_of<'a>(&'a self, pod: &'a PodInfo) -> impl Iterator<Item = &'a Arc<ClaimInfo>> {
        pod.claims.iter().filter_map(|used| self.claim(&pod.namespace, &used.claim))
    }

    /// Whether one of the pod's claims tolerates no second pod.
    pub(crate) fn wants_alone(&self, pod: &PodInfo) -> bool {
        self.claims_of(pod).any(|claim| claim.is_for_one_pod())
    }

    pub(crate) fn sorted(&self, pod: &PodInfo) -> Claims {
        let mut sorted = Sorted::default();
        let mut immediate = false;
        for used in &pod.claims {
            let name = &used.claim;
            let Some(claim) = self.claim(&pod.namespace, name) else {
                return Err(match used.ephemeral {
                    true => {
                        format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
                    }
                    false => format!("persistentvolumeclaim {name:?} not found"),
                });
            };
            if claim.lost {
                let volume = &claim.volume;
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                ));
            }
            if claim.deleting {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if used.ephemeral && claim.owner.as_ref() != Some(&pod.uid) {
                let (namespace, own) = (&pod.namespace, &pod.name);
                return Err(format!(
                    "PVC {namespace}/{name} was not created for pod {namespace}/{own} (pod is not owner)"
                ));
            }
            if claim.is_fully_bound() {
                sorted.bound.push(claim.clone());
            } else if claim.volume.is_empty() && self.classes.get(&claim.class).is_some_and(|class| class.waits) {
                sorted.delayed.push(claim.clone());
            } else {
                immediate = true;
            }
        }
        if immediate { Err(UNBOUND_IMMEDIATE.to_owned()) } else { Ok(sorted) }
    }

    /// What has to be written so that the pod's volumes are on the node, or why they cannot be.
    pub(crate) fn decide(&self, claims: &Sorted, node: &NodeSpec) -> Result<VolumePlan, Rejection> {
        let mut reasons = Vec::new();
        for claim in &claims.bound {
            let reason = match self.volumes.get(&claim.volume) {
                None => VOLUME_MISSING,
                Some(volume) if !volume.reaches(node) => NODE_CONFLICT,
                Some(_) => continue,
            };
            if !reasons.contains(&reason.to_owned()) {
                reasons.push(reason.to_owned());
            }
        }
        let mut plan = VolumePlan::default();
        let mut taken = BTreeSet::new();
        let mut delayed: Vec<&Arc<ClaimInfo>> = claims.delayed.iter().collect();
        // The smallest first, so that it does not take what a larger one needs.
        delayed.sort_by_key(|claim| claim.bytes);
        for claim in delayed {
            let found = match &claim.selected_node {
                Some(_) => None,
                None => self.smallest(claim, node, &taken),
            };
            let class = self.classes.get(&claim.class);
            if let Some(volume) = found {
                taken.insert(volume.name.as_str());
                plan.bind.push((volume.clone(), claim.clone()));
            } else if claim.selected_node.as_ref().is_none_or(|selected| *selected == node.name)
                && class.is_some_and(|class| class.makes_for(node))
            {
                plan.provision.push(claim.clone());
            } else {
                reasons.push(BIND_CONFLICT.to_owned());
                break;
            }
        }
        if reasons.is_empty() { Ok(plan) } else { Err(Rejection { reasons, final_: true }) }
    }

    fn smallest(&self, claim: &ClaimInfo, node: &NodeSpec, taken: &BTreeSet<&str>) -> Option<&Arc<VolumeInfo>> {
        let suiting = self
            .volumes
            .values()
            .filter(|volume| !taken.contains(volume.name.as_str()) && volume.suits(claim) && volume.reaches(node));
        suiting.min_by_key(|volume| (volume.claim.is_none(), volume.bytes, &volume.name))
    }

    /// Takes a plan for granted before it is written; what it replaces is answered.
    pub fn assume(&mut self, plan: &VolumePlan, node: &str) -> Assumed {
        let mut before = Assumed::default();
        for (volume, claim) in &plan.bind {
            let reserved = (claim.namespace.clone(), claim.name.clone(), claim.uid.clone());
            let new = Arc::new(VolumeInfo { claim: Some(reserved), ..(**volume).clone() });
            self.set_volume(&volume.name, Some(new.clone()));
            before.volumes.push((volume.clone(), new));
        }
        for claim in &plan.provision {
            let new = Arc::new(ClaimInfo { selected_node: Some(node.to_owned()), ..(**claim).clone() });
            self.set_claim(&claim.namespace, &claim.name, Some(new.clone()));
            before.claims.push((claim.clone(), new));
        }
        before
    }

    /// Takes back what was assumed and has not been replaced by news since.
    pub fn forget(&mut self, assumed: &Assumed) {
        for (old, new) in &assumed.volumes {
            if self.volumes.get(&old.name).is_some_and(|known| Arc::ptr_eq(known, new)) {
                self.set_volume(&old.name, Some(old.clone()));
            }
        }
        for (old, new) in &assumed.claims {
            if self.claim(&old.namespace, &old.name).is_some_and(|known| Arc::ptr_eq(known, new)) {
                self.set_claim(&old.namespace, &old.name, Some(old.clone()));
            }
        }
    }
}

/// What a plan replaced, to be taken back if it fails.
#[derive(Debug, Default)]
pub struct Assumed {
    volumes: Vec<(Arc<VolumeInfo>, Arc<VolumeInfo>)>,
    claims: Vec<(Arc<ClaimInfo>, Arc<ClaimInfo>)>,
}
