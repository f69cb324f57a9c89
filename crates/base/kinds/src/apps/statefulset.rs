//! apps/v1 StatefulSet: pods with stable names and storage.

use meta::{FieldError, FieldErrors, FieldPath, Gvk, names};
use serde_json::{Value, json};

use super::{V1, workload_rules};
use crate::core::{default_claim, default_template, validate_claim_spec};
use crate::json::{child, ensure, fill, fill_empty, int, is_empty, items, list, remove, set, text};
use crate::kind::{Column, Kind, Subresource, texts};
use crate::{columns, rules};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["sts"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        subresources: vec![Subresource::speaking(
            "scale",
            Gvk::new("autoscaling", "v1", "Scale"),
            &["get", "patch", "update"],
        )]
        .into(),
        columns: columns().into(),
        default,
        prepare_create,
        validate,
        validate_update,
        validate_status,
        validate_name: names::dns_label,
        warnings,
        ..Kind::namespaced(V1, "StatefulSet", "statefulsets")
    }
}

fn columns() -> Vec<Column> {
    let ready = |o: &Value, _| format!("{}/{}", int(o, "status.readyReplicas"), int(o, "spec.replicas")).into();
    let mut all =
        vec![columns::name(), Column::new("Ready", "string", "Ready pods, of those wanted.", ready), columns::age()];
    all.extend(columns::template());
    all
}

fn default(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill_empty(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = ensure(spec, "updateStrategy") {
        // A strategy that was named without bounds has none: its pods come back as they were when the update began.
        if is_empty(&strategy["type"]) {
            set(strategy, "type", "RollingUpdate");
            ensure(strategy, "rollingUpdate");
        }
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            fill(rolling, "partition", 0);
        }
    }
    if let Some(retention) = ensure(spec, "persistentVolumeClaimRetentionPolicy") {
        fill_empty(retention, "whenDeleted", "Retain");
        fill_empty(retention, "whenScaled", "Retain");
    }
    for claim in items(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
        default_claim(claim);
    }
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
}

fn prepare_create(object: &mut Value) {
    set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
}

fn validate(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    let policy = text(spec, "podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy) {
        let why = "must be 'OrderedReady' or 'Parallel'";
        errors.push(FieldError::invalid(&path.child("podManagementPolicy"), policy, why));
    }
    strategy(&mut errors, &spec["updateStrategy"], &path.child("updateStrategy"));
    let retention = path.child("persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        let policy = &spec["persistentVolumeClaimRetentionPolicy"];
        rules::one_of(&mut errors, policy, &retention, key, &["Retain", "Delete"]);
    }
    for (index, claim) in list(spec, "volumeClaimTemplates").iter().enumerate() {
        let path = path.child("volumeClaimTemplates").index(index).child("spec");
        validate_claim_spec(&mut errors, &claim["spec"], &path);
    }
    rules::not_negative(&mut errors, spec, &path, "replicas");
    rules::not_negative(&mut errors, spec, &path, "minReadySeconds");
    rules::not_negative(&mut errors, &spec["ordinals"], &path.child("ordinals"), "start");
    let service = text(spec, "serviceName");
    if !service.is_empty() {
        rules::name(&mut errors, &path.child("serviceName"), service, names::dns_label);
    }
    if spec["selector"].is_null() {
        errors.push(FieldError::required(&path.child("selector"), ""));
    }
    workload_rules::selector(&mut errors, &spec["selector"], "statefulset");
    workload_rules::template(&mut errors, &as_in_pods(spec), &spec["selector"], "StatefulSet");
    errors
}

fn strategy(errors: &mut FieldErrors, strategy: &Value, path: &FieldPath) {
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str().unwrap_or_default() {
        "OnDelete" if !rolling.is_null() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(&path.child("rollingUpdate"), rolling.clone(), why));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            rules::not_negative(errors, rolling, &path, "partition");
            let (bound, path) = (&rolling["maxUnavailable"], path.child("maxUnavailable"));
            if !bound.is_null() {
                workload_rules::number_or_percent(errors, bound, &path);
                if workload_rules::is_zero(bound) {
                    errors.push(FieldError::invalid(&path, bound.clone(), "cannot be 0"));
                }
                workload_rules::at_most_all(errors, bound, &path);
            }
        }
        _ => {
            let shown = json!({"Type": strategy["type"], "RollingUpdate": rolling});
            errors.push(FieldError::invalid(path, shown, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

/// The template as its pods will be: with the claims among the volumes, and without the host names that the controller
/// writes over.
fn as_in_pods(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let claims: Vec<&str> =
        list(spec, "volumeClaimTemplates").iter().map(|claim| text(claim, "metadata.name")).collect();
    let own: Vec<Value> = list(&template, "spec.volumes")
        .iter()
        .filter(|volume| !claims.contains(&text(volume, "name")))
        .cloned()
        .collect();
    let Some(pod) = child(&mut template, "spec") else { return template };
    remove(pod, "hostname");
    remove(pod, "subdomain");
    if !claims.is_empty() {
        let claim = |name: &&str| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } });
        let volumes: Vec<Value> = claims.iter().map(claim).chain(own).collect();
        set(pod, "volumes", volumes);
    }
    template
}

fn warnings(object: &Value) -> Vec<String> {
    const KEEPS_ALL: &str = "spec.revisionHistoryLimit: a negative value retains all historical revisions; \
                             a value >= 0 is recommended";
    let negative = object["spec"]["revisionHistoryLimit"].as_i64().is_some_and(|limit| limit < 0);
    negative.then(|| KEEPS_ALL.to_owned()).into_iter().collect()
}

fn validate_status(new: &Value, old: &Value) -> FieldErrors {
    const PARTS: [&str; 4] = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let mut errors = Vec::new();
    let (status, path) = (&new["status"], FieldPath::new("status"));
    rules::not_negative(&mut errors, status, &path, "replicas");
    workload_rules::status_counts(&mut errors, status, &old["status"], &PARTS);
    let mut bounded = |part: &str, whole: &str| {
        if int(status, part) > int(status, whole) {
            let why = format!("cannot be greater than status.{whole}");
            errors.push(FieldError::invalid(&path.child(part), int(status, part), why));
        }
    };
    PARTS.iter().for_each(|part| bounded(part, "replicas"));
    bounded("availableReplicas", "readyReplicas");
    errors
}

const CHANGES: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// Names, storage and management of the pods stay as they were made.
fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |object: &Value| {
        let mut spec = object["spec"].clone();
        FREE.iter().for_each(|key| remove(&mut spec, key));
        spec
    };
    if fixed(new) == fixed(old) {
        return Vec::new();
    }
    vec![FieldError::forbidden(&FieldPath::new("spec"), CHANGES)]
}
