//! Who belongs to whom: controller references, adoption of matching orphans and release of strays.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use meta::labels::{Labels, Selector};
use serde_json::{Value, json};

use crate::plan::{Op, Resource, to_value};

/// What adoption needs to know of an owner.
#[derive(Clone, Debug)]
pub struct Owner {
    pub resource: Resource,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub deleting: bool,
    pub selector: Option<Selector>,
}

/// What adoption needs to know of a possible dependent.
pub trait Dependent {
    fn identity(&self) -> (&str, &str);
    fn labels(&self) -> Option<&BTreeMap<String, String>>;
    fn owners(&self) -> &[OwnerReference];
    fn deleting(&self) -> bool;
}

impl Dependent for crate::PodView {
    fn identity(&self) -> (&str, &str) {
        (&self.name, &self.uid)
    }
    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.labels)
    }
    fn owners(&self) -> &[OwnerReference] {
        &self.owners
    }
    fn deleting(&self) -> bool {
        self.deletion.is_some()
    }
}

impl<T: k8s_openapi::Metadata<Ty = ObjectMeta>> Dependent for T {
    fn identity(&self) -> (&str, &str) {
        let meta = self.metadata();
        (meta.name.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default())
    }
    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.metadata().labels.as_ref()
    }
    fn owners(&self) -> &[OwnerReference] {
        self.metadata().owner_references.as_deref().unwrap_or_default()
    }
    fn deleting(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }
}

impl Owner {
    pub fn new(resource: Resource, meta: &ObjectMeta, selector: Option<Selector>) -> Self {
        Self {
            resource,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            selector,
        }
    }

    pub fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.resource.api_version.to_owned(),
            kind: self.resource.kind.to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// Sorts candidates into those owned already, and the patches that adopt or release others. A patch names the
    /// uid, so that it can only hit the incarnation that was looked at.
    pub fn claim<D: Dependent, R: std::ops::Deref<Target = D> + Clone>(
        &self,
        resource: Resource,
        candidates: &[R],
    ) -> (Vec<R>, Vec<Op>) {
        let (mut owned, mut patches) = (Vec::new(), Vec::new());
        for candidate in candidates {
            match self.judge(resource, &**candidate) {
                Claim::Owned => owned.push(candidate.clone()),
                Claim::Patch(patch) => patches.push(patch),
                Claim::Nothing => {}
            }
        }
        (owned, patches)
    }

    /// Whether the selector, where there is one, takes these labels.
    pub fn selects(&self, labels: &impl Labels) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// What is to be done about one candidate.
    pub fn judge<D: Dependent>(&self, resource: Resource, candidate: &D) -> Claim {
        let matches = || self.selects(&candidate.labels());
        let patch = |owners: Value| {
            let (name, uid) = candidate.identity();
            let body = json!({ "metadata": { "uid": uid, "ownerReferences": owners } });
            Claim::Patch(Op::merge(resource, &self.namespace, name, body))
        };
        match candidate.owners().iter().find(|owner| owner.controller == Some(true)) {
            Some(owner) if owner.uid != self.uid => Claim::Nothing,
            Some(_) if matches() => Claim::Owned,
            Some(_) if self.deleting => Claim::Nothing,
            Some(_) => {
                let kept = candidate.owners().iter().filter(|owner| owner.uid != self.uid);
                patch(to_value(&kept.collect::<Vec<_>>()))
            }
            None if self.deleting || candidate.deleting() || !matches() => Claim::Nothing,
            None => {
                let mut owners = candidate.owners().to_vec();
                owners.push(self.reference());
                patch(to_value(&owners))
            }
        }
    }
}

/// What an owner makes of a possible dependent.
pub enum Claim {
    Owned,
    /// Adopts or releases it.
    Patch(Op),
    Nothing,
}

/// The compiled form of a typed selector; a null selector and one that cannot be read select nothing.
pub fn selector_of(selector: &LabelSelector) -> Option<Selector> {
    Selector::from_label_selector(&to_value(selector))
}

/// How events refer to an object.
pub fn reference(resource: Resource, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(resource.api_version.to_owned()),
        kind: Some(resource.kind.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}
