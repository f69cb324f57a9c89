//! A panic in one request is that request's failure and nobody else's.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use http::Response;
use meta::{ApiResult, Status};

use crate::body::Body;
use crate::engine::Engine;
use crate::info::RequestInfo;

pub async fn isolate(
    engine: &Engine,
    info: &RequestInfo,
    answer: impl Future<Output = ApiResult<Response<Body>>>,
) -> ApiResult<Response<Body>> {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(verb = info.verb, path = info.path, panic = text, "a request panicked");
        engine.metrics.panics.inc();
        Err(Status::internal("this request caused a panic; the server's log has the details"))
    })
}
