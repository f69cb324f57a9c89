//! Where the figures of a metric are read, and what an answer says.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier, MetricSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::cron::go_duration;
use meta::labels::Selector;
use meta::quantity::Quantity;
use serde_json::Value;

use crate::plan::to_value;

/// The window of a custom figure that does not name its own.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);

pub const RESOURCE_METRICS: &str = "metrics.k8s.io";
pub const CUSTOM_METRICS: &str = "custom.metrics.k8s.io";
pub const EXTERNAL_METRICS: &str = "external.metrics.k8s.io";

/// A read of a metrics API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Read {
    pub group: &'static str,
    /// Below `/apis/GROUP/VERSION/`.
    pub path: String,
    pub parameters: Vec<(&'static str, String)>,
    /// What is asked for, as messages of a missing API name it.
    pub what: String,
}

/// A figure of one pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub milli: i64,
    pub at: Timestamp,
    pub window: SignedDuration,
}

/// The object an Object metric describes, when it has to be found out how its kind is called in paths. A Namespace is
/// known: it is the one of the autoscaler.
pub fn described(spec: &MetricSpec) -> Option<&CrossVersionObjectReference> {
    let object = &spec.object.as_ref()?.described_object;
    (!is_namespace(object)).then_some(object)
}

fn is_namespace(object: &CrossVersionObjectReference) -> bool {
    object.kind == "Namespace" && !object.api_version.as_deref().unwrap_or_default().contains('/')
}

fn selector_text(selector: Option<&LabelSelector>) -> String {
    let selector = selector.and_then(|selector| Selector::from_label_selector(&to_value(selector)));
    selector.map(|selector| selector.to_string()).unwrap_or_default()
}

/// How a metric is read for the pods of `selector`. `resource` is the described object's, such as
/// `ingresses.networking.k8s.io`. `None`: the metric has no source that anything could be read from.
pub fn read(spec: &MetricSpec, namespace: &str, selector: &str, resource: &str) -> Option<Read> {
    let of_metric = |metric: &MetricIdentifier| ("metricLabelSelector", selector_text(metric.selector.as_ref()));
    let (group, path, mut parameters) = match spec.type_.as_str() {
        "Resource" | "ContainerResource" => {
            let pods = ("labelSelector", selector.to_owned());
            (RESOURCE_METRICS, format!("namespaces/{namespace}/pods"), vec![pods])
        }
        "Pods" => {
            let metric = &spec.pods.as_ref()?.metric;
            let path = format!("namespaces/{namespace}/pods/*/{}", metric.name);
            (CUSTOM_METRICS, path, vec![("labelSelector", selector.to_owned()), of_metric(metric)])
        }
        "Object" => {
            let source = spec.object.as_ref()?;
            let (object, metric) = (&source.described_object, &source.metric);
            let path = match is_namespace(object) {
                true => format!("namespaces/{namespace}/metrics/{}", metric.name),
                false => format!("namespaces/{namespace}/{resource}/{}/{}", object.name, metric.name),
            };
            (CUSTOM_METRICS, path, vec![of_metric(metric)])
        }
        "External" => {
            let metric = &spec.external.as_ref()?.metric;
            let selector = ("labelSelector", selector_text(metric.selector.as_ref()));
            (EXTERNAL_METRICS, format!("namespaces/{namespace}/{}", metric.name), vec![selector])
        }
        _ => return None,
    };
    parameters.retain(|(_, value)| !value.is_empty());
    let what = path.rsplit('/').next().unwrap_or_default().to_owned();
    Some(Read { group, path, parameters, what })
}

/// What an API said, or why nothing came.
pub type Answer = Result<Value, String>;

fn items<'a>(answer: &'a Answer, api: &str) -> Result<&'a [Value], String> {
    let answer = answer.as_ref().map_err(|why| format!("unable to fetch metrics from {api} metrics API: {why}"))?;
    Ok(answer["items"].as_array().map(Vec::as_slice).unwrap_or_default())
}

fn some_items<'a>(answer: &'a Answer, api: &str) -> Result<&'a [Value], String> {
    let items = items(answer, api)?;
    if items.is_empty() { Err(format!("no metrics returned from {api} metrics API")) } else { Ok(items) }
}

fn time(item: &Value) -> Timestamp {
    item["timestamp"].as_str().and_then(|text| text.parse().ok()).unwrap_or(Timestamp::MIN)
}

fn milli(value: &Value) -> Option<i64> {
    Quantity::from_value(value).ok().map(Quantity::milli_value)
}

/// What pods use of a resource: all of their containers together, or one.
pub(super) fn of_resource(
    answer: &Answer,
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, Sample>, String> {
    let sample = |item: &Value| {
        let containers = item["containers"].as_array()?;
        let wanted = containers.iter().filter(|one| container.is_none_or(|name| one["name"] == name));
        let used: Option<Vec<i64>> = wanted.map(|one| milli(&one["usage"][resource])).collect();
        let used = used.filter(|used| !used.is_empty())?;
        let window = item["window"].as_str().and_then(|text| go_duration(text).ok()).map(SignedDuration::from_nanos);
        let milli = used.iter().fold(0_i64, |sum, one| sum.saturating_add(*one));
        let name = item["metadata"]["name"].as_str()?.to_owned();
        Some((name, Sample { milli, at: time(item), window: window.unwrap_or_default() }))
    };
    Ok(some_items(answer, "resource")?.iter().filter_map(sample).collect())
}

/// A custom figure of each pod.
pub(super) fn of_pods(answer: &Answer) -> Result<BTreeMap<String, Sample>, String> {
    let sample = |item: &Value| {
        // v1beta1 has the shorter name.
        let window = ["windowSeconds", "window"].into_iter().find_map(|field| item[field].as_i64());
        let window = window.map_or(WINDOW, SignedDuration::from_secs);
        let name = item["describedObject"]["name"].as_str()?.to_owned();
        Some((name, Sample { milli: milli(&item["value"])?, at: time(item), window }))
    };
    Ok(some_items(answer, "custom")?.iter().filter_map(sample).collect())
}

/// The figure of one object.
pub(super) fn of_object(answer: &Answer) -> Result<i64, String> {
    let items = items(answer, "custom")?;
    match items {
        [item] => Ok(milli(&item["value"]).unwrap_or(0)),
        _ => Err(format!(
            "unable to fetch metrics from custom metrics API: the custom metrics API server returned {} results when we \
             asked for exactly one",
            items.len()
        )),
    }
}

/// The sum of a metric from outside of the cluster.
pub(super) fn of_external(answer: &Answer) -> Result<i64, String> {
    let items = some_items(answer, "external")?;
    Ok(items.iter().filter_map(|item| milli(&item["value"])).fold(0, i64::saturating_add))
}
