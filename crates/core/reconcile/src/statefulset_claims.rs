//! The claims of a StatefulSet's pods: their names and shape, and whom the retention policy makes their owner.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy as Policy;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use crate::plan::{PERSISTENT_VOLUME_CLAIMS, PODS, Resource, STATEFUL_SETS, to_value};

/// A PersistentVolumeClaim as this controller sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimView {
    pub name: String,
    pub uid: String,
    pub owners: Vec<OwnerReference>,
    pub deleting: bool,
}

impl ClaimView {
    pub fn from_claim(claim: PersistentVolumeClaim) -> Self {
        let meta = claim.metadata;
        Self {
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            owners: meta.owner_references.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}

/// `TEMPLATE-SET-ORDINAL`.
pub(crate) fn claim_name(template: &PersistentVolumeClaim, set: &str, ordinal: i32) -> String {
    format!("{}-{set}-{ordinal}", template.metadata.name.as_deref().unwrap_or_default())
}

/// The claim of a template for one ordinal: it carries the labels that the set selects by.
pub(crate) fn claim_of(
    template: &PersistentVolumeClaim,
    set: &str,
    namespace: &str,
    ordinal: i32,
    selected: Option<&BTreeMap<String, String>>,
) -> Value {
    let mut claim = template.clone();
    claim.metadata.name = Some(claim_name(template, set, ordinal));
    claim.metadata.namespace = Some(namespace.to_owned());
    if let Some(selected) = selected {
        claim.metadata.labels.get_or_insert_default().extend(selected.clone());
    }
    claim.status = None;
    let mut object = to_value(&claim);
    object["apiVersion"] = PERSISTENT_VOLUME_CLAIMS.api_version.into();
    object["kind"] = PERSISTENT_VOLUME_CLAIMS.kind.into();
    object
}

/// A set or a pod as it appears in owner references.
pub(crate) struct Holder<'a> {
    pub resource: Resource,
    pub name: &'a str,
    /// Empty for a pod that is not created yet.
    pub uid: &'a str,
}

impl<'a> Holder<'a> {
    pub fn set(name: &'a str, uid: &'a str) -> Self {
        Self { resource: STATEFUL_SETS, name, uid }
    }

    pub fn pod(name: &'a str, uid: &'a str) -> Self {
        Self { resource: PODS, name, uid }
    }

    /// Names this holder, whichever incarnation.
    fn is_named(&self, owner: &OwnerReference) -> bool {
        owner.api_version == self.resource.api_version && owner.kind == self.resource.kind && owner.name == self.name
    }

    /// An earlier holder of this name owns the claim, which goes with it.
    pub fn is_stale(&self, claim: &ClaimView) -> bool {
        claim.owners.iter().find(|owner| self.is_named(owner)).is_some_and(|owner| owner.uid != self.uid)
    }

    fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.resource.api_version.to_owned(),
            kind: self.resource.kind.to_owned(),
            name: self.name.to_owned(),
            uid: self.uid.to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

/// What a claim's owners have to become.
#[derive(Debug, PartialEq)]
pub(crate) struct Owners {
    pub owners: Vec<OwnerReference>,
    /// Somebody else controls the claim: set and pod keep out.
    pub conflicting: bool,
}

pub(crate) fn deletes_on_scale(policy: Option<&Policy>) -> bool {
    policy.and_then(|policy| policy.when_scaled.as_deref()) == Some("Delete")
}

pub(crate) fn deletes_on_delete(policy: Option<&Policy>) -> bool {
    policy.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete")
}

/// The owners due by the policy: the set, when its deletion takes the claims along; the pod, when it is scaled away and
/// that takes its claims along. `None`: they are right, or not to be touched.
pub(crate) fn owners_due(
    claim: &ClaimView,
    set: &Holder<'_>,
    pod: &Holder<'_>,
    scaled_away: bool,
    policy: Option<&Policy>,
) -> Option<Owners> {
    if set.is_stale(claim) || pod.is_stale(claim) {
        return None;
    }
    let ours = |owner: &OwnerReference| set.is_named(owner) || pod.is_named(owner);
    let (scale, delete) = (deletes_on_scale(policy), deletes_on_delete(policy));
    let foreign = |owner: &OwnerReference| !ours(owner) && owner.controller == Some(true);
    let mut owners: Vec<OwnerReference> = claim.owners.iter().filter(|owner| !ours(owner)).cloned().collect();
    if (scale || delete) && claim.owners.iter().any(foreign) {
        return (owners.len() < claim.owners.len()).then_some(Owners { owners, conflicting: true });
    }
    let (wants_set, wants_pod) = (delete && !(scale && scaled_away), scale && scaled_away);
    let owned_by = |holder: &Holder<'_>| claim.owners.iter().any(|owner| owner.uid == holder.uid);
    let uncontrolled = claim.owners.iter().any(|owner| ours(owner) && owner.controller != Some(true));
    if owned_by(set) == wants_set && owned_by(pod) == wants_pod && !uncontrolled {
        return None;
    }
    owners.extend(wants_set.then(|| set.reference()));
    owners.extend(wants_pod.then(|| pod.reference()));
    Some(Owners { owners, conflicting: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(deleted: &str, scaled: &str) -> Policy {
        Policy { when_deleted: Some(deleted.into()), when_scaled: Some(scaled.into()) }
    }

    /// The kinds of the owners due, or `-` when nothing is to be done.
    fn due(owners: Vec<OwnerReference>, scaled_away: bool, policy: &Policy) -> String {
        let claim = ClaimView { name: "c".into(), uid: "c".into(), owners, deleting: false };
        let (set, pod) = (Holder::set("web", "s"), Holder::pod("web-0", "p"));
        let Some(due) = owners_due(&claim, &set, &pod, scaled_away, Some(policy)) else { return "-".into() };
        let kinds: Vec<String> = due.owners.iter().map(|owner| owner.kind.clone()).collect();
        format!("{}{}", kinds.join(","), if due.conflicting { "!" } else { "" })
    }

    #[test]
    fn the_policy_says_who_owns_a_claim() {
        let (set, pod) = (Holder::set("web", "s").reference(), Holder::pod("web-0", "p").reference());
        for (deleted, scaled, in_range, scaled_away) in [
            ("Retain", "Retain", "-", "-"),
            ("Delete", "Retain", "StatefulSet", "StatefulSet"),
            ("Retain", "Delete", "-", "Pod"),
            ("Delete", "Delete", "StatefulSet", "Pod"),
        ] {
            let policy = policy(deleted, scaled);
            assert_eq!(due(vec![], false, &policy), in_range, "{deleted} {scaled}");
            assert_eq!(due(vec![], true, &policy), scaled_away, "{deleted} {scaled}");
        }
        assert_eq!(due(vec![set.clone()], false, &policy("Delete", "Delete")), "-");
        assert_eq!(due(vec![set.clone()], true, &policy("Delete", "Delete")), "Pod");
        assert_eq!(due(vec![pod.clone()], false, &policy("Delete", "Delete")), "StatefulSet");
        assert_eq!(due(vec![set.clone(), pod.clone()], false, &policy("Retain", "Retain")), "");
        let loose = OwnerReference { controller: None, ..set.clone() };
        assert_eq!(due(vec![loose], false, &policy("Delete", "Retain")), "StatefulSet");
        let earlier = OwnerReference { uid: "before".into(), ..pod };
        assert_eq!(due(vec![earlier], false, &policy("Delete", "Delete")), "-");
        let foreign = OwnerReference { kind: "Other".into(), uid: "o".into(), ..set.clone() };
        assert_eq!(due(vec![foreign.clone()], false, &policy("Delete", "Delete")), "-");
        assert_eq!(due(vec![foreign, set], false, &policy("Delete", "Delete")), "Other!");
    }
}
