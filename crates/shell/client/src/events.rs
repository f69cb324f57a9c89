//! The event recorder: core/v1 Events, repeated ones counted in one object, floods refused per object.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{ApiErrorExt, Backoff};

/// Events waiting to be written; more are dropped, as upstream drops them.
const BACKLOG_EVENTS_MAX: usize = 1000;
/// Distinct events whose count is remembered (upstream: 4096).
const REMEMBERED_EVENTS_MAX: usize = 4096;
/// Upstream's spam filter: 25 at once per source and object, then one every five minutes.
const BURST_EVENTS_MAX: f64 = 25.0;
const REFILL_EVERY: Duration = Duration::from_secs(300);
/// Upstream's aggregation: from the tenth similar event in ten minutes, one with a combined message.
const SIMILAR_EVENTS_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
const WRITE_TRIES_MAX: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Normal,
    Warning,
}

impl EventKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

struct Report {
    about: ObjectReference,
    kind: EventKind,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records events of one component; clones share the queue. Recording never waits.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Report>,
}

impl Recorder {
    /// `component` is what `kubectl describe` shows as From; `host` is given by node components only.
    pub fn new(client: Client, component: &str, host: Option<&str>) -> Self {
        let (sender, receiver) = mpsc::channel(BACKLOG_EVENTS_MAX);
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        tokio::spawn(write_all(client, source, receiver));
        Self { sender }
    }

    pub fn record(&self, about: &ObjectReference, kind: EventKind, reason: &str, message: impl Into<String>) {
        let (reason, message) = (reason.to_owned(), message.into());
        let report = Report { about: about.clone(), kind, reason, message, at: Timestamp::now() };
        if self.sender.try_send(report).is_err() {
            tracing::debug!("event dropped: the backlog is full or the recorder has stopped");
        }
    }
}

async fn write_all(client: Client, source: EventSource, mut reports: mpsc::Receiver<Report>) {
    let mut correlator = Correlator::default();
    while let Some(report) = reports.recv().await {
        let now = Instant::now();
        let Some(verdict) = correlator.judge(&report, now) else { continue };
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for _ in 0..WRITE_TRIES_MAX {
            match write(&client, &source, &report, &verdict).await {
                Ok(name) => {
                    correlator.wrote(&verdict, name, report.at);
                    break;
                }
                Err(error) if error.is_retryable() => tokio::time::sleep(backoff.next_delay()).await,
                Err(error) => {
                    tracing::debug!(%error, reason = %report.reason, "event refused");
                    break;
                }
            }
        }
    }
}

/// Writes a new Event or counts a known one up; answers its name.
async fn write(client: &Client, source: &EventSource, report: &Report, verdict: &Verdict) -> kube::Result<String> {
    let namespace = report.about.namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| "default".to_owned());
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    if let Some(known) = &verdict.known {
        let patch = serde_json::json!({
            "count": known.count + 1, "lastTimestamp": Time(report.at), "message": verdict.message,
        });
        match events.patch(&known.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => return Ok(known.name.clone()),
            // The Event expired meanwhile: begin a new one.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let about_name = report.about.name.clone().unwrap_or_default();
    let name = format!("{about_name}.{:x}", report.at.as_nanosecond());
    let event = Event {
        metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..ObjectMeta::default() },
        involved_object: report.about.clone(),
        reason: Some(report.reason.clone()),
        message: Some(verdict.message.clone()),
        type_: Some(report.kind.as_str().to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(report.at)),
        last_timestamp: Some(Time(report.at)),
        source: Some(source.clone()),
        reporting_component: source.component.clone(),
        reporting_instance: Some(source.host.clone().unwrap_or_default()),
        ..Event::default()
    };
    events.create(&PostParams::default(), &event).await.map(|_| name)
}

#[derive(Clone)]
struct Known {
    name: String,
    count: i32,
}

struct Verdict {
    key: String,
    message: String,
    known: Option<Known>,
}

#[derive(Default)]
struct Correlator {
    known: HashMap<String, Known>,
    order: VecDeque<String>,
    tokens: HashMap<String, (f64, Instant)>,
    similar: HashMap<String, VecDeque<Instant>>,
}

impl Correlator {
    /// What to write for a report, or nothing when its object has had too many.
    fn judge(&mut self, report: &Report, now: Instant) -> Option<Verdict> {
        let about = &report.about;
        let object = format!(
            "{}/{}/{}/{}",
            about.kind.as_deref().unwrap_or_default(),
            about.namespace.as_deref().unwrap_or_default(),
            about.name.as_deref().unwrap_or_default(),
            about.uid.as_deref().unwrap_or_default(),
        );
        let field = about.field_path.as_deref().unwrap_or_default();
        if !self.take_token(&object, now) {
            return None;
        }
        let group = format!("{object}/{field}/{}/{}", report.kind.as_str(), report.reason);
        let similar = self.similar.entry(group.clone()).or_default();
        while similar.front().is_some_and(|at| now.duration_since(*at) > SIMILAR_WINDOW) {
            similar.pop_front();
        }
        let exact = format!("{group}/{}", report.message);
        let repeated = self.known.contains_key(&exact);
        if !repeated && similar.len() < SIMILAR_EVENTS_MAX {
            similar.push_back(now);
        }
        let combined = !repeated && similar.len() >= SIMILAR_EVENTS_MAX;
        let (key, message) = if combined {
            (group, format!("(combined from similar events): {}", report.message))
        } else {
            (exact, report.message.clone())
        };
        let known = self.known.get(&key).cloned();
        Some(Verdict { key, message, known })
    }

    fn take_token(&mut self, object: &str, now: Instant) -> bool {
        if self.tokens.len() >= REMEMBERED_EVENTS_MAX {
            // Full buckets say nothing; forgetting them changes no answer.
            self.tokens.retain(|_, (tokens, at)| refill(*tokens, now.duration_since(*at)) < BURST_EVENTS_MAX);
            if self.tokens.len() >= REMEMBERED_EVENTS_MAX {
                self.tokens.clear();
            }
            self.similar.clear();
        }
        let (tokens, at) = self.tokens.entry(object.to_owned()).or_insert((BURST_EVENTS_MAX, now));
        *tokens = refill(*tokens, now.duration_since(*at));
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    fn wrote(&mut self, verdict: &Verdict, name: String, _at: Timestamp) {
        let count = verdict.known.as_ref().filter(|known| known.name == name).map_or(1, |known| known.count + 1);
        if self.known.insert(verdict.key.clone(), Known { name, count }).is_none() {
            self.order.push_back(verdict.key.clone());
            if self.order.len() > REMEMBERED_EVENTS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

fn refill(tokens: f64, elapsed: Duration) -> f64 {
    (tokens + elapsed.as_secs_f64() / REFILL_EVERY.as_secs_f64()).min(BURST_EVENTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(message: &str) -> Report {
        let about = ObjectReference { kind: Some("Pod".into()), name: Some("p".into()), ..Default::default() };
        let (reason, at) = ("Failed".to_owned(), Timestamp::UNIX_EPOCH);
        Report { about, kind: EventKind::Warning, reason, message: message.into(), at }
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_are_counted_similar_ones_combined_and_floods_refused() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let first = correlator.judge(&report("m"), now).unwrap();
        assert!(first.known.is_none());
        correlator.wrote(&first, "p.1".into(), Timestamp::UNIX_EPOCH);
        let second = correlator.judge(&report("m"), now).unwrap();
        assert_eq!(second.known.as_ref().map(|known| known.count), Some(1));
        correlator.wrote(&second, "p.1".into(), Timestamp::UNIX_EPOCH);

        let messages: Vec<String> =
            (0..23).map(|n| correlator.judge(&report(&format!("n{n}")), now).unwrap().message).collect();
        assert_eq!(messages.iter().filter(|message| message.starts_with("(combined")).count(), 15);
        assert!(correlator.judge(&report("too many"), now).is_none());
        assert!(correlator.judge(&report("later"), now + REFILL_EVERY).is_some());
    }
}
