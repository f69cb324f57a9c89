//! delete and deletecollection: at once, or in steps with finalizers and grace.

use futures::{FutureExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use meta::{ApiResult, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::create::admission;
use super::metadata;
use crate::admission::{AdmissionRequest, Operation, chain};
use crate::body::{self, Body};
use crate::call::{Call, WriteOptions};
use crate::engine::{Stored, set_revision};
use crate::info::RequestInfo;
use crate::limits::{DELETE_COLLECTION_PARALLEL, WRITE_RETRIES_MAX};
use crate::registry::Served;
use crate::{codec, convert};

/// Finalizers by which the garbage collector is told what to do with dependents.
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Namespaces that a cluster cannot be without.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];
/// Kinds whose finished deletion answers the object instead of a Status.
const ANSWER_OBJECT: [&str; 8] = [
    "pods",
    "namespaces",
    "persistentvolumes",
    "persistentvolumeclaims",
    "podtemplates",
    "replicationcontrollers",
    "serviceaccounts",
    "resourcequotas",
];

/// `metav1.DeleteOptions`, from a body or from the query.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphan_dependents: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// A body wins over the query.
    fn read(call: &Call<'_>, headers: &HeaderMap, body: &bytes::Bytes) -> ApiResult<Self> {
        let mut options = if body.is_empty() {
            Self::from_query(call)?
        } else {
            serde_json::from_value(codec::parse_options(headers, body)?)
                .map_err(|error| Status::bad_request(format!("error decoding DeleteOptions: {error}")))?
        };
        if call.query.all("dryRun").any(|value| value == "All") {
            options.dry_run = vec!["All".to_owned()];
        }
        options.check()?;
        Ok(options)
    }

    fn from_query(call: &Call<'_>) -> ApiResult<Self> {
        let query = call.query;
        let grace = match query.get("gracePeriodSeconds") {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| Status::bad_request(format!("gracePeriodSeconds: Invalid value: {text:?}")))?,
            ),
        };
        let policy = query.get("propagationPolicy");
        Ok(Self {
            grace_period_seconds: grace,
            propagation_policy: (!policy.is_empty()).then(|| policy.to_owned()),
            orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")),
            ..Self::default()
        })
    }

    fn check(&self) -> ApiResult<()> {
        let invalid = |field: &str, why: String| {
            let error = meta::FieldError::invalid(&meta::FieldPath::new(field), Value::Null, &why);
            Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]))
        };
        if self.propagation_policy.is_some() && self.orphan_dependents.is_some() {
            return invalid(
                "propagationPolicy",
                "orphanDependents and deletionPropagation cannot be both set".to_owned(),
            );
        }
        match self.propagation_policy.as_deref() {
            None | Some("Orphan" | "Foreground" | "Background") => Ok(()),
            Some(other) => invalid(
                "propagationPolicy",
                format!("{other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""),
            ),
        }
    }

    pub fn is_dry_run(&self) -> bool {
        self.dry_run.iter().any(|value| value == "All")
    }
}

pub async fn delete(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let (parts, body) = request.into_parts();
    let options = DeleteOptions::read(call, &parts.headers, &body::read(body).await?)?;
    let (object, gone) = delete_one(call, &options).await?;
    let accepted = !gone && options.orphan_dependents == Some(false);
    let code = if accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
    if gone && !ANSWER_OBJECT.contains(&call.served.kind.plural.as_ref()) {
        let status = Status::success(&call.served.resource(), &call.info.name, metadata::text(&object, "uid"));
        let value = serde_json::to_value(&status).map_err(Status::internal)?;
        return call.output.value(code, &value);
    }
    call.output.object(call.served, call.query, code, &object)
}

/// What one step of a deletion decided.
enum Step {
    Remove,
    Mark(Value),
    /// Somebody asked before, and nothing changes.
    Already,
}

/// Deletes or starts to delete; answers the object as it was last and whether it is gone.
pub async fn delete_one(call: &Call<'_>, options: &DeleteOptions) -> ApiResult<(Value, bool)> {
    let (served, name) = (call.served, call.info.name.as_str());
    let key = (call.namespace(), name);
    for _ in 0..WRITE_RETRIES_MAX {
        let old = call.engine.read_existing(served, key.0, name).await?;
        check_preconditions(served, name, options, &old)?;
        if served.kind.group.is_empty() && served.kind.plural == "namespaces" && IMMORTAL_NAMESPACES.contains(&name) {
            return Err(Status::forbidden(&served.resource(), name, "this namespace may not be deleted"));
        }
        admit(call, options, &old.value).await?;
        let mut object = match step(served, options, &old.value) {
            Step::Already => old.value,
            Step::Remove => {
                if !options.is_dry_run() && !call.engine.remove(served, key, old.revision).await? {
                    continue;
                }
                let mut object = old.value;
                convert::from_stored(&call.engine.cache, served, &mut object).await?;
                return Ok((object, true));
            }
            Step::Mark(mut marked) if !options.is_dry_run() => {
                let Some(revision) = call.engine.replace(served, key, &old, &marked).await? else { continue };
                set_revision(&mut marked, revision);
                marked
            }
            Step::Mark(marked) => marked,
        };
        convert::from_stored(&call.engine.cache, served, &mut object).await?;
        return Ok((object, false));
    }
    Err(Status::modified(&served.resource(), name))
}

async fn admit(call: &Call<'_>, options: &DeleteOptions, old: &Value) -> ApiResult<()> {
    let write = WriteOptions { dry_run: options.is_dry_run(), ..WriteOptions::default() };
    let given = serde_json::to_value(options).map_err(Status::internal)?;
    // Policies see the version that the client speaks.
    let view = convert::view(&call.engine.cache, call.served, old).await?;
    let request = AdmissionRequest {
        operation: Operation::Delete,
        deletion: Some(&given),
        ..admission(call, &call.info.name, &write, Some(&view))
    };
    chain::before_deletion(&request).await?;
    chain::validate(&request, None).await
}

fn check_preconditions(served: &Served, name: &str, options: &DeleteOptions, old: &Stored) -> ApiResult<()> {
    let Some(preconditions) = &options.preconditions else { return Ok(()) };
    let uid = metadata::text(&old.value, "uid");
    if let Some(wanted) = preconditions.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(Status::conflict(&served.resource(), name, &why));
    }
    let version = old.revision.to_string();
    if let Some(wanted) = preconditions.resource_version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
        );
        return Err(Status::conflict(&served.resource(), name, &why));
    }
    Ok(())
}

/// What a deletion does to an object in its current state.
fn step(served: &Served, options: &DeleteOptions, old: &Value) -> Step {
    let mut new = old.clone();
    set_policy(served, options, &mut new);
    let deleting = metadata::metadata(old).contains_key("deletionTimestamp");
    if let Some(own) = crate::custom::deletion_finalizer(served).filter(|_| !deleting) {
        let mut finalizers = metadata::finalizers(&new);
        finalizers.retain(|finalizer| finalizer != own);
        finalizers.push(own.to_owned());
        metadata::set_finalizers(&mut new, &finalizers);
    }
    if served.kind.group.is_empty() && served.kind.plural == "namespaces" {
        return namespace_step(old, new, deleting);
    }
    let finalized = metadata::finalizers(&new).is_empty();
    let Some(default_grace) = served.kind.graceful_delete else {
        return match (finalized, deleting) {
            (true, _) => Step::Remove,
            (false, true) if new == *old => Step::Already,
            (false, true) => Step::Mark(new),
            (false, false) => Step::Mark(marked(new, 0)),
        };
    };
    let wanted = options.grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let grace = if may_go_at_once(old) { 0 } else { wanted.unwrap_or_else(|| default_grace(old)) };
    if grace == 0 && finalized {
        return Step::Remove;
    }
    if deleting {
        let running = metadata::metadata(old).get("deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0);
        // A second deletion may only shorten the grace of the first.
        return match (wanted.is_some() && grace < running, new == *old) {
            (true, _) => Step::Mark(marked(new, grace)),
            (false, true) => Step::Already,
            (false, false) => Step::Mark(new),
        };
    }
    Step::Mark(marked(new, grace))
}

/// A pod that no node runs, or whose containers ended, has nobody who would confirm.
fn may_go_at_once(pod: &Value) -> bool {
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("");
    node.is_empty() || matches!(phase, "Succeeded" | "Failed")
}

fn namespace_step(old: &Value, mut new: Value, deleting: bool) -> Step {
    if is_namespace_finalized(&new) && deleting {
        return Step::Remove;
    }
    if deleting {
        return if new == *old { Step::Already } else { Step::Mark(new) };
    }
    if let Some(fields) = new.as_object_mut() {
        let status = fields.entry("status").or_insert_with(|| json!({}));
        status["phase"] = "Terminating".into();
    }
    Step::Mark(marked(new, 0))
}

fn is_namespace_finalized(namespace: &Value) -> bool {
    let finalizers = namespace.pointer("/spec/finalizers").and_then(Value::as_array);
    finalizers.is_none_or(Vec::is_empty) && metadata::finalizers(namespace).is_empty()
}

/// The object with its deletion begun; the timestamp is when the grace ends.
fn marked(mut object: Value, grace: u64) -> Value {
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(i64::try_from(grace).unwrap_or(0).min(1 << 32));
    if let Some(metadata) = metadata::metadata_mut(&mut object) {
        metadata.insert("deletionTimestamp".to_owned(), metadata::timestamp(end).into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata.insert("generation".to_owned(), (generation + 1).into());
        }
    }
    object
}

/// The propagation policy becomes a finalizer for the garbage collector.
fn set_policy(served: &Served, options: &DeleteOptions, object: &mut Value) {
    let chosen = |finalizers: &[String]| finalizers.iter().any(|known| known == ORPHAN || known == FOREGROUND);
    let policy = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some(policy), _) => policy,
        (None, Some(true)) => "Orphan",
        (None, Some(false)) => "Background",
        (None, None) if served.kind.orphans_dependents && !chosen(&metadata::finalizers(object)) => "Orphan",
        (None, None) => return,
    };
    let mut finalizers = metadata::finalizers(object);
    let before = finalizers.clone();
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    match policy {
        "Orphan" => finalizers.push(ORPHAN.to_owned()),
        "Foreground" => finalizers.push(FOREGROUND.to_owned()),
        _ => {}
    }
    if finalizers != before {
        metadata::set_finalizers(object, &finalizers);
    }
}

/// Whether an update was the last thing that a deletion waited for.
pub fn is_finished(served: &Served, new: &Value, old: &Value) -> bool {
    let deleting = metadata::metadata(old);
    if !deleting.contains_key("deletionTimestamp") || !metadata::finalizers(new).is_empty() {
        return false;
    }
    if served.kind.group.is_empty() && served.kind.plural == "namespaces" {
        return is_namespace_finalized(new);
    }
    deleting.get("deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0) == 0
}

/// Deletes everything that the selectors find, and answers the list of what was found.
pub async fn delete_collection(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let (parts, body) = request.into_parts();
    let options = DeleteOptions::read(call, &parts.headers, &body::read(body).await?)?;
    let filter = call.filter()?;
    call.engine.cache.wait_current().await?;
    let resource = call.engine.resource(call.served);
    let snapshot = resource.snapshot(call.engine.cache.reached());
    let readers = resource.readers.load_full();
    let found = snapshot.objects.iter().filter(|(key, object)| filter.matches(key, object, &readers));
    let (mut keys, objects): (Vec<_>, Vec<_>) = found.map(|(key, object)| (key.clone(), object.bytes.clone())).unzip();
    if !filter.converted.is_empty() {
        let objects = convert::bytes_from_stored(&call.engine.cache, call.served, objects).await?;
        let mut passes = objects.iter().map(|object| {
            let value = serde_json::from_slice(object).unwrap_or_default();
            convert::passes(call.served, &filter.converted, &value)
        });
        keys.retain(|_| passes.next().unwrap_or_default());
    }
    let keys: Vec<(String, String)> = keys
        .iter()
        .map(|key| crate::cache::split_key(key))
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .collect();
    let deletions: Vec<_> = keys.into_iter().map(|key| delete_named(call, &options, key).boxed()).collect();
    let results: Vec<_> = futures::stream::iter(deletions).buffered(DELETE_COLLECTION_PARALLEL).collect().await;
    let mut items = Vec::with_capacity(results.len());
    for result in results {
        match result {
            Ok((object, _)) => items.push(object),
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let list = json!({
        "kind": call.served.list_kind(),
        "apiVersion": call.served.api_version(),
        "metadata": {"resourceVersion": snapshot.revision.to_string()},
        "items": items,
    });
    call.output.value(StatusCode::OK, &list)
}

async fn delete_named(call: &Call<'_>, options: &DeleteOptions, key: (String, String)) -> ApiResult<(Value, bool)> {
    let info = RequestInfo { namespace: key.0, name: key.1, ..call.info.clone() };
    let one = Call { info: &info, user: call.user.clone(), output: call.output.clone(), ..*call };
    delete_one(&one, options).await
}
