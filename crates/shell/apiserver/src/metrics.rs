//! What the server counts about itself, in Prometheus' text format.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::cache::Cache;
use crate::flow::Flow;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerbLabels {
    pub verb: String,
    pub resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResourceLabel {
    pub resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    pub request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LevelLabel {
    pub priority_level: String,
}

pub struct Metrics {
    registry: Registry,
    pub requests: Family<RequestLabels, Counter>,
    pub durations: Family<VerbLabels, Histogram>,
    pub in_flight: Family<KindLabel, Gauge>,
    pub dropped: Family<KindLabel, Counter>,
    pub rejected: Family<LevelLabel, Counter>,
    pub panics: Counter,
    seats: [Family<LevelLabel, Gauge>; 3],
    objects: Family<ResourceLabel, Gauge>,
    watchers: Family<ResourceLabel, Gauge>,
}

/// Upper bounds of the request duration buckets in seconds.
const DURATION_BUCKETS: [f64; 11] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        registry.register("apiserver_request", "Requests by verb, resource and HTTP response code", requests.clone());
        let durations: Family<VerbLabels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        registry.register("apiserver_request_duration_seconds", "Time to answer a request", durations.clone());
        let in_flight = Family::default();
        registry.register("apiserver_current_inflight_requests", "Requests being served", in_flight.clone());
        let dropped = Family::default();
        registry.register("apiserver_dropped_requests", "Requests refused with 429", dropped.clone());
        let rejected = Family::default();
        let about = "Requests refused by a priority level";
        registry.register("apiserver_flowcontrol_rejected_requests", about, rejected.clone());
        let seats = [
            ("nominal_limit_seats", "Seats of a priority level"),
            ("current_executing_seats", "Seats of a priority level in use"),
            ("current_inqueue_requests", "Requests that wait in a priority level"),
        ];
        let seats = seats.map(|(name, about)| {
            let family = Family::<LevelLabel, Gauge>::default();
            registry.register(format!("apiserver_flowcontrol_{name}"), about, family.clone());
            family
        });
        let panics = Counter::default();
        registry.register("apiserver_request_panics", "Requests that ended in a panic", panics.clone());
        let objects = Family::default();
        registry.register("apiserver_storage_objects", "Objects stored by resource", objects.clone());
        let watchers = Family::default();
        registry.register("apiserver_longrunning_requests", "Open watches by resource", watchers.clone());
        Self { registry, requests, durations, in_flight, dropped, rejected, panics, seats, objects, watchers }
    }
}

impl Metrics {
    pub fn encode(&self, cache: &Cache, flow: &Flow) -> String {
        for (priority_level, nominal, running, waiting) in flow.counts() {
            let label = LevelLabel { priority_level };
            for (family, count) in self.seats.iter().zip([nominal, running, waiting]) {
                family.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        for (resource, objects, watchers) in cache.counts() {
            let label = ResourceLabel { resource };
            self.objects.get_or_create(&label).set(i64::try_from(objects).unwrap_or(i64::MAX));
            self.watchers.get_or_create(&label).set(i64::try_from(watchers).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}
