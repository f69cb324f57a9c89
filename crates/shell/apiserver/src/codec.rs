//! From a request body to an object of a kind.

use bytes::Bytes;
use http::HeaderMap;
use meta::{ApiResult, Gvk, Reason, Status};
use schema::{Decoded, FieldValidation, Format, TypeRef};
use serde_json::Value;

use crate::custom::CustomType;
use crate::protobuf;
use crate::registry::Served;

/// The kind that a body must be of.
pub struct Expected<'a> {
    gvk: Gvk,
    custom: Option<&'a CustomType>,
}

impl<'a> From<&'a Served> for Expected<'a> {
    fn from(served: &'a Served) -> Self {
        Self { gvk: served.kind.gvk(), custom: served.custom.as_deref() }
    }
}

impl From<Gvk> for Expected<'_> {
    fn from(gvk: Gvk) -> Self {
        Self { gvk, custom: None }
    }
}

impl Expected<'_> {
    pub fn schema(&self) -> Option<TypeRef> {
        match self.custom {
            Some(custom) => custom.schema.clone(),
            None => schema::builtin().type_of(&self.gvk).cloned(),
        }
    }
}

/// The media type of a request body without its parameters.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

pub fn format(headers: &HeaderMap) -> ApiResult<Format> {
    match media_type(headers).as_str() {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        other => Err(unsupported(other)),
    }
}

pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A protobuf body as JSON that says what it is.
fn from_protobuf(schema: Option<TypeRef>, body: &Bytes) -> ApiResult<Value> {
    let failed = |error: protobuf::ProtobufError| Status::bad_request(error.to_string());
    let envelope = protobuf::open(body).map_err(failed)?;
    let schema = schema.ok_or_else(|| unsupported(PROTOBUF))?;
    let mut value = protobuf::message(&schema, envelope.raw).map_err(failed)?;
    if let Some(fields) = value.as_object_mut() {
        for (field, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
            if !text.is_empty() {
                fields.insert(field.to_owned(), text.into());
            }
        }
    }
    Ok(value)
}

/// Parses DeleteOptions in any of the media types.
pub fn parse_options(headers: &HeaderMap, body: &Bytes) -> ApiResult<Value> {
    if media_type(headers) == PROTOBUF {
        return from_protobuf(schema::builtin().by_name("apimachinery.pkg.apis.meta.v1.DeleteOptions"), body);
    }
    parse(headers, body)
}

/// Parses JSON or YAML of no particular kind.
pub fn parse(headers: &HeaderMap, body: &Bytes) -> ApiResult<Value> {
    let any = schema::Type::any();
    let decoded = schema::decode_partial(&any, body, format(headers)?, FieldValidation::Ignore);
    decoded.map(|decoded| decoded.value).map_err(|error| Status::bad_request(error.to_string()))
}

pub fn unsupported(media: &str) -> Box<Status> {
    let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {accepted} (got {media:?})"
    );
    Status::failure(Reason::UnsupportedMediaType, message)
}

/// Decodes a body as an object of the kind expected: version and kind, field types, unknown fields.
pub fn decode<'a>(
    expected: impl Into<Expected<'a>>,
    headers: &HeaderMap,
    body: &Bytes,
    mode: FieldValidation,
) -> ApiResult<Decoded> {
    let expected = expected.into();
    if media_type(headers) == PROTOBUF {
        let value = from_protobuf(expected.schema().filter(|_| expected.custom.is_none()), body)?;
        return check(expected, value, mode);
    }
    let format = format(headers)?;
    let failed = |error: schema::DecodeError| error.status(&expected.gvk.version, &expected.gvk.kind, body);
    let (api_version, kind) = schema::type_meta(body, format).map_err(failed)?;
    check_type(&expected.gvk, &api_version, &kind)?;
    if let Some(custom) = expected.custom {
        return complete(&expected.gvk, custom.decode(body, format, mode).map_err(failed)?);
    }
    let any = TypeRef::new(schema::Type::any());
    let decoded = schema::decode(expected.schema().as_ref().unwrap_or(&any), body, format, mode).map_err(failed)?;
    complete(&expected.gvk, decoded)
}

/// Checks a value that was not sent but made, as if it had been sent.
pub fn check<'a>(expected: impl Into<Expected<'a>>, value: Value, mode: FieldValidation) -> ApiResult<Decoded> {
    let expected = expected.into();
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    check_type(&expected.gvk, &text("apiVersion"), &text("kind"))?;
    let failed = |error: schema::DecodeError| error.status(&expected.gvk.version, &expected.gvk.kind, b"");
    if let Some(custom) = expected.custom {
        return complete(&expected.gvk, custom.fit(value, Vec::new(), mode).map_err(failed)?);
    }
    let decoded = match expected.schema() {
        Some(schema) => schema::conform(&schema, value, mode).map_err(failed)?,
        None => Decoded { value, warnings: Vec::new() },
    };
    complete(&expected.gvk, decoded)
}

fn check_type(gvk: &Gvk, api_version: &str, kind: &str) -> ApiResult<()> {
    let wanted = gvk.api_version();
    for (found, wanted, what) in [(api_version, wanted.as_str(), "API version"), (kind, gvk.kind.as_ref(), "kind")] {
        if !found.is_empty() && found != wanted {
            let what = if what == "kind" { "kind" } else { "API version" };
            return Err(Status::bad_request(format!(
                "the {what} in the data ({found}) does not match the expected {what} ({wanted})"
            )));
        }
    }
    Ok(())
}

/// Every object says what it is and has metadata.
fn complete(gvk: &Gvk, mut decoded: Decoded) -> ApiResult<Decoded> {
    let Some(fields) = decoded.value.as_object_mut() else {
        return Err(Status::bad_request("the request body must be an object"));
    };
    fields.insert("apiVersion".to_owned(), gvk.api_version().into());
    fields.insert("kind".to_owned(), gvk.kind.as_ref().into());
    if !fields.get("metadata").is_some_and(Value::is_object) {
        fields.insert("metadata".to_owned(), Value::Object(serde_json::Map::new()));
    }
    Ok(decoded)
}
