//! Server-side apply: a configuration is merged by the schema, and its fields become the manager's.

use bytes::Bytes;
use http::{Response, StatusCode};
use meta::{ApiResult, FieldError, FieldPath, Reason, Status};
use objects::Manager;
use schema::{DecodeError, FieldValidation, Format, Type};
use serde_json::Value;

use super::update::{Part, write};
use super::{create, metadata};
use crate::body::Body;
use crate::call::{Call, WriteOptions};
use crate::codec::{self, Expected};
use crate::registry::Served;
use crate::warnings;

/// What marks a patch as an apply; JSON is YAML too.
pub const MEDIA_TYPE: &str = "application/apply-patch+yaml";

pub async fn apply(call: &Call<'_>, options: &WriteOptions, body: &Bytes) -> ApiResult<Response<Body>> {
    if options.field_manager.is_empty() {
        let error = FieldError::required(&FieldPath::new("fieldManager"), "is required for apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
    }
    let served = call.served;
    let any = schema::Type::new(schema::Shape::Any);
    let schema = Expected::from(served).schema().unwrap_or(any);
    let failed = |error: DecodeError| error.status(&served.kind.version, &served.kind.kind, body);
    let any = schema::Type::any();
    let raw = schema::decode_partial(&any, body, Format::Yaml, FieldValidation::Warn).map_err(failed)?;
    check(call, &raw.value)?;
    check_declared(served, &schema, &raw.value)?;
    let duplicates = match options.field_validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Strict if !raw.warnings.is_empty() => return Err(strict(raw.warnings)),
        _ => raw.warnings,
    };
    // A custom resource is checked as a whole after the merge.
    let form = if served.custom.is_some() { &any } else { &*schema };
    let config = schema::conform_partial(form, raw.value, FieldValidation::Ignore).map_err(failed)?.value;
    let api_version = served.api_version();
    let manager =
        Manager { name: &options.field_manager, api_version: &api_version, subresource: &call.info.subresource };
    let merge = |live: Option<&Value>| {
        objects::apply(&schema, live, &config, &manager, &metadata::now(), options.force)
            .map_err(|conflicts| objects::conflict_status(&conflicts))
    };
    let exists = call.engine.read(served, call.namespace(), &call.info.name).await?.is_some();
    let (code, value) = if exists || !call.info.subresource.is_empty() {
        let part = Part::of(call)?;
        let check = |value| Ok(codec::check(served, value, options.field_validation)?.value);
        let options = &WriteOptions { applied: true, ..options.clone() };
        let written = write(call, options, part, false, |old| {
            let mut merged = merge(Some(old))?;
            if metadata::metadata(&config).get("resourceVersion").is_none()
                && let Some(metadata) = metadata::metadata_mut(&mut merged)
            {
                metadata.remove("resourceVersion");
            }
            check(merged)
        });
        (StatusCode::OK, written.await?)
    } else {
        call.authorize_create().await?;
        let object = codec::check(served, merge(None)?, options.field_validation)?.value;
        let options = WriteOptions { applied: true, ..options.clone() };
        (StatusCode::CREATED, create::insert(call, object, &options).await?)
    };
    let mut response = call.output.object(served, call.query, code, &value)?;
    let mut all = duplicates;
    all.extend((served.kind.warnings)(&value));
    warnings::attach(&mut response, &all);
    Ok(response)
}

/// Keys that stand twice in a configuration.
fn strict(duplicates: Vec<String>) -> Box<Status> {
    let why = match DecodeError::strict(duplicates) {
        DecodeError::Strict(issues) => issues.join(", "),
        other => other.to_string(),
    };
    Status::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {why}"))
}

/// The schema must declare every field: nobody could own the others.
fn check_declared(served: &Served, schema: &Type, config: &Value) -> ApiResult<()> {
    let unknown = objects::undeclared(schema, config);
    let why = |path: &String| format!("{path}: field not declared in schema");
    let why = match unknown.as_slice() {
        [] => return Ok(()),
        [one] => why(one),
        many => format!("errors:\n  {}", many.iter().map(why).collect::<Vec<_>>().join("\n  ")),
    };
    let gvk = served.kind.gvk();
    let (namespace, name) = (metadata::text(config, "namespace"), metadata::text(config, "name"));
    let of = format!("{namespace}/{name}; {}, Kind={}", gvk.api_version(), gvk.kind);
    let mut status =
        Status::failure(Reason::InternalError, format!("failed to create typed patch object ({of}): {why}"));
    status.reason.clear();
    Err(status)
}

/// What a configuration must say, and what it may not.
fn check(call: &Call<'_>, config: &Value) -> ApiResult<()> {
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (call.served.api_version(), call.served.kind.kind.as_ref());
    if text("apiVersion") != api_version || text("kind") != kind {
        return Err(Status::bad_request(format!(
            "the object to apply must be of apiVersion {api_version:?} and kind {kind:?}"
        )));
    }
    if metadata::metadata(config).get("managedFields").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let name = metadata::text(config, "name");
    if !name.is_empty() && name != call.info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    Ok(())
}
