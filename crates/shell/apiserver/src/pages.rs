//! Everything outside the resource tree: discovery, health, version, metrics, and pages that others registered.

use http::{HeaderMap, Response, StatusCode};
use meta::{ApiResult, Status};
use serde_json::json;

use crate::body::{self, Body};
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};
use crate::route::{method_not_allowed, not_found};
use crate::{discovery, health, openapi};

pub async fn answer(
    engine: &Engine,
    info: &RequestInfo,
    query: &Query,
    headers: &HeaderMap,
) -> ApiResult<Response<Body>> {
    if !matches!(info.verb.as_str(), "get" | "head") {
        return Err(method_not_allowed());
    }
    let path = info.path.trim_end_matches('/');
    for page in &engine.config.pages {
        if page.path() == path {
            return Ok(body::response(StatusCode::OK, page.content_type(), page.body().await?));
        }
    }
    let mut parts = path.trim_start_matches('/').split('/');
    match parts.next().unwrap_or("") {
        "api" | "apis" => discovery::answer(engine, path, headers),
        "healthz" | "livez" | "readyz" => Ok(health::answer(engine, path, query).await),
        "openapi" => openapi::answer(engine, path, headers).await,
        "version" => version(),
        "metrics" => Ok(body::response(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            engine.metrics.encode(&engine.cache, &engine.flow),
        )),
        "" => root(engine),
        _ => Ok(not_found()),
    }
}

fn version() -> ApiResult<Response<Body>> {
    let value = json!({
        "major": meta::version::MAJOR,
        "minor": meta::version::MINOR,
        "gitVersion": meta::version::GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    });
    Ok(body::json(StatusCode::OK, serde_json::to_vec_pretty(&value).map_err(Status::internal)?))
}

/// Clients compare platforms by Go's names.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn root(engine: &Engine) -> ApiResult<Response<Body>> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in discovery::groups(engine).into_iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned),
    );
    let value = json!({"paths": paths});
    Ok(body::json(StatusCode::OK, serde_json::to_vec_pretty(&value).map_err(Status::internal)?))
}
