//! The official Rust client against a running cluster: what kubectl does in the tour, by the library.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Scope};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{
    Api, AttachParams, DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Client, Config};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAMESPACE: &str = "kube-rs";
const WITHIN: Duration = Duration::from_secs(60);

pub fn kube_rs(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, NAMESPACE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = connect(cluster).await?;
        objects(&client).await.context("objects")?;
        let pod = deployment(&client).await.context("a Deployment")?;
        proxied(&client, &pod).await.context("the proxy of a pod")?;
        tokio::time::timeout(WITHIN, streams(&client, &pod)).await.context("streams hang")?.context("streams")?;
        evict(&client, &pod).await.context("an eviction")
    })?;
    scope.delete()
}

/// A client with the rights of this cluster's administrator.
pub async fn connect(cluster: &Cluster) -> Result<Client> {
    let file = kube::config::Kubeconfig::read_from(cluster.dir().join("admin.kubeconfig"))?;
    let config = Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn objects(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let version = maps.list(&ListParams::default()).await?.metadata.resource_version.context("no version")?;
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "1"}}))?;
    maps.create(&PostParams::default(), &map).await?;
    let merge = json!({"data": {"k": "2"}});
    let merged = maps.patch("a", &PatchParams::default(), &Patch::Merge(&merge)).await?;
    ensure!(merged.data.is_some_and(|data| data["k"] == "2"));
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"other": "3"}});
    let applied = maps.patch("a", &PatchParams::apply("e2e").force(), &Patch::Apply(&apply)).await?;
    ensure!(applied.data.is_some_and(|data| data.len() == 2), "apply keeps what others own");
    ensure!(maps.list(&ListParams::default().labels("x=y").limit(1)).await?.items.len() == 1);
    maps.delete("a", &DeleteParams::default()).await?;
    let events = maps.watch(&WatchParams::default().labels("x"), &version).await?.take(4).try_collect::<Vec<_>>();
    let events = tokio::time::timeout(WITHIN, events).await.context("the watch is silent")??;
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            _ => "other",
        })
        .collect();
    ensure!(kinds == ["added", "modified", "modified", "deleted"], "{kinds:?}");
    let missing = maps.get("a").await.err().context("it is gone")?;
    ensure!(matches!(&missing, kube::Error::Api(status) if status.code == 404 && status.reason == "NotFound"));
    Ok(())
}

/// Waits until an object is as wanted.
pub async fn reached<K>(api: Api<K>, name: &str, condition: impl Condition<K>) -> Result<Option<K>>
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
{
    let reached = tokio::time::timeout(WITHIN, await_condition(api, name, condition));
    Ok(reached.await.with_context(|| format!("{name} does not get there"))??)
}

/// Whatever the method, the pod answers, and not who stands before it.
async fn proxied(client: &Client, pod: &str) -> Result<()> {
    for method in ["GET", "PUT", "OPTIONS"] {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/");
        let request = http::Request::builder().method(method).uri(path).body(Vec::new())?;
        let text = client.request_text(request).await.context(method)?;
        ensure!(text.starts_with(pod), "{method}: {text:?}");
    }
    Ok(())
}

/// Makes a Deployment, scales it and gives it another template; answers one of its pods.
async fn deployment(client: &Client) -> Result<String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let demo: Deployment = serde_json::from_value(json!({"metadata": {"name": "demo"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "demo"}},
        "template": {"metadata": {"labels": {"app": "demo"}}, "spec": {"containers": [
            {"name": "demo", "image": "tug.local/demo:latest", "imagePullPolicy": "IfNotPresent"},
            {"name": "shell", "image": e2e::BUSYBOX, "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/busybox", "sh", "-c", "echo begun; exec /bin/busybox sleep 100000"]}],
            "terminationGracePeriodSeconds": 1}}}}))?;
    deployments.create(&PostParams::default(), &demo).await?;
    let available = |wanted: i32| {
        move |found: Option<&Deployment>| {
            found.is_some_and(|found| {
                let status = found.status.clone().unwrap_or_default();
                status.observed_generation == found.metadata.generation
                    && [status.available_replicas, status.updated_replicas, status.replicas] == [Some(wanted); 3]
            })
        }
    };
    reached(deployments.clone(), "demo", available(1)).await?;
    let two = json!({"spec": {"replicas": 2}});
    deployments.patch_scale("demo", &PatchParams::default(), &Patch::Merge(&two)).await?;
    ensure!(deployments.get_scale("demo").await?.spec.and_then(|spec| spec.replicas) == Some(2));
    deployments.restart("demo").await?;
    reached(deployments, "demo", available(2)).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let running = pods.list(&ListParams::default().labels("app=demo").fields("status.phase=Running")).await?;
    let pod = running.items.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none()).context("no pod")?;
    let name = pod.metadata.name.context("no name")?;
    reached(pods, &name, is_pod_running()).await?;
    let nodes = Api::<Node>::all(client.clone());
    let node = pod.spec.and_then(|spec| spec.node_name).context("no node")?;
    nodes.cordon(&node).await?;
    ensure!(nodes.get(&node).await?.spec.and_then(|spec| spec.unschedulable) == Some(true));
    nodes.uncordon(&node).await?;
    Ok(name)
}

async fn streams(client: &Client, pod: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let params = LogParams { container: Some("shell".to_owned()), follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream(pod, &params).await?.lines();
    let line = tokio::time::timeout(WITHIN, lines.try_next()).await.context("no line")??;
    ensure!(line.as_deref() == Some("begun"), "{line:?}");
    drop(lines);

    let shell = AttachParams::default().container("shell").stdin(true).stderr(false);
    let mut upper = pods.exec(pod, ["/bin/busybox", "tr", "a-z", "A-Z"], &shell).await?;
    let mut input = upper.stdin().context("no input")?;
    input.write_all(b"shout").await?;
    input.shutdown().await?;
    let mut said = String::new();
    upper.stdout().context("no output")?.read_to_string(&mut said).await?;
    ensure!(said == "SHOUT", "{said:?}");
    let status = upper.take_status().context("no status")?.await.context("no end")?;
    ensure!(status.status.as_deref() == Some("Success"), "{status:?}");
    let output = AttachParams::default().container("shell");
    let mut fails = pods.exec(pod, ["/bin/busybox", "sh", "-c", "exit 7"], &output).await?;
    let status = fails.take_status().context("no status")?.await.context("no end")?;
    ensure!(status.reason.as_deref() == Some("NonZeroExitCode"), "{status:?}");

    let mut forward = pods.portforward(pod, &[8080]).await?;
    let mut stream = forward.take_stream(8080).context("no stream")?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    Ok(())
}

async fn evict(client: &Client, pod: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    pods.evict(pod, &EvictParams::default()).await?;
    reached(pods, pod, |found: Option<&Pod>| found.is_none()).await.map(drop)
}
