//! How long a request may take; watches and streams have limits of their own.

use std::future::Future;
use std::time::Duration;

use http::Response;
use meta::{ApiResult, Reason, Status};

use crate::body::Body;
use crate::info::{Query, RequestInfo};
use crate::limits::REQUEST_TIME_MAX;

/// What a client may allow less of; zero and more than the server allows are the server's own limit.
fn allowed(asked: &str) -> ApiResult<Duration> {
    if asked.is_empty() {
        return Ok(REQUEST_TIME_MAX);
    }
    let nanos = meta::cron::go_duration(asked)
        .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
    let asked = u64::try_from(nanos).map(Duration::from_nanos).unwrap_or_default();
    Ok(if asked.is_zero() { REQUEST_TIME_MAX } else { asked.min(REQUEST_TIME_MAX) })
}

pub async fn limit(
    info: &RequestInfo,
    query: &Query,
    answer: impl Future<Output = ApiResult<Response<Body>>>,
) -> ApiResult<Response<Body>> {
    if info.is_long_running() {
        return answer.await;
    }
    let allowed = allowed(query.get("timeout"))?;
    tokio::time::timeout(allowed, answer).await.unwrap_or_else(|_| {
        Err(Status::failure(
            Reason::Timeout,
            format!("Timeout: request did not complete within the allotted timeout of {}s", allowed.as_secs_f64()),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_allow_less_time() {
        let seconds = |asked| allowed(asked).map(|time| time.as_secs()).map_err(|status| status.message);
        for (asked, given) in [("", 60), ("0s", 60), ("3m", 60), ("-1s", 60), ("10s", 10)] {
            assert_eq!(seconds(asked), Ok(given), "{asked}");
        }
        let why = "invalid timeout specified in the request URL - time: invalid duration \"invalid\"";
        assert_eq!(seconds("invalid"), Err(why.to_owned()));
    }
}
