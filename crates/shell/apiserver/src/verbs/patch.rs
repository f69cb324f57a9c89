//! patch: JSON patch, merge patch and strategic merge patch, tried again when another writer was faster.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use meta::{ApiResult, Reason, Status};
use serde_json::Value;

use super::update::{Part, write};
use crate::body::{self, Body};
use crate::call::{Call, WriteOptions};
use crate::codec;
use crate::warnings;

/// A patch by its media type.
pub enum Patch {
    Json(Bytes),
    Merge(Bytes),
    Strategic(Bytes),
}

pub async fn patch(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let (parts, body) = request.into_parts();
    let options = call.write_options()?;
    let bytes = body::read(body).await?;
    if codec::media_type(&parts.headers) == super::apply::MEDIA_TYPE {
        return super::apply::apply(call, &options, &bytes).await;
    }
    let patch = decode(call, &parts.headers, bytes)?;
    let part = Part::of(call)?;
    let mut all_warnings = Vec::new();
    // Every result carries a version, the one it was read at; a patch that names one itself fails as it is applied again.
    let patched = write(call, &options, part, false, |old| {
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

pub fn decode(call: &Call<'_>, headers: &HeaderMap, bytes: Bytes) -> ApiResult<Patch> {
    match codec::media_type(headers).as_str() {
        "application/json-patch+json" => Ok(Patch::Json(bytes)),
        "application/merge-patch+json" => Ok(Patch::Merge(bytes)),
        "application/strategic-merge-patch+json" if call.served.custom.is_none() => Ok(Patch::Strategic(bytes)),
        other => {
            let strategic = if call.served.custom.is_none() { ", application/strategic-merge-patch+json" } else { "" };
            let message = format!(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json{strategic}, application/apply-patch+yaml (got {other:?})"
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
    let patched = match patch {
        Patch::Json(patch) => objects::json_patch(&mut value, patch),
        Patch::Merge(patch) => objects::merge_patch(&mut value, patch),
        Patch::Strategic(patch) => {
            let schema =
                expected.schema().ok_or_else(|| codec::unsupported("application/strategic-merge-patch+json"))?;
            objects::strategic_merge_patch(&schema, &mut value, patch)
        }
    };
    patched.map_err(|error| error.status())?;
    codec::check(expected, value, options.field_validation)
}
