//! `scale`: the replica count of a workload, in a shape that autoscalers know for every kind.

use http::{Request, Response, StatusCode};
use meta::{ApiResult, FieldError, FieldPath, Gvk, Status};
use serde_json::{Map, Value, json};

use crate::body::{self, Body};
use crate::call::Call;
use crate::codec;
use crate::convert;
use crate::registry::Served;
use crate::verbs::update::Part;
use crate::verbs::{metadata, patch as patches, update as updates};

fn gvk() -> Gvk {
    Gvk::new("autoscaling", "v1", "Scale")
}

pub async fn get(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let stored = call.engine.read_existing(call.served, call.namespace(), &call.info.name).await?;
    let object = convert::view(&call.engine.cache, call.served, &stored.value).await?;
    call.output.value(StatusCode::OK, &view(call.served, &object))
}

pub async fn update(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let options = call.write_options()?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(body).await?;
    let scale = codec::decode(gvk(), &parts.headers, &bytes, options.field_validation)?.value;
    super::check_name(&scale, &call.info.name)?;
    let new = updates::write(call, &options, Part::Main, true, |old| scaled(call.served, old, &scale)).await?;
    call.output.value(StatusCode::OK, &view(call.served, &new))
}

pub async fn patch(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let options = call.write_options()?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(body).await?;
    let patch = patches::decode(call, &parts.headers, bytes)?;
    let new = updates::write(call, &options, Part::Main, false, |old| {
        let scale = patches::apply(gvk(), &patch, &view(call.served, old), &options)?;
        scaled(call.served, old, &scale.value)
    });
    let new = new.await?;
    call.output.value(StatusCode::OK, &view(call.served, &new))
}

/// Where a kind keeps its replicas and its selector.
fn paths(served: &Served) -> (String, String, Option<String>) {
    match served.custom.as_ref().and_then(|custom| custom.scale.clone()) {
        Some(scale) => (scale.spec_replicas, scale.status_replicas, scale.selector),
        None => ("/spec/replicas".to_owned(), "/status/replicas".to_owned(), None),
    }
}

/// A workload as a Scale.
pub fn view(served: &Served, object: &Value) -> Value {
    let (spec, status, selector) = paths(served);
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let mut meta = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata::metadata(object).get(field) {
            meta.insert(field.to_owned(), value.clone());
        }
    }
    let selector = match selector {
        Some(path) => object.pointer(&path).and_then(Value::as_str).unwrap_or("").to_owned(),
        None => selector_text(object.pointer("/spec/selector").unwrap_or(&Value::Null)),
    };
    let mut shown = Map::new();
    shown.insert("replicas".to_owned(), number(&status).into());
    if !selector.is_empty() {
        shown.insert("selector".to_owned(), selector.into());
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
        "spec": {"replicas": number(&spec)}, "status": shown})
}

/// A label selector as text; a ReplicationController's is a plain map.
fn selector_text(selector: &Value) -> String {
    let has_form = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = if has_form { selector.get("matchLabels").unwrap_or(&Value::Null) } else { selector };
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let mut parts: Vec<String> =
        labels.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))).collect();
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = text(&expression["key"]);
        let values = expression["values"].as_array().map(|list| list.iter().map(text).collect::<Vec<_>>().join(","));
        let values = values.unwrap_or_default();
        parts.push(match expression["operator"].as_str().unwrap_or("") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key,
        });
    }
    parts.join(",")
}

/// The workload with the replicas of a Scale.
pub fn scaled(served: &Served, old: &Value, scale: &Value) -> ApiResult<Value> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    let name = metadata::text(old, "name");
    if replicas < 0 {
        let field = FieldPath::new("spec").child("replicas");
        let error = FieldError::invalid(&field, replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", name, &[error]));
    }
    let mut new = old.clone();
    let version = metadata::metadata(scale).get("resourceVersion").cloned();
    let uid = metadata::metadata(scale).get("uid").cloned();
    if let Some(metadata) = metadata::metadata_mut(&mut new) {
        for (field, value) in [("resourceVersion", version), ("uid", uid)] {
            match value {
                Some(value) => drop(metadata.insert(field.to_owned(), value)),
                None => drop(metadata.remove(field)),
            }
        }
    }
    let (path, _, _) = paths(served);
    set(&mut new, &path, replicas.into());
    Ok(new)
}

fn set(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for part in path.trim_start_matches('/').split('/') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Some(fields) = at.as_object_mut() else { return };
        at = fields.entry(part).or_insert(Value::Null);
    }
    *at = value;
}
