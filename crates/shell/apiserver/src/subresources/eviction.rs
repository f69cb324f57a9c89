//! `pods/eviction`: a deletion that disruption budgets may refuse.

use http::Response;
use meta::{ApiResult, Cause, GroupResource, Status};
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

pub async fn evict(call: &Call<'_>, eviction: &Value, options: &WriteOptions) -> ApiResult<Response<Body>> {
    super::check_name(eviction, &call.info.name)?;
    let given = eviction.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
    let mut deletion: DeleteOptions = serde_json::from_value(given)
        .map_err(|error| Status::bad_request(format!("error decoding deleteOptions: {error}")))?;
    if options.dry_run {
        deletion.dry_run = vec!["All".to_owned()];
    }
    let dry_run = deletion.is_dry_run();
    let pod = call.engine.read_existing(call.served, call.namespace(), &call.info.name).await?;
    if !needs_no_budget(&pod.value) {
        spend(call, &pod.value, dry_run).await?;
    }
    if !dry_run {
        explain(call).await?;
    }
    delete_one(call, &deletion).await?;
    super::done(call)
}

/// What runs nothing disrupts nothing.
fn needs_no_budget(pod: &Value) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || metadata::metadata(pod).contains_key("deletionTimestamp")
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Takes one disruption from the pod's budget, if it has one.
async fn spend(call: &Call<'_>, pod: &Value, dry_run: bool) -> ApiResult<()> {
    let registry = call.engine.registry();
    let Some(served) = registry.find_resource("policy", "poddisruptionbudgets") else { return Ok(()) };
    let names = budgets(call, pod).await?;
    let name = match names.as_slice() {
        [] => return Ok(()),
        [name] => name,
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    for _ in 0..WRITE_RETRIES_MAX {
        let Some(budget) = call.engine.read(served, call.namespace(), name).await? else { return Ok(()) };
        if !is_ready(pod) && may_evict_unready(&budget.value) {
            return Ok(());
        }
        let new = decremented(name, &budget, metadata::text(pod, "name"))?;
        if dry_run || replaced(call, served, name, &budget, &new).await? {
            return Ok(());
        }
    }
    Err(Status::too_many_requests("the disruption budget is busy; try again", 10))
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

fn decremented(name: &str, budget: &Stored, pod: &str) -> ApiResult<Value> {
    let value = &budget.value;
    let refused = |message: String| {
        let text = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut status = Status::too_many_requests(text, 0);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() });
        }
        status
    };
    if number(value, "/status/observedGeneration") < number(value, "/metadata/generation") {
        let mut status = refused(format!("The disruption budget {name} is still being processed by the server."));
        if let Some(details) = &mut status.details {
            details.retry_after_seconds = 10;
        }
        return Err(status);
    }
    let allowed = number(value, "/status/disruptionsAllowed");
    let resource = GroupResource::new("policy", "poddisruptionbudgets");
    if allowed < 0 {
        return Err(Status::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    let disrupted = value.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    if disrupted > DISRUPTED_PODS_MAX {
        return Err(Status::forbidden(
            &resource,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let (desired, healthy) = (number(value, "/status/desiredHealthy"), number(value, "/status/currentHealthy"));
        return Err(refused(format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        )));
    }
    let mut new = value.clone();
    new["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if !new["status"]["disruptedPods"].is_object() {
        new["status"]["disruptedPods"] = json!({});
    }
    new["status"]["disruptedPods"][pod] = metadata::now().into();
    Ok(new)
}

/// Says in the pod's conditions why it goes.
async fn explain(call: &Call<'_>) -> ApiResult<()> {
    let key = (call.namespace(), call.info.name.as_str());
    for _ in 0..WRITE_RETRIES_MAX {
        let old = call.engine.read_existing(call.served, key.0, key.1).await?;
        let mut new = old.value.clone();
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting"});
        set_condition(&mut new, condition);
        if call.engine.replace(call.served, key, &old, &new).await?.is_some() {
            return Ok(());
        }
    }
    Err(Status::modified(&call.served.resource(), key.1))
}
