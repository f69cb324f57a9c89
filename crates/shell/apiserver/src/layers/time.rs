//! How long a request may take; watches and streams have limits of their own.

use std::future::Future;

use http::Response;
use meta::{ApiResult, Reason, Status};

use crate::body::Body;
use crate::info::RequestInfo;
use crate::limits::REQUEST_TIME_MAX;

pub async fn limit(
    info: &RequestInfo,
    answer: impl Future<Output = ApiResult<Response<Body>>>,
) -> ApiResult<Response<Body>> {
    if info.is_long_running() {
        return answer.await;
    }
    tokio::time::timeout(REQUEST_TIME_MAX, answer).await.unwrap_or_else(|_| {
        let seconds = REQUEST_TIME_MAX.as_secs();
        Err(Status::failure(
            Reason::Timeout,
            format!("Timeout: request did not complete within the allotted timeout of {seconds}s"),
        ))
    })
}
