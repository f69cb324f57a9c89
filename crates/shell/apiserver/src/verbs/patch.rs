//! patch: JSON patch, merge patch and strategic merge patch, tried again when another writer was faster.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use meta::{ApiResult, Reason, Status};
use serde_json::Value;

use super::update::{Part, write};
use crate::body::{self, Body};
use crate::call::{Call, WriteOptions};
use crate::codec;
use crate::limits::JSON_PATCH_OPERATIONS_MAX;
use crate::warnings;

/// A decoded patch.
pub enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

pub async fn patch(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let (parts, body) = request.into_parts();
    let options = call.write_options()?;
    let bytes = body::read(body).await?;
    let patch = decode(call, &parts.headers, &bytes)?;
    let part = Part::of(call)?;
    let mut all_warnings = Vec::new();
    let patched = write(call, &options, part, true, |old| {
        let decoded = apply(call.served, &patch, old, &options)?;
        all_warnings = decoded.warnings;
        Ok(decoded.value)
    });
    let patched = patched.await?;
    all_warnings.extend((call.served.kind.warnings)(&patched));
    let mut response = call.output.object(call.served, call.query, StatusCode::OK, &patched)?;
    warnings::attach(&mut response, &all_warnings);
    Ok(response)
}

pub fn decode(call: &Call<'_>, headers: &HeaderMap, bytes: &Bytes) -> ApiResult<Patch> {
    let json = || {
        serde_json::from_slice::<Value>(bytes)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
    };
    match codec::media_type(headers).as_str() {
        "application/json-patch+json" => {
            let operations = json()?;
            if operations.as_array().is_some_and(|list| list.len() > JSON_PATCH_OPERATIONS_MAX) {
                let message = format!("The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}");
                return Err(Status::failure(Reason::RequestEntityTooLarge, message));
            }
            serde_json::from_value(operations)
                .map(Patch::Json)
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
        }
        "application/merge-patch+json" => json().map(Patch::Merge),
        "application/strategic-merge-patch+json" if call.served.custom.is_none() => json().map(Patch::Strategic),
        other => {
            let message = format!(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json (got {other:?})"
            );
            Err(Status::failure(Reason::UnsupportedMediaType, message))
        }
    }
}

/// The object after the patch, decoded again like any body.
pub fn apply<'a>(
    expected: impl Into<codec::Expected<'a>>,
    patch: &Patch,
    old: &Value,
    options: &WriteOptions,
) -> ApiResult<schema::Decoded> {
    let expected = expected.into();
    let mut value = old.clone();
    match patch {
        Patch::Json(patch) => json_patch::patch(&mut value, patch).map_err(|error| {
            Status::failure(
                Reason::Invalid,
                format!("the server rejected our request due to an error in our request: {error}"),
            )
        })?,
        Patch::Merge(patch) => json_patch::merge(&mut value, patch),
        Patch::Strategic(patch) => strategic(&expected, &mut value, patch)?,
    }
    codec::check(expected, value, options.field_validation)
}

fn strategic(_expected: &codec::Expected<'_>, value: &mut Value, patch: &Value) -> ApiResult<()> {
    json_patch::merge(value, patch);
    Ok(())
}
