//! update: replace an object that is still as the client knows it.

use http::{Request, Response, StatusCode};
use meta::{ApiResult, Status};
use serde_json::Value;

use super::create::admission;
use super::{create, delete, managers, metadata, metadata_rules};
use crate::admission::chain;
use crate::body::{self, Body};
use crate::call::{Call, WriteOptions};
use crate::engine::{Stored, set_revision};
use crate::limits::WRITE_RETRIES_MAX;
use crate::registry::Served;
use crate::route::method_not_allowed;
use crate::subresources::scale;
use crate::{codec, convert, subresources, warnings};

/// Which part of the object a write may change.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Everything but the status, where the kind has one.
    Main,
    Status,
    /// What a subresource's own code takes from the given object: old, given.
    Taken(fn(&Value, &Value) -> ApiResult<Value>),
}

impl Part {
    /// The part that the request's subresource names.
    pub fn of(call: &Call<'_>) -> ApiResult<Self> {
        match call.info.subresource.as_str() {
            "" => Ok(Self::Main),
            "status" => Ok(Self::Status),
            other => subresources::taken(other).map(Self::Taken).ok_or_else(method_not_allowed),
        }
    }
}

pub async fn update(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let (parts, body) = request.into_parts();
    let options = call.write_options()?;
    let bytes = body::read(body).await?;
    let decoded = codec::decode(call.served, &parts.headers, &bytes, options.field_validation)?;
    let part = Part::of(call)?;
    let mut all_warnings = decoded.warnings;
    let creates = matches!(part, Part::Main) && metadata_rules::is_created_by_update(call.served);
    let (code, updated) = if creates && is_missing(call).await? {
        call.authorize_create().await?;
        (StatusCode::CREATED, create::insert(call, decoded.value, &options).await?)
    } else {
        let write = write(call, &options, part, true, |_| {
            require_version(call, &decoded.value)?;
            Ok(decoded.value.clone())
        });
        (StatusCode::OK, write.await?)
    };
    all_warnings.extend((call.served.kind.warnings)(&updated));
    let mut response = call.output.object(call.served, call.query, code, &updated)?;
    warnings::attach(&mut response, &all_warnings);
    Ok(response)
}

async fn is_missing(call: &Call<'_>) -> ApiResult<bool> {
    Ok(call.engine.read(call.served, call.namespace(), &call.info.name).await?.is_none())
}

/// Some kinds may not be replaced blindly.
fn require_version(call: &Call<'_>, value: &Value) -> ApiResult<()> {
    let Some(error) = metadata_rules::validate_version(call.served, value) else { return Ok(()) };
    let kind = &call.served.kind;
    Err(Status::invalid(&kind.group, &kind.kind, &call.info.name, &[error]))
}

/// Reads, changes and stores until nobody else was faster. `change` sees the current object in the served version and
/// answers the wanted one. With `once`, a client that names a version gets the conflict instead of another attempt.
pub async fn write(
    call: &Call<'_>,
    options: &WriteOptions,
    part: Part,
    once: bool,
    mut change: impl FnMut(&Value) -> ApiResult<Value>,
) -> ApiResult<Value> {
    let name = call.info.name.as_str();
    for _ in 0..WRITE_RETRIES_MAX {
        let old = call.engine.read_existing(call.served, call.namespace(), name).await?;
        let view = convert::view(&call.engine.cache, call.served, &old.value).await?;
        let new = change(&view)?;
        let named_version = !metadata::text(&new, "resourceVersion").is_empty();
        if let Some(written) = attempt(call, options, part, &old, &view, new).await? {
            return Ok(written);
        }
        if once && named_version {
            break;
        }
    }
    Err(Status::modified(&call.served.resource(), name))
}

/// One try; `None` if the object changed in between.
async fn attempt(
    call: &Call<'_>,
    options: &WriteOptions,
    part: Part,
    stored: &Stored,
    old: &Value,
    mut new: Value,
) -> ApiResult<Option<Value>> {
    let (served, name) = (call.served, call.info.name.as_str());
    check_identity(call, old, &mut new)?;
    served.default(&mut new);
    match part {
        Part::Main => keep_status(call, &mut new, old),
        Part::Status => new = only_status(served, new, old),
        Part::Taken(take) => new = take(old, &new)?,
    }
    // Whoever judges a write of the scale sees a Scale.
    let scales = (call.info.subresource == "scale").then(|| (scale::view(served, &new), scale::view(served, old)));
    let request = admission(call, name, options, Some(scales.as_ref().map_or(old, |(_, old)| old)));
    let shown = match &scales {
        None => {
            chain::mutate(&request, &mut new).await?;
            None
        }
        Some((scale, _)) => {
            let mut scale = scale.clone();
            chain::mutate(&request, &mut scale).await?;
            new = scale::scaled(served, &new, &scale)?;
            Some(scale)
        }
    };
    if matches!(part, Part::Main) {
        (served.kind.prepare_update)(&mut new, old);
    }
    let mut errors = metadata::carry_over(served, &mut new, old);
    errors.extend(metadata_rules::validate(served, &new));
    match part {
        Part::Main => {
            errors.extend(served.validate_change(&new, old));
        }
        Part::Status => errors.extend(served.validate_status(&new, old)),
        Part::Taken(_) => errors.extend((served.kind.validate)(&new)),
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&served.kind.group, &served.kind.kind, name, &errors));
    }
    chain::validate(&request, Some(shown.as_ref().unwrap_or(&new))).await?;
    if !options.applied {
        managers::record(call, options, Some(old), &mut new);
    }
    if options.dry_run {
        set_revision(&mut new, stored.revision);
        return Ok(Some(new));
    }
    if delete::is_finished(served, &new, old) {
        let removed = call.engine.remove(served, (call.namespace(), name), stored.revision).await?;
        return Ok(removed.then_some(new));
    }
    let mut bytes = new.clone();
    convert::to_stored(&call.engine.cache, served, &mut bytes).await?;
    let Some(revision) = call.engine.replace(served, (call.namespace(), name), stored, &bytes).await? else {
        return Ok(None);
    };
    set_revision(&mut new, revision);
    for plugin in &call.engine.config.admission {
        plugin.committed(&request, &new).await;
    }
    Ok(Some(new))
}

/// Name, namespace, uid and version of the new object must be those of the old one, where it states them.
fn check_identity(call: &Call<'_>, old: &Value, new: &mut Value) -> ApiResult<()> {
    let (served, name) = (call.served, call.info.name.as_str());
    metadata::settle_namespace(served, call.namespace(), new)?;
    match metadata::text(new, "name") {
        "" => {
            if let Some(metadata) = metadata::metadata_mut(new) {
                metadata.insert("name".to_owned(), name.into());
            }
        }
        found if found == name => {}
        found => {
            return Err(Status::bad_request(format!(
                "the name of the object ({found}) does not match the name on the URL ({name})"
            )));
        }
    }
    let (uid, own_uid) = (metadata::text(new, "uid"), metadata::text(old, "uid"));
    if !uid.is_empty() && uid != own_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own_uid}");
        return Err(Status::conflict(&served.resource(), name, &why));
    }
    let version = metadata::text(new, "resourceVersion");
    if !version.is_empty() && version != "0" && version != metadata::text(old, "resourceVersion") {
        return Err(Status::modified(&served.resource(), name));
    }
    Ok(())
}

/// A write to the main resource cannot touch the status.
fn keep_status(call: &Call<'_>, new: &mut Value, old: &Value) {
    if !call.served.kind.has_status {
        return;
    }
    let Some(fields) = new.as_object_mut() else { return };
    match old.get("status") {
        Some(status) => drop(fields.insert("status".to_owned(), status.clone())),
        None => drop(fields.remove("status")),
    }
}

/// Metadata that writers of a status may change beside it.
const STATUS_METADATA: [&str; 4] = ["annotations", "labels", "finalizers", "managedFields"];

/// A write to the status touches nothing else but a little metadata.
fn only_status(served: &Served, new: Value, old: &Value) -> Value {
    let mut result = old.clone();
    let (Some(fields), Some(given)) = (result.as_object_mut(), new.as_object()) else { return result };
    match given.get("status") {
        Some(status) => drop(fields.insert("status".to_owned(), status.clone())),
        None => drop(fields.remove("status")),
    }
    if served.custom.is_none() {
        take_metadata(&mut result, &new);
    } else {
        // The status of a custom object is written alone.
        take_fields(&mut result, &new, &["managedFields"]);
    }
    result
}

/// Takes the metadata that a write through a subresource may change.
pub fn take_metadata(result: &mut Value, given: &Value) {
    take_fields(result, given, &STATUS_METADATA);
}

fn take_fields(result: &mut Value, given: &Value, fields: &[&str]) {
    let given = metadata::metadata(given);
    let Some(metadata) = metadata::metadata_mut(result) else { return };
    for field in fields {
        match given.get(*field) {
            Some(value) => drop(metadata.insert((*field).to_owned(), value.clone())),
            None => drop(metadata.remove(*field)),
        }
    }
}
