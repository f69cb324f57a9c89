//! ControllerRevisions: the templates that a StatefulSet or DaemonSet has had, numbered in the order of their use.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::deployment::template_hash;
use crate::ownership::Owner;
use crate::plan::{CONTROLLER_REVISIONS, Op, Plan, to_value};

/// The label of pods (and of a DaemonSet's revisions) that tells the revision they were made from.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// The label of a StatefulSet's revisions with the hash of their template.
pub const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Names end with `-` and the hash; longer prefixes are cut so that the whole fits 253 bytes.
const NAME_PREFIX_BYTES_MAX: usize = 223;

/// A revision of the namespace, as controllers keep it.
pub type Revision = Arc<ControllerRevision>;

pub fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

pub fn label<'a>(revision: &'a ControllerRevision, key: &str) -> Option<&'a str> {
    revision.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// The body of a revision: the strategic merge patch that brings the template back (`kubectl rollout undo` sends it).
fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = to_value(template);
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

/// The template that a revision keeps; `None` when its data is something else.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = &revision.data.as_ref()?.0["spec"]["template"];
    template.is_object().then(|| serde_json::from_value(template.clone()).ok())?
}

/// Compared as types: how a value was spelled when it was written does not make another revision.
pub fn is_of(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|kept| &kept == template)
}

/// By number; equal numbers by age, then by name.
pub fn sort(revisions: &mut [Revision]) {
    revisions.sort_by_cached_key(|revision| {
        let created = revision.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (revision.revision, created, name(revision).to_owned())
    });
}

/// The newest revision of this template.
pub fn find(revisions: &[Revision], template: &PodTemplateSpec) -> Option<Revision> {
    revisions.iter().rev().find(|revision| is_of(revision, template)).cloned()
}

/// What a set needs to say to have its template recorded.
pub struct Record<'a> {
    pub owner: &'a Owner,
    pub meta: &'a ObjectMeta,
    pub template: &'a PodTemplateSpec,
    /// Names taken by other templates so far.
    pub collisions: Option<i32>,
    /// [`REVISION_LABEL`] or [`HASH_LABEL`].
    pub hash_label: &'static str,
}

impl Record<'_> {
    /// Records the template, or makes an older revision of it the newest. `revisions` are sorted; they are those of this
    /// owner and orphans that it adopts.
    pub fn plan(&self, revisions: &[Revision], plan: &mut Plan) {
        let Some(known) = find(revisions, self.template) else {
            let number = revisions.iter().map(|revision| revision.revision).max().unwrap_or(0) + 1;
            plan.push(Op::Create {
                resource: CONTROLLER_REVISIONS,
                namespace: self.owner.namespace.clone(),
                object: self.object(number),
            });
            return;
        };
        let others = revisions.iter().filter(|revision| !is_of(revision, self.template));
        let number = others.map(|revision| revision.revision).max().unwrap_or(0) + 1;
        if known.revision < number {
            let body = json!({ "metadata": { "uid": known.metadata.uid }, "revision": number });
            plan.push(Op::update(CONTROLLER_REVISIONS, &self.owner.namespace, name(&known), body));
        }
    }

    fn object(&self, number: i64) -> Value {
        let hash = template_hash(self.template, self.collisions);
        let mut prefix = self.owner.name.as_str();
        while prefix.len() > NAME_PREFIX_BYTES_MAX {
            // Names are ASCII: each step takes one byte.
            prefix = prefix.get(..prefix.len() - 1).unwrap_or_default();
        }
        let labels = self.template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        let mut labels = labels.unwrap_or_default();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        let mut metadata = json!({
            "name": format!("{prefix}-{hash}"),
            "namespace": self.owner.namespace,
            "labels": labels,
            "ownerReferences": [self.owner.reference()],
        });
        if let Some(annotations) = &self.meta.annotations {
            metadata["annotations"] = to_value(annotations);
        }
        json!({
            "apiVersion": CONTROLLER_REVISIONS.api_version,
            "kind": CONTROLLER_REVISIONS.kind,
            "metadata": metadata,
            "data": data_of(self.template),
            "revision": number,
        })
    }
}

/// The name that was to be created exists. `None`: it is this owner's revision of this template, which the cache does not
/// show yet. Otherwise the collision count to write, so that the next name differs.
pub fn on_name_taken(
    live: &ControllerRevision,
    owner: &Owner,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
) -> Option<i32> {
    let controller = live.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    if controller.is_some_and(|known| known.uid == owner.uid) && is_of(live, template) {
        return None;
    }
    Some(collisions.unwrap_or(0).saturating_add(1))
}

/// Deletes the oldest revisions beyond `limit` that nothing uses; a negative limit keeps all.
pub(crate) fn truncate(old: &[Revision], limit: i32, is_live: impl Fn(&ControllerRevision) -> bool, plan: &mut Plan) {
    let Ok(limit) = usize::try_from(limit) else { return };
    let unused: Vec<&Revision> = old.iter().filter(|revision| !is_live(revision)).collect();
    for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
        plan.push(Op::Delete {
            resource: CONTROLLER_REVISIONS,
            namespace: revision.metadata.namespace.clone().unwrap_or_default(),
            name: name(revision).to_owned(),
            uid: revision.metadata.uid.clone(),
            grace: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::DAEMON_SETS;

    fn template(image: &str) -> PodTemplateSpec {
        let spec = json!({ "spec": { "containers": [{ "name": "c", "image": image }] } });
        serde_json::from_value(spec).unwrap()
    }

    fn meta() -> ObjectMeta {
        ObjectMeta { name: Some("d".repeat(250)), namespace: Some("a".into()), ..ObjectMeta::default() }
    }

    fn planned(wanted: &str, known: &[(i64, &str)]) -> Vec<String> {
        let mut plan = Plan::default();
        let revisions: Vec<Revision> = known
            .iter()
            .map(|(number, image)| {
                let mut value = record(&template(image), |record| record.object(*number));
                value["metadata"]["name"] = image.to_string().into();
                Arc::new(serde_json::from_value(value).unwrap())
            })
            .collect();
        record(&template(wanted), |record| record.plan(&revisions, &mut plan));
        let told = plan.steps.iter().map(|step| match &step.op {
            Op::Create { object, .. } => format!("create {}", object["revision"]),
            Op::Patch { name, body, .. } => format!("{name} becomes {}", body["revision"]),
            Op::Delete { name, .. } => format!("delete {name}"),
        });
        told.collect()
    }

    fn record<T>(template: &PodTemplateSpec, use_it: impl FnOnce(&Record<'_>) -> T) -> T {
        let (meta, owner) = (meta(), Owner::new(DAEMON_SETS, &meta(), None));
        use_it(&Record { owner: &owner, meta: &meta, template, collisions: None, hash_label: REVISION_LABEL })
    }

    #[test]
    fn a_template_is_recorded_once_and_comes_back_as_the_newest() {
        assert_eq!(planned("a", &[]), ["create 1"]);
        assert_eq!(planned("a", &[(1, "a")]), Vec::<String>::new());
        assert_eq!(planned("b", &[(1, "a")]), ["create 2"]);
        assert_eq!(planned("a", &[(1, "a"), (2, "b")]), ["a becomes 3"]);
        assert_eq!(planned("c", &[(2, "b"), (3, "a")]), ["create 4"]);
    }

    #[test]
    fn names_fit_and_collisions_change_them() {
        let name = |collisions| {
            let (meta, owner) = (meta(), Owner::new(DAEMON_SETS, &meta(), None));
            let template = template("a");
            let record = Record { owner: &owner, meta: &meta, template: &template, collisions, hash_label: HASH_LABEL };
            record.object(1)["metadata"]["name"].as_str().unwrap().to_owned()
        };
        assert!(name(None).len() <= 253);
        assert_ne!(name(Some(1)), name(Some(2)));
        assert_eq!(name(Some(1)), name(Some(1)));
    }
}
