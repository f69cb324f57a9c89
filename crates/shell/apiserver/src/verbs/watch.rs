//! watch: one line of JSON or one frame of protobuf per change, from the past, from now, or after a streamed list.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::Response;
use meta::fields::FieldSelector;
use meta::{ApiResult, Status};
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::list::parse_version;
use crate::body::{self, Body};
use crate::cache::{Cache, Delivery, EventType, Filter, Object, Objects, Opened, ResourceCache, WatcherId, line};
use crate::call::Call;
use crate::convert;
use crate::info::Query;
use crate::limits::{BOOKMARK_INTERVAL, WATCH_TIME_MIN};
use crate::output::{Form, Media, Output};
use crate::protobuf;

/// Marks the bookmark after which a streamed list is complete.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub async fn watch(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let filter = call.filter()?;
    let media = call.output.media;
    let resource = call.engine.resource(call.served);
    let cache = call.engine.cache.clone();
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let initial = streamed_list(call)?;
    let version = call.query.get("resourceVersion");
    let after = parse_version(version)?;
    let feed = Feed {
        encoder: Encoder {
            served: call.served.clone(),
            output: call.output.clone(),
            query: call.query.clone(),
            columns_sent: false,
            converted: filter.converted.clone(),
        },
        cache: cache.clone(),
        resource: resource.clone(),
        bookmarks,
        deadline: Instant::now() + duration(call)?,
    };
    if after == 0 || initial {
        match version {
            "" => drop(cache.wait_current().await?),
            _ => cache.wait_for(after).await?,
        }
        let (snapshot, opened) = resource.snapshot_and_watch(filter.clone(), cache.reached());
        let list = (snapshot.objects, filter, initial && bookmarks);
        return Ok(answer(media, feed.run(Some(list), opened, snapshot.revision)));
    }
    match resource.watch(filter, after) {
        Ok(opened) => Ok(answer(media, feed.run(None, opened, after))),
        Err(status) => {
            let line = feed.encoder.error(&status);
            Ok(answer(media, futures::stream::once(async { line })))
        }
    }
}

fn answer(media: Media, lines: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(body::stream(lines));
    let media = match media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Media::Json | Media::Yaml => "application/json",
    };
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(media));
    response
}

/// Whether the watch starts with the list itself (`sendInitialEvents`).
fn streamed_list(call: &Call<'_>) -> ApiResult<bool> {
    if !call.query.has("sendInitialEvents") {
        if !call.query.get("resourceVersionMatch").is_empty() {
            return Err(Status::bad_request(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        return Ok(false);
    }
    if call.query.get("resourceVersionMatch") != "NotOlderThan" {
        return Err(Status::bad_request("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    }
    Ok(call.query.flag("sendInitialEvents"))
}

fn duration(call: &Call<'_>) -> ApiResult<Duration> {
    match call.query.get("timeoutSeconds") {
        "" => Ok(WATCH_TIME_MIN + WATCH_TIME_MIN.mul_f64(rand::rng().random::<f64>())),
        text => text
            .parse()
            .map(Duration::from_secs)
            .map_err(|_| Status::bad_request(format!("timeoutSeconds: Invalid value: {text:?}"))),
    }
}

/// Ends the subscription when the stream is dropped.
struct Subscription {
    resource: Arc<ResourceCache>,
    id: WatcherId,
    receiver: mpsc::Receiver<Delivery>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.resource.close(&self.id);
    }
}

struct Feed {
    encoder: Encoder,
    cache: Arc<Cache>,
    resource: Arc<ResourceCache>,
    bookmarks: bool,
    deadline: Instant,
}

impl Feed {
    /// The lines of a watch that has seen everything up to `seen`.
    fn run(
        mut self,
        list: Option<(Objects, Filter, bool)>,
        opened: Opened,
        seen: u64,
    ) -> impl Stream<Item = Bytes> + Send + 'static {
        let mut subscription =
            Subscription { resource: self.resource.clone(), id: opened.id, receiver: opened.receiver };
        async_stream::stream! {
            if let Some((objects, filter, mark_end)) = list {
                let readers = self.resource.readers.load_full();
                for (key, object) in objects.iter() {
                    if filter.matches(key, object, &readers) {
                        yield self.encoder.object(&self.cache, "ADDED", &object.bytes).await;
                    }
                }
                if mark_end {
                    yield self.encoder.bookmark(seen, true);
                }
            }
            for delivery in opened.missed {
                if let Delivery::Change(kind, event) = delivery {
                    yield self.encoder.change(&self.cache, kind, &event).await;
                }
            }
            let mut ticks = tokio::time::interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
            let deadline = tokio::time::sleep_until(self.deadline);
            tokio::pin!(deadline);
            loop {
                tokio::select! {
                    biased;
                    delivery = subscription.receiver.recv() => match delivery {
                        Some(Delivery::Change(_, event)) if event.revision <= seen => {}
                        Some(Delivery::Change(kind, event)) => yield self.encoder.change(&self.cache, kind, &event).await,
                        Some(Delivery::Progress(revision)) => yield self.encoder.bookmark(revision, false),
                        None => break,
                    },
                    _ = ticks.tick(), if self.bookmarks => {
                        self.resource.progress(&subscription.id, || self.cache.reached());
                    }
                    () = &mut deadline => break,
                }
            }
        }
    }
}

/// Lines in the version and form that the client asked for.
struct Encoder {
    served: crate::registry::Served,
    output: Output,
    query: Query,
    columns_sent: bool,
    /// What the filter could not ask of stored objects.
    converted: FieldSelector,
}

impl Encoder {
    fn is_stored_form(&self) -> bool {
        self.output.form == Form::Object && self.served.reads_as_stored()
    }

    /// One event in the media type asked for.
    fn write(&self, kind: &str, object: &[u8]) -> Bytes {
        match self.output.media {
            Media::Protobuf => frame(kind, object),
            Media::Json | Media::Yaml => line(kind, object),
        }
    }

    async fn change(&mut self, cache: &Cache, kind: EventType, event: &crate::cache::Event) -> Bytes {
        if self.is_stored_form() {
            return match self.output.media {
                Media::Protobuf => event.frame(kind, |kind, object| frame(kind, object)),
                Media::Json | Media::Yaml => event.line(kind),
            };
        }
        let kind = match self.reclassify(cache, kind, event).await {
            Ok(kind) => kind,
            Err(status) => return self.error(&status),
        };
        match kind.and_then(|kind| Some((kind, event.object(kind)?))) {
            Some((kind, object)) => self.object(cache, kind.as_str(), &object.bytes).await,
            None => Bytes::new(),
        }
    }

    /// What a change means to somebody whose selector reads fields of the served version.
    async fn reclassify(
        &self,
        cache: &Cache,
        kind: EventType,
        event: &crate::cache::Event,
    ) -> ApiResult<Option<EventType>> {
        if self.converted.is_empty() {
            return Ok(Some(kind));
        }
        let was = kind != EventType::Added && self.passes(cache, event.old.as_deref()).await?;
        let is = kind != EventType::Deleted && self.passes(cache, event.new.as_deref()).await?;
        Ok(match (was, is) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        })
    }

    async fn passes(&self, cache: &Cache, object: Option<&Object>) -> ApiResult<bool> {
        let Some(object) = object else { return Ok(false) };
        let mut value = object.value()?;
        convert::from_stored(cache, &self.served, &mut value).await?;
        Ok(convert::passes(&self.served, &self.converted, &value))
    }

    async fn object(&mut self, cache: &Cache, kind: &str, stored: &Bytes) -> Bytes {
        if self.is_stored_form() {
            return self.write(kind, stored);
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(stored) else { return Bytes::new() };
        if let Err(status) = convert::from_stored(cache, &self.served, &mut value).await {
            return self.error(&status);
        }
        if !convert::passes(&self.served, &self.converted, &value) {
            return Bytes::new();
        }
        let columns = !std::mem::replace(&mut self.columns_sent, true);
        let shaped = self.output.shape(&self.served, &self.query, &value, columns);
        self.write(kind, shaped.to_string().as_bytes())
    }

    /// Tells the client a version to come back with.
    fn bookmark(&self, revision: u64, ends_list: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_list {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let (kind, version) = match &self.output.form {
            Form::Object => (self.served.kind.kind.to_string(), self.served.api_version()),
            Form::Table(version) => ("Table".to_owned(), format!("meta.k8s.io/{version}")),
            Form::Metadata(version) | Form::MetadataList(version) => {
                ("PartialObjectMetadata".to_owned(), format!("meta.k8s.io/{version}"))
            }
        };
        self.write(
            "BOOKMARK",
            json!({"kind": kind, "apiVersion": version, "metadata": metadata}).to_string().as_bytes(),
        )
    }

    fn error(&self, status: &Status) -> Bytes {
        self.write("ERROR", &serde_json::to_vec(status).unwrap_or_default())
    }
}

/// A frame of protobuf; an object that has no such form ends as an error that the client reads.
fn frame(kind: &str, object: &[u8]) -> Bytes {
    let written = protobuf::event(kind, object).or_else(|error| {
        tracing::warn!(%error, "an event has no protobuf form");
        protobuf::event("ERROR", &serde_json::to_vec(&*Status::internal(error)).unwrap_or_default())
    });
    written.unwrap_or_default()
}
