//! How many requests are served at once; what is above the limit is told to come back.

use std::sync::atomic::{AtomicUsize, Ordering};

use meta::{ApiResult, Status};

use crate::engine::Engine;
use crate::info::RequestInfo;
use crate::limits::{MUTATING_IN_FLIGHT_MAX, READONLY_IN_FLIGHT_MAX, RETRY_AFTER_SECONDS};
use crate::metrics::KindLabel;

/// Requests being served, by whether they write.
#[derive(Debug, Default)]
pub struct InFlight {
    mutating: AtomicUsize,
    reading: AtomicUsize,
}

/// Gives its place back when dropped.
pub struct Permit<'a>(Option<&'a AtomicUsize>);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

pub fn admit<'a>(engine: &'a Engine, info: &RequestInfo) -> ApiResult<Permit<'a>> {
    if info.is_long_running() || !info.is_resource {
        return Ok(Permit(None));
    }
    let (count, max, request_kind) = if info.is_mutating() {
        (&engine.in_flight.mutating, MUTATING_IN_FLIGHT_MAX, "mutating")
    } else {
        (&engine.in_flight.reading, READONLY_IN_FLIGHT_MAX, "readOnly")
    };
    let before = count.fetch_add(1, Ordering::Relaxed);
    let permit = Permit(Some(count));
    let label = KindLabel { request_kind };
    if before >= max {
        engine.metrics.dropped.get_or_create(&label).inc();
        let message = "too many requests, please try again later";
        return Err(Status::too_many_requests(message, RETRY_AFTER_SECONDS));
    }
    engine.metrics.in_flight.get_or_create(&label).set(i64::try_from(before + 1).unwrap_or(i64::MAX));
    Ok(permit)
}
