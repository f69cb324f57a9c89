//! Each request waits for a seat in the priority level that its flow schema leads to; too many are told to come back.

use std::sync::atomic::{AtomicUsize, Ordering};

use access::User;
use access::flow::Digest;
use http::{HeaderName, HeaderValue, Response};
use meta::ApiResult;

use crate::body::Body;
use crate::engine::Engine;
use crate::flow::{Class, Permit};
use crate::info::RequestInfo;
use crate::metrics::{KindLabel, LevelLabel};

const SCHEMA_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Requests being served, by whether they write.
#[derive(Debug, Default)]
pub struct InFlight {
    mutating: AtomicUsize,
    reading: AtomicUsize,
}

/// A seat, and the count of those in flight; both end when it is dropped.
pub struct Seat<'a> {
    count: &'a AtomicUsize,
    _permit: Permit,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a request belongs. Streams belong nowhere: they last as long as their clients like.
pub fn classify(engine: &Engine, info: &RequestInfo, user: &User) -> Option<Class> {
    if info.is_long_running() && info.verb != "watch" {
        return None;
    }
    engine.flow.classify(&Digest {
        user,
        is_resource: info.is_resource,
        verb: &info.verb,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        path: &info.path,
    })
}

pub async fn admit<'a>(engine: &'a Engine, info: &RequestInfo, class: Option<Class>) -> ApiResult<Option<Seat<'a>>> {
    let Some(class) = class else { return Ok(None) };
    let (count, request_kind) = match info.is_mutating() {
        true => (&engine.in_flight.mutating, "mutating"),
        false => (&engine.in_flight.reading, "readOnly"),
    };
    let label = KindLabel { request_kind };
    let priority_level = class.level_name().to_owned();
    let permit = class.admit().await.inspect_err(|_| {
        engine.metrics.dropped.get_or_create(&label).inc();
        engine.metrics.rejected.get_or_create(&LevelLabel { priority_level }).inc();
    })?;
    let now = count.fetch_add(1, Ordering::Relaxed) + 1;
    engine.metrics.in_flight.get_or_create(&label).set(i64::try_from(now).unwrap_or(i64::MAX));
    Ok(Some(Seat { count, _permit: permit }))
}

/// Says by their uids, which give no name away, what a request was classified as.
pub fn mark(response: &mut Response<Body>, class: &Class) {
    for (name, uid) in [(SCHEMA_HEADER, class.schema_uid.as_str()), (LEVEL_HEADER, class.level_uid())] {
        if let Ok(uid) = HeaderValue::from_str(uid) {
            response.headers_mut().insert(name, uid);
        }
    }
}
