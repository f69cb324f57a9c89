//! Claims of generic ephemeral volumes: one per volume, named after pod and volume, owned by the pod.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use serde_json::json;

use crate::PodView;
use crate::plan::{Note, Op, PERSISTENT_VOLUME_CLAIMS, PODS, Plan, to_value};

/// The claim's name.
pub fn claim_name(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}

/// Whether the claim was made for this incarnation of the pod.
pub fn is_owned_by(claim: &PersistentVolumeClaim, pod: &PodView) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    claim.metadata.namespace.as_deref() == Some(&pod.namespace)
        && owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == pod.uid)
}

/// Makes the claims that are missing. `existing` finds a claim of the pod's namespace.
pub fn plan<'a>(pod: &PodView, existing: impl Fn(&str) -> Option<&'a PersistentVolumeClaim>) -> Plan {
    let mut plan = Plan::default();
    if pod.deletion.is_some() {
        return plan;
    }
    for (volume, template) in &pod.ephemeral {
        let name = claim_name(&pod.name, volume);
        let about = ObjectReference {
            api_version: Some(PODS.api_version.to_owned()),
            kind: Some(PODS.kind.to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        if let Some(claim) = existing(&name) {
            if !is_owned_by(claim, pod) {
                let why = format!(
                    "PVC {0}/{name} was not created for pod {0}/{1} (pod is not owner)",
                    pod.namespace, pod.name
                );
                let message = format!("ephemeral volume {volume}: {why}");
                plan.notes.push(Note::warning(&about, "FailedBinding", message));
            }
            continue;
        }
        let meta = template.metadata.clone().unwrap_or_default();
        let owner = json!({
            "apiVersion": PODS.api_version, "kind": PODS.kind, "name": pod.name, "uid": pod.uid,
            "controller": true, "blockOwnerDeletion": true,
        });
        let object = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name, "namespace": pod.namespace, "labels": meta.labels, "annotations": meta.annotations,
                "ownerReferences": [owner],
            },
            "spec": to_value(&template.spec),
        });
        let failed = format!("ephemeral volume {volume}: create PVC {name}: {{error}}");
        let step = Op::Create { resource: PERSISTENT_VOLUME_CLAIMS, namespace: pod.namespace.clone(), object };
        plan.push(crate::plan::Step::from(step).on_failure(Note::warning(&about, "FailedBinding", failed)));
    }
    plan
}
