//! `pods/eviction`: a deletion that disruption budgets may refuse.

use http::Response;
use meta::{ApiResult, Cause, GroupResource, Reason, Status};
use serde_json::{Value, json};

use super::binding::set_condition;
use crate::body::Body;
use crate::call::{Call, WriteOptions};
use crate::engine::Stored;
use crate::limits::WRITE_RETRIES_MAX;
use crate::registry::Served;
use crate::verbs::delete::{DeleteOptions, delete_one};
use crate::verbs::metadata;

/// Pods that an evictor deleted but the budget's controller has not seen yet; more means that it is stuck.
const DISRUPTED_PODS_MAX: usize = 2000;
/// Seconds after which an eviction that met a change may be tried again.
const RETRY_SECONDS: u32 = 10;

/// What the pod's budget says.
enum Permit {
    /// No budget, or one disruption was taken from it.
    Granted,
    /// The pod counts for nothing while it is unready: it may go as it is now, by this budget.
    AsItIs(String),
}

pub async fn evict(call: &Call<'_>, eviction: &Value, options: &WriteOptions) -> ApiResult<Response<Body>> {
    super::check_name(eviction, &call.info.name)?;
    let deletion = deletion(eviction, options)?;
    for _ in 0..WRITE_RETRIES_MAX {
        let pod = call.engine.read_existing(call.served, call.namespace(), &call.info.name).await?;
        if !needs_no_budget(&pod.value) {
            return within_budget(call, &pod, &deletion).await;
        }
        // A pod that waits may become ready meanwhile, and then a budget protects it.
        let bound = if may_become_ready(&pod.value) { bound_to(&deletion, &pod) } else { deletion.clone() };
        match remove(call, &bound).await {
            Err(status) if status.is(Reason::Conflict) && !names_version(&deletion) => {}
            other => return other.and_then(|()| super::done(call)),
        }
    }
    Err(Status::modified(&call.served.resource(), &call.info.name))
}

/// The deletion that the eviction asks for; a dry run may be asked for in two places.
fn deletion(eviction: &Value, options: &WriteOptions) -> ApiResult<DeleteOptions> {
    let given = eviction.get("deleteOptions").filter(|given| !given.is_null()).cloned().unwrap_or_else(|| json!({}));
    let mut deletion: DeleteOptions = serde_json::from_value(given)
        .map_err(|error| Status::bad_request(format!("error decoding deleteOptions: {error}")))?;
    if options.dry_run {
        deletion.dry_run = vec!["All".to_owned()];
    }
    Ok(deletion)
}

async fn within_budget(call: &Call<'_>, pod: &Stored, deletion: &DeleteOptions) -> ApiResult<Response<Body>> {
    match spend(call, &pod.value, deletion.is_dry_run()).await? {
        Permit::Granted => remove(call, deletion).await?,
        Permit::AsItIs(budget) => match remove(call, &bound_to(deletion, pod)).await {
            Err(status) if status.is(Reason::Conflict) && !names_version(deletion) => {
                return Err(still_processed(&budget));
            }
            other => other?,
        },
    }
    super::done(call)
}

fn names_version(deletion: &DeleteOptions) -> bool {
    deletion.preconditions.as_ref().is_some_and(|preconditions| preconditions.resource_version.is_some())
}

/// The deletion of the pod as it was read, unless the client names a version of its own.
fn bound_to(deletion: &DeleteOptions, pod: &Stored) -> DeleteOptions {
    let mut bound = deletion.clone();
    let preconditions = bound.preconditions.get_or_insert_default();
    preconditions.resource_version.get_or_insert_with(|| pod.revision.to_string());
    bound
}

/// Says in the pod's conditions why it goes, then deletes it.
async fn remove(call: &Call<'_>, deletion: &DeleteOptions) -> ApiResult<()> {
    let mut deletion = deletion.clone();
    if !deletion.is_dry_run() {
        let revision = explain(call, &deletion).await?;
        if let Some(version) = deletion.preconditions.as_mut().and_then(|known| known.resource_version.as_mut()) {
            *version = revision.to_string();
        }
    }
    delete_one(call, &deletion).await?;
    Ok(())
}

async fn explain(call: &Call<'_>, deletion: &DeleteOptions) -> ApiResult<u64> {
    let key = (call.namespace(), call.info.name.as_str());
    for _ in 0..WRITE_RETRIES_MAX {
        let old = call.engine.read_existing(call.served, key.0, key.1).await?;
        check_preconditions(key.1, deletion, &old)?;
        let mut new = old.value.clone();
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting"});
        set_condition(&mut new, condition);
        if let Some(revision) = call.engine.replace(call.served, key, &old, &new).await? {
            return Ok(revision);
        }
    }
    Err(Status::modified(&call.served.resource(), key.1))
}

fn check_preconditions(name: &str, deletion: &DeleteOptions, pod: &Stored) -> ApiResult<()> {
    let Some(preconditions) = &deletion.preconditions else { return Ok(()) };
    let refused = |why: String| Err(Status::conflict(&GroupResource::new("", "Pod"), name, &why));
    let (uid, version) = (metadata::text(&pod.value, "uid"), pod.revision.to_string());
    if let Some(wanted) = preconditions.uid.as_deref().filter(|wanted| !wanted.is_empty() && *wanted != uid) {
        return refused(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        ));
    }
    let wanted = preconditions.resource_version.as_deref();
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty() && *wanted != version) {
        return refused(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        ));
    }
    Ok(())
}

fn phase(pod: &Value) -> &str {
    pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("")
}

/// What runs nothing disrupts nothing.
fn needs_no_budget(pod: &Value) -> bool {
    let ends = metadata::metadata(pod).contains_key("deletionTimestamp");
    ends || matches!(phase(pod), "Succeeded" | "Failed" | "Pending")
}

fn may_become_ready(pod: &Value) -> bool {
    phase(pod) == "Pending" && !metadata::metadata(pod).contains_key("deletionTimestamp")
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Takes one disruption from the pod's budget, if it has one and needs to.
async fn spend(call: &Call<'_>, pod: &Value, dry_run: bool) -> ApiResult<Permit> {
    let registry = call.engine.registry();
    let Some(served) = registry.find_resource("policy", "poddisruptionbudgets") else { return Ok(Permit::Granted) };
    let names = budgets(call, pod).await?;
    let name = match names.as_slice() {
        [] => return Ok(Permit::Granted),
        [name] => name,
        _ => return Err(several_budgets()),
    };
    for _ in 0..WRITE_RETRIES_MAX {
        let Some(budget) = call.engine.read(served, call.namespace(), name).await? else { return Ok(Permit::Granted) };
        if !is_ready(pod) && may_evict_unready(&budget.value) {
            return Ok(Permit::AsItIs(name.clone()));
        }
        let new = decremented(name, &budget.value, metadata::text(pod, "name"))?;
        if dry_run || replaced(call, served, name, &budget, &new).await? {
            return Ok(Permit::Granted);
        }
    }
    let mut status =
        Status::failure(Reason::Timeout, format!("couldn't update PodDisruptionBudget {name:?} due to conflicts"));
    status.details.get_or_insert_default().retry_after_seconds = RETRY_SECONDS;
    Err(status)
}

/// Which of several budgets to ask is not said anywhere: a plain 500 without a reason.
fn several_budgets() -> Box<Status> {
    let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    let mut status = Status::failure(Reason::InternalError, why);
    status.reason.clear();
    status
}

async fn replaced(call: &Call<'_>, served: &Served, name: &str, old: &Stored, new: &Value) -> ApiResult<bool> {
    Ok(call.engine.replace(served, (call.namespace(), name), old, new).await?.is_some())
}

async fn budgets(call: &Call<'_>, pod: &Value) -> ApiResult<Vec<String>> {
    call.engine.cache.wait_current().await?;
    let snapshot = call.engine.snapshot("policy", "poddisruptionbudgets");
    let empty = Value::Object(serde_json::Map::new());
    let labels = metadata::metadata(pod).get("labels").unwrap_or(&empty);
    let mut names = Vec::new();
    for (key, object) in snapshot.objects.iter() {
        let (namespace, name) = crate::cache::split_key(key);
        if namespace != call.namespace() {
            continue;
        }
        let budget = object.value()?;
        let selector = budget.pointer("/spec/selector").unwrap_or(&Value::Null);
        let selector = meta::labels::Selector::from_label_selector(selector);
        if selector.is_some_and(|selector| selector.matches(labels)) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn number(budget: &Value, path: &str) -> i64 {
    budget.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

/// Pods that are not ready do not count towards health, so their loss may be free.
fn may_evict_unready(budget: &Value) -> bool {
    let policy =
        budget.pointer("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str).unwrap_or("IfHealthyBudget");
    let (healthy, desired) = (number(budget, "/status/currentHealthy"), number(budget, "/status/desiredHealthy"));
    policy == "AlwaysAllow" || (healthy >= desired && desired > 0)
}

fn refused(message: String, retry_after: u32) -> Box<Status> {
    let text = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::too_many_requests(text, retry_after);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() });
    }
    status
}

fn still_processed(name: &str) -> Box<Status> {
    refused(format!("The disruption budget {name} is still being processed by the server."), RETRY_SECONDS)
}

fn decremented(name: &str, budget: &Value, pod: &str) -> ApiResult<Value> {
    if number(budget, "/status/observedGeneration") < number(budget, "/metadata/generation") {
        return Err(still_processed(name));
    }
    let allowed = number(budget, "/status/disruptionsAllowed");
    let resource = GroupResource::new("policy", "poddisruptionbudget");
    if allowed < 0 {
        return Err(Status::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    if disrupted > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&resource, name, why));
    }
    if allowed == 0 {
        return Err(refused(why_none_allowed(name, budget), 0));
    }
    let mut new = budget.clone();
    let status = &mut new["status"];
    status["disruptionsAllowed"] = (allowed - 1).into();
    if !status["disruptedPods"].is_object() {
        status["disruptedPods"] = json!({});
    }
    status["disruptedPods"][pod] = metadata::now().into();
    if allowed == 1 {
        let generation = status["observedGeneration"].clone();
        let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
            "message": "", "observedGeneration": generation});
        set_condition(&mut new, condition);
        for condition in new["status"]["conditions"].as_array_mut().into_iter().flatten() {
            // A pod's conditions have this field, a budget's have not.
            condition.as_object_mut().map(|fields| fields.remove("lastProbeTime"));
        }
    }
    Ok(new)
}

fn why_none_allowed(name: &str, budget: &Value) -> String {
    let conditions = budget.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let condition = conditions.into_iter().find(|condition| condition["type"] == "DisruptionAllowed");
    let text = |field: &str| condition.and_then(|condition| condition[field].as_str()).unwrap_or("");
    let told = text("status") == "False" && !text("message").is_empty();
    let (desired, healthy) = (number(budget, "/status/desiredHealthy"), number(budget, "/status/currentHealthy"));
    let none = format!("The disruption budget {name} does not allow evicting pods currently");
    if told && text("reason") == "SyncFailed" {
        format!("{none} because it failed sync: {}", text("message"))
    } else if healthy <= desired {
        format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
    } else if told {
        format!("{none} ({}): {}", text("reason"), text("message"))
    } else {
        none
    }
}
