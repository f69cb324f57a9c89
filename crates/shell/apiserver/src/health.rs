//! `/healthz`, `/livez` and `/readyz`: named checks, one by one or all together.

use http::{Response, StatusCode};

use crate::body::{self, Body};
use crate::engine::Engine;
use crate::info::Query;
use crate::limits::HEALTH_CHECK_MAX;

const CHECKS: [&str; 4] = ["ping", "log", "etcd", "informer-sync"];

pub async fn answer(engine: &Engine, path: &str, query: &Query) -> Response<Body> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (endpoint, single) = (parts.next().unwrap_or(""), parts.next());
    let excluded: Vec<&str> = query.all("exclude").collect();
    if let Some(name) = single {
        if !CHECKS.contains(&name) {
            return crate::route::not_found();
        }
        return match check(engine, name).await {
            Ok(()) => body::text(StatusCode::OK, "ok"),
            Err(why) => body::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        };
    }
    let (mut report, mut healthy) = (String::new(), true);
    for name in CHECKS {
        if excluded.contains(&name) {
            report += &format!("[+]{name} excluded: ok\n");
            continue;
        }
        match check(engine, name).await {
            Ok(()) => report += &format!("[+]{name} ok\n"),
            Err(why) => {
                healthy = false;
                tracing::warn!(check = name, why, "a health check failed");
                report += &format!("[-]{name} failed: reason withheld\n");
            }
        }
    }
    if !healthy {
        return body::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{endpoint} check failed\n"));
    }
    if query.has("verbose") {
        return body::text(StatusCode::OK, format!("{report}{endpoint} check passed\n"));
    }
    body::text(StatusCode::OK, "ok")
}

async fn check(engine: &Engine, name: &str) -> Result<(), String> {
    match name {
        "etcd" => match tokio::time::timeout(HEALTH_CHECK_MAX, engine.store.revision()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the store does not answer".to_owned()),
        },
        "informer-sync" => engine.cache.wait_current().await.map(drop).map_err(|status| status.message),
        _ => Ok(()),
    }
}
