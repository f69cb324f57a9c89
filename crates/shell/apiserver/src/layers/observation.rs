//! Each request gets an id and is counted with its code and duration.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Response};

use crate::body::Body;
use crate::engine::Engine;
use crate::info::RequestInfo;
use crate::metrics::{RequestLabels, VerbLabels};

pub struct Observed {
    engine: Arc<Engine>,
    info: RequestInfo,
    start: Instant,
    id: uuid::Uuid,
}

impl Observed {
    pub fn start(engine: &Arc<Engine>, info: &RequestInfo) -> Self {
        Self { engine: engine.clone(), info: info.clone(), start: Instant::now(), id: uuid::Uuid::new_v4() }
    }

    pub fn finish(self, mut response: Response<Body>) -> Response<Body> {
        let Self { engine, info, start, id } = self;
        let code = response.status().as_u16();
        tracing::debug!(verb = info.verb, path = info.path, code, elapsed = ?start.elapsed(), %id, "answered");
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
            headers.insert("audit-id", id);
        }
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        // Names that no kind has would let clients grow the metrics without bound.
        let registry = engine.registry();
        let known = registry.find(&info.group, &info.version, &info.resource).is_some();
        let pick = |text: String| if known { text } else { String::new() };
        let resource = pick(info.resource);
        let labels = VerbLabels { verb: info.verb.clone(), resource: resource.clone() };
        engine.metrics.durations.get_or_create(&labels).observe(start.elapsed().as_secs_f64());
        let labels = RequestLabels {
            verb: info.verb,
            group: pick(info.group),
            version: pick(info.version),
            resource,
            subresource: pick(if info.subresource.len() < 32 { info.subresource } else { String::new() }),
            code,
        };
        engine.metrics.requests.get_or_create(&labels).inc();
        response
    }
}
