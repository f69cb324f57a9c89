//! `/openapi/v2` and `/openapi/v3`: documents of what is served now, built when somebody asks.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use meta::{ApiResult, GroupVersion, Status};
use schema::openapi::{Served as Row, ServedSubresource, prefix, v2_document, v3_document};
use schema::openapi_protobuf::v2_protobuf;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use crate::body::{self, Body};
use crate::discovery::subresources;
use crate::engine::Engine;
use crate::registry::{Registry, Served};
use crate::route::not_found;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// How clients of different age begin to ask for `PROTOBUF`; they differ in what stands between name and version.
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2";

pub async fn answer(engine: &Engine, path: &str, headers: &HeaderMap) -> ApiResult<Response<Body>> {
    let registry = engine.registry();
    let version = meta::version::GIT_VERSION;
    match path {
        "/openapi/v2" => {
            let rows = rows(&registry);
            let etag = hash(&rows);
            if text(headers, ACCEPT).contains(PROTOBUF_ASKED) {
                let build = move || Ok(v2_protobuf(&v2_document(&rows, version)));
                document(headers, &etag, PROTOBUF, build).await
            } else {
                document(headers, &etag, JSON, move || serde_json::to_vec(&v2_document(&rows, version))).await
            }
        }
        "/openapi/v3" => {
            let mut paths = Map::new();
            for of in versions(&registry) {
                let etag = hash(&rows_of(&registry, &of));
                let url = format!("/openapi/v3/{}?hash={etag}", prefix(&of));
                paths.insert(prefix(&of), json!({"serverRelativeURL": url}));
            }
            for extension in engine.aggregation.all().iter() {
                let path = format!("apis/{}/{}", extension.group, extension.version);
                let url = format!("/openapi/v3/{path}");
                paths.insert(path, json!({"serverRelativeURL": url}));
            }
            crate::discovery::send(headers, JSON, &json!({"paths": paths}))
        }
        path => {
            let wanted = path.trim_start_matches("/openapi/v3/");
            let Some(of) = versions(&registry).into_iter().find(|of| prefix(of) == wanted) else {
                return Ok(not_found());
            };
            let rows = rows_of(&registry, &of);
            let etag = hash(&rows);
            document(headers, &etag, JSON, move || serde_json::to_vec(&v3_document(&rows, &of, version))).await
        }
    }
}

fn versions(registry: &Registry) -> Vec<GroupVersion> {
    let groups = registry.groups();
    let all = groups.into_iter().flat_map(|(group, versions)| {
        versions.iter().map(move |version| GroupVersion::new(group.to_owned(), version.clone()))
    });
    all.collect()
}

fn rows(registry: &Registry) -> Vec<Row> {
    registry.all().map(|served| row(served)).collect()
}

fn rows_of(registry: &Registry, of: &GroupVersion) -> Vec<Row> {
    registry.in_version(&of.group, &of.version).map(|served| row(served)).collect()
}

fn row(served: &Served) -> Row {
    let texts = |verbs: &[&str]| verbs.iter().map(|verb| (*verb).to_owned()).collect();
    let kind = &served.kind;
    let subresource = |sub: kinds::Subresource| ServedSubresource {
        name: sub.name.to_string(),
        gvk: sub.speaks.unwrap_or_else(|| kind.gvk()),
        verbs: texts(sub.verbs),
    };
    Row {
        gvk: kind.gvk(),
        plural: kind.plural.to_string(),
        namespaced: served.is_namespaced(),
        verbs: texts(kind.verbs.list()),
        subresources: subresources(kind).into_iter().map(subresource).collect(),
        custom: match &served.custom {
            Some(custom) => Some(custom.document.clone()),
            None => kind.schema.map(|schema| schema()),
        },
    }
}

/// Rows decide the document, so their hash names it before it is built.
fn hash(rows: &[Row]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(meta::version::GIT_VERSION);
    for row in rows {
        hasher.update(format!("{row:?}"));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Builds, compresses and sends a document, or says that the client's is still right.
async fn document(
    headers: &HeaderMap,
    hash: &str,
    media_type: &'static str,
    build: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static,
) -> ApiResult<Response<Body>> {
    let etag = format!("\"{hash}\"");
    let mut response = if text(headers, IF_NONE_MATCH).split(',').any(|known| known.trim() == etag) {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let compress = text(headers, ACCEPT_ENCODING).contains("gzip");
        let built = tokio::task::spawn_blocking(move || {
            build().map_err(std::io::Error::from).and_then(|bytes| encode(bytes, compress))
        })
        .await;
        let bytes = built.map_err(Status::internal)?.map_err(Status::internal)?;
        let mut response = body::json(StatusCode::OK, bytes);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if compress {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    Ok(response)
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

fn encode(bytes: Vec<u8>, compress: bool) -> std::io::Result<Vec<u8>> {
    if !compress {
        return Ok(bytes);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&bytes)?;
    encoder.finish()
}
