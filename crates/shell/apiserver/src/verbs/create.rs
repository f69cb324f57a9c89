//! create: decode, default, admit, validate, store.

use http::{Request, Response, StatusCode};
use meta::{ApiResult, Cause, Status};
use serde_json::Value;

use super::{managers, metadata, metadata_rules};
use crate::admission::{AdmissionRequest, Operation, chain};
use crate::body::{self, Body};
use crate::call::{Call, WriteOptions};
use crate::codec;
use crate::convert;
use crate::engine::set_revision;
use crate::limits::NAME_GENERATION_RETRIES_MAX;
use crate::{subresources, warnings};

pub async fn create(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let (parts, body) = request.into_parts();
    let options = call.write_options()?;
    let bytes = body::read(body).await?;
    let decoded = codec::decode(call.served, &parts.headers, &bytes, options.field_validation)?;
    if let Some(handler) = call.engine.virtual_resource(call.info) {
        let mut body = decoded.value;
        subresources::admit(call, &mut body, &options).await?;
        let answer = handler.create(call.engine, &call.user, call.info, body).await?;
        return call.output.object(call.served, call.query, StatusCode::CREATED, &answer);
    }
    if call.served.kind.verbs == kinds::Verbs::CreateOnly {
        return subresources::create_only(call, decoded.value, &options).await;
    }
    let mut all_warnings = decoded.warnings;
    let created = insert(call, decoded.value, &options).await?;
    all_warnings.extend((call.served.kind.warnings)(&created));
    let mut response = call.output.object(call.served, call.query, StatusCode::CREATED, &created)?;
    warnings::attach(&mut response, &all_warnings);
    Ok(response)
}

/// Everything after decoding; the answer is in the served version with its resourceVersion.
pub async fn insert(call: &Call<'_>, mut value: Value, options: &WriteOptions) -> ApiResult<Value> {
    let served = call.served;
    if served.custom.as_ref().is_some_and(|custom| custom.terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::failure(meta::Reason::MethodNotAllowed, why));
    }
    if !metadata::text(&value, "resourceVersion").is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    metadata::settle_namespace(served, call.namespace(), &mut value)?;
    if !call.info.name.is_empty() && metadata::text(&value, "name") != call.info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            metadata::text(&value, "name"),
            call.info.name
        )));
    }
    let generated = metadata::text(&value, "name").is_empty() && metadata::generate_name(&mut value);
    require_namespace(call, &value).await?;
    served.default(&mut value);
    let name = metadata::text(&value, "name").to_owned();
    let request = admission(call, &name, options, None);
    chain::mutate(&request, &mut value).await?;
    metadata::start(served, &mut value);
    if served.kind.has_status
        && let Some(fields) = value.as_object_mut()
    {
        fields.remove("status");
    }
    (served.kind.prepare_create)(&mut value);
    served.default(&mut value);
    let mut errors = metadata_rules::validate(served, &value);
    errors.extend(served.validate(&value));
    if !errors.is_empty() {
        return Err(Status::invalid(&served.kind.group, &served.kind.kind, &name, &errors));
    }
    chain::validate(&request, Some(&value)).await?;
    if !options.applied {
        managers::record(call, options, None, &mut value);
    }
    let value = store(call, value, options, generated).await?;
    if !options.dry_run {
        for plugin in &call.engine.config.admission {
            plugin.committed(&request, &value).await;
        }
    }
    Ok(value)
}

async fn store(call: &Call<'_>, mut value: Value, options: &WriteOptions, generated: bool) -> ApiResult<Value> {
    let served = call.served;
    for _ in 0..NAME_GENERATION_RETRIES_MAX {
        let name = metadata::text(&value, "name").to_owned();
        if options.dry_run {
            return match call.engine.read(served, call.namespace(), &name).await? {
                Some(_) => Err(Status::already_exists(&served.resource(), &name)),
                None => Ok(value),
            };
        }
        let mut stored = value.clone();
        convert::to_stored(&call.engine.cache, served, &mut stored).await?;
        if let Some(revision) = call.engine.insert(served, call.namespace(), &name, &stored).await? {
            set_revision(&mut value, revision);
            return Ok(value);
        }
        if !generated {
            return Err(Status::already_exists(&served.resource(), &name));
        }
        metadata::generate_name(&mut value);
    }
    let name = metadata::text(&value, "name");
    let mut status = Status::already_exists(&served.resource(), name);
    if let Some(details) = &mut status.details {
        details.retry_after_seconds = 1;
    }
    Err(status)
}

pub fn admission<'a>(
    call: &'a Call<'_>,
    name: &'a str,
    options: &'a WriteOptions,
    old: Option<&'a Value>,
) -> AdmissionRequest<'a> {
    AdmissionRequest {
        engine: call.engine,
        operation: if old.is_some() { Operation::Update } else { Operation::Create },
        served: call.served,
        subresource: &call.info.subresource,
        namespace: call.namespace(),
        name,
        user: &call.user,
        dry_run: options.dry_run,
        old,
        options,
        deletion: None,
    }
}

/// Nothing is created in a namespace that does not exist or is going away.
async fn require_namespace(call: &Call<'_>, value: &Value) -> ApiResult<()> {
    if !call.served.is_namespaced() {
        return Ok(());
    }
    let name = call.namespace();
    let resource = meta::GroupResource::new("", "namespaces");
    let mut found = call.engine.cached("", "namespaces", "", name);
    if found.is_none() {
        call.engine.cache.wait_current().await?;
        found = call.engine.cached("", "namespaces", "", name);
    }
    let namespace = found.ok_or_else(|| Status::not_found(&resource, name))?.value()?;
    if metadata::metadata(&namespace).contains_key("deletionTimestamp") {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut status = Status::forbidden(&call.served.resource(), metadata::text(value, "name"), &why);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        return Err(status);
    }
    Ok(())
}
