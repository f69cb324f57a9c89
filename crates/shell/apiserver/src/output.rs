//! What the client wants to read: JSON, YAML or protobuf, and whole objects, metadata alone, or tables.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use meta::{ApiResult, Reason, Status};
use serde_json::{Map, Value, json};

use crate::body::{self, Body};
use crate::codec::PROTOBUF;
use crate::protobuf;
use crate::registry::Served;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Object,
    /// A table of this version of `meta.k8s.io`.
    Table(String),
    Metadata(String),
    MetadataList(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub media: Media,
    pub form: Form,
    pub pretty: bool,
}

/// Media types that are answered, for the message of a 406.
const OFFERED: &str = "application/json, application/yaml";

/// What a resource can be sent as.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Tables and metadata alone, besides whole objects.
    pub forms: bool,
    pub protobuf: bool,
}

impl Offer {
    fn has(self, output: &Output) -> bool {
        let is_protobuf = output.media == Media::Protobuf;
        // Tables are JSON and YAML alone.
        let has_media = !is_protobuf || self.protobuf && !matches!(output.form, Form::Table(_));
        has_media && (self.forms || output.form == Form::Object)
    }
}

/// Picks the first acceptable form; clients list what they like best first.
pub fn negotiate(headers: &HeaderMap, pretty: bool, offer: Offer) -> ApiResult<Output> {
    let accept: Vec<&str> = headers.get_all(http::header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let accept = accept.join(",");
    if accept.trim().is_empty() {
        return Ok(Output { pretty, ..Output::default() });
    }
    let found = accept.split(',').filter_map(clause).find(|output| offer.has(output));
    let failed = || {
        let protobuf = if offer.protobuf { format!(", {PROTOBUF}") } else { String::new() };
        let message = format!("only the following media types are accepted: {OFFERED}{protobuf}");
        Status::failure(Reason::NotAcceptable, message)
    };
    found.map(|output| Output { pretty, ..output }).ok_or_else(failed)
}

fn clause(text: &str) -> Option<Output> {
    let mut parts = text.split(';').map(str::trim);
    let media = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Media::Json,
        "application/yaml" => Media::Yaml,
        PROTOBUF => Media::Protobuf,
        _ => return None,
    };
    let (mut form, mut group, mut version) = ("", "", "v1");
    for part in parts {
        match part.split_once('=')? {
            ("as", value) => form = value,
            ("g", value) => group = value,
            ("v", value) => version = value,
            ("stream", value) if value != "watch" => return None,
            _ => {}
        }
    }
    let version_known = matches!(version, "v1" | "v1beta1") && group == "meta.k8s.io";
    let form = match form {
        "" => Form::Object,
        _ if !version_known => return None,
        "Table" => Form::Table(version.to_owned()),
        "PartialObjectMetadata" => Form::Metadata(version.to_owned()),
        "PartialObjectMetadataList" => Form::MetadataList(version.to_owned()),
        _ => return None,
    };
    Some(Output { media, form, pretty: false })
}

/// A failure in the form that the client likes best: protobuf where it says so first, JSON for all others.
pub fn failure(wants_protobuf: bool, status: &Status) -> Response<Body> {
    let mut response = body::status(status);
    let written = wants_protobuf.then(|| serde_json::to_vec(status).ok().and_then(|json| protobuf::object(&json).ok()));
    if let Some(bytes) = written.flatten() {
        *response.body_mut() = body::full(bytes);
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(PROTOBUF));
    }
    response
}

/// Whether protobuf stands first among what a client accepts.
pub fn wants_protobuf(headers: &HeaderMap) -> bool {
    headers.get(http::header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(PROTOBUF.as_bytes()))
}

impl Output {
    pub fn is_raw_json(&self) -> bool {
        *self == Self::default()
    }

    /// One object as an answer.
    pub fn object(
        &self,
        served: &Served,
        query: &crate::info::Query,
        code: StatusCode,
        value: &Value,
    ) -> ApiResult<Response<Body>> {
        match &self.form {
            Form::Object => self.value(code, value),
            _ => self.value(code, &self.shape(served, query, value, true)),
        }
    }

    /// Any JSON value as an answer.
    pub fn value(&self, code: StatusCode, value: &Value) -> ApiResult<Response<Body>> {
        match self.media {
            Media::Json if self.pretty => {
                Ok(body::json(code, serde_json::to_vec_pretty(value).map_err(Status::internal)?))
            }
            Media::Json => Ok(body::json(code, serde_json::to_vec(value).map_err(Status::internal)?)),
            Media::Yaml => {
                let text = serde_saphyr::to_string(value).map_err(Status::internal)?;
                Ok(body::response(code, "application/yaml", text))
            }
            Media::Protobuf => {
                let json = serde_json::to_vec(value).map_err(Status::internal)?;
                Ok(body::response(code, PROTOBUF, protobuf::object(&json)?))
            }
        }
    }

    /// JSON bytes as an answer, parsed only when they must change.
    pub fn bytes(&self, code: StatusCode, bytes: Bytes) -> ApiResult<Response<Body>> {
        match self.media {
            Media::Json if !self.pretty => return Ok(body::json(code, bytes)),
            Media::Protobuf => return Ok(body::response(code, PROTOBUF, protobuf::object(&bytes)?)),
            Media::Json | Media::Yaml => {}
        }
        self.value(code, &serde_json::from_slice(&bytes).map_err(Status::internal)?)
    }

    /// The form asked for of one object; a Table has one row.
    pub fn shape(&self, served: &Served, query: &crate::info::Query, value: &Value, columns: bool) -> Value {
        match &self.form {
            Form::Object => value.clone(),
            Form::Metadata(version) | Form::MetadataList(version) => metadata_only(version, value),
            Form::Table(version) => {
                let revision = value.pointer("/metadata/resourceVersion").cloned();
                let mut metadata = Map::new();
                metadata.extend(revision.map(|revision| ("resourceVersion".to_owned(), revision)));
                table(served, version, query.get("includeObject"), std::slice::from_ref(value), metadata, columns)
            }
        }
    }
}

pub fn metadata_only(version: &str, value: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": value.get("metadata").cloned().unwrap_or_default(),
    })
}

/// A `meta.k8s.io` Table; `columns` is false for all but the first event of a watch.
pub fn table(
    served: &Served,
    version: &str,
    include: &str,
    objects: &[Value],
    metadata: Map<String, Value>,
    columns: bool,
) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let rows = objects.iter().map(|object| {
        let cells: Vec<Value> = crate::columns::cells(served, object, now);
        match include {
            "None" => json!({"cells": cells, "object": null}),
            "Object" => json!({"cells": cells, "object": object}),
            _ => json!({"cells": cells, "object": metadata_only(version, object)}),
        }
    });
    let rows: Vec<Value> = rows.collect();
    let definitions = if columns { crate::columns::definitions(served) } else { Value::Null };
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}
