//! `metrics.k8s.io`: what nodes and pods use, from the kubelets' own measurements.
//!
//! Every read asks the kubelets it needs, all at once. A kubelet answers from the reading it has, so that many readers cost
//! a node no more than one; a node that does not answer is left out, it does not fail the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Limited};
use meta::{ApiResult, Status, quantity};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Address, Kubelets, kubelet_address};
use crate::computed::{Asked, Computed};
use crate::engine::Engine;

const API_VERSION: &str = "metrics.k8s.io/v1beta1";
/// A kubelet that takes longer is left out.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Room for the figures of several hundred pods.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const PATH: &str = "/tug/usage";

/// One measurement.
#[derive(Clone, Debug, Deserialize)]
struct Sample {
    time: String,
    /// Seconds.
    window: f64,
    /// Billionths of a core.
    cpu: u64,
    /// Bytes of the working set.
    memory: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct PodUsage {
    namespace: String,
    name: String,
    containers: HashMap<String, Sample>,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeUsage {
    node: Option<Sample>,
    pods: Vec<PodUsage>,
}

fn usage(sample: &Sample) -> Value {
    let canonical = |text: String| quantity::canonical(&text).unwrap_or(text);
    json!({"cpu": canonical(format!("{}n", sample.cpu)), "memory": format!("{}Ki", sample.memory / 1024)})
}

/// A window as Go writes durations: `10.05s`, `1m0.5s`.
fn window(seconds: f64) -> String {
    let milliseconds = (seconds * 1000.0).round() as u64;
    let (minutes, rest) = (milliseconds / 60_000, (milliseconds % 60_000) as f64 / 1000.0);
    if minutes > 0 { format!("{minutes}m{rest}s") } else { format!("{rest}s") }
}

fn object(kind: &str, of: &Value, sample: &Sample) -> Value {
    let metadata = &of["metadata"];
    let mut value = json!({
        "kind": kind,
        "apiVersion": API_VERSION,
        "metadata": {"name": metadata["name"], "creationTimestamp": sample.time},
        "timestamp": sample.time,
        "window": window(sample.window),
    });
    for field in ["namespace", "labels"] {
        if !metadata[field].is_null() {
            value["metadata"][field] = metadata[field].clone();
        }
    }
    value
}

fn pod_metrics(pod: &Value, usages: &HashMap<String, Sample>) -> Option<Value> {
    // the oldest figure says how fresh the whole is
    let oldest = usages.values().min_by(|a, b| a.time.cmp(&b.time))?;
    let mut value = object("PodMetrics", pod, oldest);
    let mut names: Vec<&String> = usages.keys().collect();
    names.sort();
    let containers = names.into_iter().map(|name| json!({"name": name, "usage": usage(&usages[name])}));
    value["containers"] = containers.collect();
    Some(value)
}

impl Kubelets {
    async fn usage(&self, address: Address) -> ApiResult<NodeUsage> {
        let (authority, stream) = self.dial_kubelet(address).await?;
        let handshake = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(Status::internal)?;
        let driver = tokio::spawn(connection);
        let request = Request::get(PATH).header(http::header::HOST, authority).body(crate::body::empty());
        let answer = sender.send_request(request.map_err(Status::internal)?).await.map_err(Status::internal)?;
        let code = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        driver.abort();
        let bytes = body.map_err(Status::internal)?.to_bytes();
        if !code.is_success() {
            return Err(Status::internal(format!("the kubelet answered {code}")));
        }
        serde_json::from_slice(&bytes).map_err(Status::internal)
    }

    /// What the kubelets of these nodes say, by node; those that do not answer are missing.
    async fn usages(&self, engine: &Engine, nodes: Vec<String>) -> HashMap<String, NodeUsage> {
        let asked = nodes.into_iter().map(|node| async move {
            let address = kubelet_address(engine, &node);
            let asked = async { self.usage(address?).await };
            match tokio::time::timeout(ANSWER_WITHIN, asked).await {
                Ok(Ok(usage)) => Some((node, usage)),
                Ok(Err(status)) => {
                    tracing::debug!(%node, "no figures: {}", status.message);
                    None
                }
                Err(_) => {
                    tracing::debug!(%node, "no figures within {ANSWER_WITHIN:?}");
                    None
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// `nodes.metrics.k8s.io`.
pub struct NodeMetrics(pub Arc<Kubelets>);

#[async_trait]
impl Computed for NodeMetrics {
    fn place(&self) -> (&'static str, &'static str) {
        ("metrics.k8s.io", "nodes")
    }

    async fn objects(&self, engine: &Engine, asked: Asked<'_>) -> ApiResult<Vec<Value>> {
        let nodes = values(engine, "nodes", asked)?;
        let names = nodes.iter().map(|node| text(node, "name").to_owned()).collect();
        let usages = self.0.usages(engine, names).await;
        let metrics = |node: &Value| {
            let sample = usages.get(text(node, "name"))?.node.as_ref()?;
            let mut value = object("NodeMetrics", node, sample);
            value["usage"] = usage(sample);
            Some(value)
        };
        Ok(nodes.iter().filter_map(metrics).collect())
    }
}

/// `pods.metrics.k8s.io`.
pub struct PodMetrics(pub Arc<Kubelets>);

#[async_trait]
impl Computed for PodMetrics {
    fn place(&self) -> (&'static str, &'static str) {
        ("metrics.k8s.io", "pods")
    }

    async fn objects(&self, engine: &Engine, asked: Asked<'_>) -> ApiResult<Vec<Value>> {
        let pods = values(engine, "pods", asked)?;
        let node = |pod: &Value| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        let mut nodes: Vec<String> = pods.iter().map(node).filter(|name| !name.is_empty()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let usages = self.0.usages(engine, nodes).await;
        let by_pod: HashMap<(&str, &str, &str), &PodUsage> = usages
            .iter()
            .flat_map(|(node, usage)| usage.pods.iter().map(move |pod| (node, pod)))
            .map(|(node, pod)| ((node.as_str(), pod.namespace.as_str(), pod.name.as_str()), pod))
            .collect();
        let metrics = |pod: &Value| {
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            let found = by_pod.get(&(node, text(pod, "namespace"), text(pod, "name")))?;
            pod_metrics(pod, &found.containers)
        };
        Ok(pods.iter().filter_map(metrics).collect())
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// The objects asked for, from the cache.
fn values(engine: &Engine, plural: &str, asked: Asked<'_>) -> ApiResult<Vec<Value>> {
    let snapshot = engine.snapshot("", plural);
    let wanted = |key: &str| {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        (asked.namespace.is_empty() || asked.namespace == namespace) && asked.name.is_none_or(|wanted| wanted == name)
    };
    let found = snapshot.objects.iter().filter(|(key, _)| wanted(key));
    found.map(|(_, object)| serde_json::from_slice(&object.bytes).map_err(Status::internal)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_the_metrics_server_writes_them() {
        assert_eq!(window(10.05), "10.05s");
        assert_eq!(window(60.5), "1m0.5s");
        let sample = |time: &str| Sample { time: time.to_owned(), window: 10.0, cpu: 1_500_000, memory: 3 << 20 };
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}}});
        let both = HashMap::from([("b".to_owned(), sample("2")), ("a".to_owned(), sample("1"))]);
        let expected = json!({
            "kind": "PodMetrics",
            "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}, "creationTimestamp": "1"},
            "timestamp": "1",
            "window": "10s",
            "containers": [
                {"name": "a", "usage": {"cpu": "1500u", "memory": "3072Ki"}},
                {"name": "b", "usage": {"cpu": "1500u", "memory": "3072Ki"}},
            ],
        });
        assert_eq!(pod_metrics(&pod, &both), Some(expected));
        assert_eq!(pod_metrics(&pod, &HashMap::new()), None, "a pod without figures is not shown");
    }
}
