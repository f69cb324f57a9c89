//! The autoscaler against a whole API server whose pods use what the test says.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use apiserver::Config;
use http::{Request, Response};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use serde_json::{Value, json};
use testkit::{AllowAll, NobodyElse, TestServer, make, until};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the metrics' APIs say.
#[derive(Clone, Default)]
struct Figures {
    /// Thousandths of a core that every pod uses.
    load: Arc<AtomicI64>,
    /// Whether there are custom and external metrics.
    adapter: bool,
}

impl Figures {
    fn of(load: i64) -> Self {
        Self { load: Arc::new(AtomicI64::new(load)), ..Self::default() }
    }

    /// The items of an answer; `None`: the API server answers itself.
    async fn items(&self, client: &Client, path: &str) -> kube::Result<Option<Vec<Value>>> {
        if !path.contains(".metrics.k8s.io/") && !path.starts_with("/apis/metrics.k8s.io/") {
            return Ok(None);
        }
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        let pods = pods.list(&ListParams::default()).await?.items;
        let now = Timestamp::now().to_string();
        let used = format!("{}m", self.load.load(Ordering::Relaxed));
        let one = |value: &str| json!({"timestamp": now, "value": value});
        Ok(match path {
            "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods" => {
                let usage = json!([{"name": "c", "usage": {"cpu": used, "memory": "1Mi"}}]);
                let of = |pod: &Pod| json!({"metadata": {"name": pod.metadata.name}, "timestamp": now, "window": "10s", "containers": usage});
                Some(pods.iter().map(of).collect())
            }
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/rps" if self.adapter => {
                let of = |pod: &Pod| json!({"describedObject": {"name": pod.metadata.name}, "timestamp": now, "value": "10"});
                Some(pods.iter().map(of).collect())
            }
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/ingresses.networking.k8s.io/main/hits"
                if self.adapter =>
            {
                Some(vec![one("20")])
            }
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue" if self.adapter => {
                Some(vec![one("10"), one("20")])
            }
            _ => None,
        })
    }

    /// With an adapter, discovery names its group too.
    async fn groups(&self, client: &Client) -> kube::Result<Value> {
        let request = Request::get("/apis").body(Vec::new()).map_err(kube::Error::HttpError)?;
        let mut groups: Value = client.request(request).await?;
        if let Some(groups) = groups["groups"].as_array_mut().filter(|_| self.adapter) {
            let version = json!({"groupVersion": "custom.metrics.k8s.io/v1beta1", "version": "v1beta1"});
            groups.push(json!({"name": "custom.metrics.k8s.io", "preferredVersion": version, "versions": [version]}));
        }
        Ok(groups)
    }
}

/// A client that answers reads of metrics itself.
fn measured(client: &Client, figures: Figures) -> Client {
    let inner = client.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, figures) = (inner.clone(), figures.clone());
        async move {
            let path = request.uri().path();
            let body = match figures.items(&client, path).await? {
                Some(items) => json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}),
                None if path == "/apis" => figures.groups(&client).await?,
                None => return client.send(request).await,
            };
            Response::builder().body(Body::from(body.to_string().into_bytes())).map_err(kube::Error::HttpError)
        }
    });
    Client::new(service, "default")
}

/// Every pod runs, and has been ready for an hour.
async fn run_pods(client: Client) {
    let api: Api<Pod> = Api::default_namespaced(client);
    let ago = (Timestamp::now() - SignedDuration::from_hours(1)).as_second();
    let ago = Timestamp::from_second(ago).unwrap().to_string();
    loop {
        for pod in api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
            let pending = pod.status.and_then(|status| status.phase).is_none_or(|phase| phase == "Pending");
            if pending {
                let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": ago}]);
                let status = json!({"status": {"phase": "Running", "startTime": ago, "conditions": ready}});
                let name = pod.metadata.name.unwrap();
                drop(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start(figures: &Figures) -> (TestServer, DropGuard) {
    let test = TestServer::start_with(Config::new(Arc::new(NobodyElse), Arc::new(AllowAll))).await;
    let stop = CancellationToken::new();
    let client = measured(&test.client, figures.clone());
    tokio::spawn(controllers::run(controllers::Config::default(), client, stop.clone()));
    let (kubelet, ended) = (run_pods(test.client.clone()), stop.clone());
    tokio::spawn(async move { ended.run_until_cancelled(kubelet).await });
    (test, stop.drop_guard())
}

fn scaler(name: &str, target: Value, more: Value) -> Value {
    let mut scaler = json!({"metadata": {"name": name}, "spec": {"scaleTargetRef": target, "maxReplicas": 3}});
    reconcile::plan::merge(&mut scaler["spec"], &more);
    scaler
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name})
}

/// A Deployment of one pod, which is ready.
async fn deploy(client: &Client, name: &str, resources: Value) -> Api<Deployment> {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let app = json!({"metadata": {"name": name}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [
            {"name": "c", "image": "i", "resources": resources}]}}}});
    make(&deployments, app).await;
    let ready = || async { deployments.get(name).await.ok()?.status?.ready_replicas.filter(|ready| *ready == 1) };
    until("the first pod", ready).await;
    deployments
}

#[tokio::test]
async fn load_is_followed_up_and_down() {
    let figures = Figures::of(900);
    let (test, _stop) = start(&figures).await;
    let deployments = deploy(&test.client, "web", json!({"requests": {"cpu": "1"}})).await;
    let scalers: Api<HorizontalPodAutoscaler> = Api::default_namespaced(test.client.clone());
    let spec = json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}});
    make(&scalers, scaler("web", deployment("web"), spec)).await;
    let replicas = |wanted: i32| {
        let deployments = deployments.clone();
        move || {
            let deployments = deployments.clone();
            async move { deployments.get("web").await.ok()?.spec?.replicas.filter(|replicas| *replicas == wanted) }
        }
    };
    until("more pods", replicas(2)).await;
    let events: Api<Event> = Api::default_namespaced(test.client.clone());
    let told = || async {
        let list = events.list(&ListParams::default().fields("reason=SuccessfulRescale")).await.ok()?;
        list.items.into_iter().find_map(|event| event.message)
    };
    let why = "New size: 2; reason: cpu resource utilization (percentage of request) above target";
    assert_eq!(until("the event", told).await, why);
    figures.load.store(0, Ordering::Relaxed);
    until("fewer pods", replicas(1)).await;
    let status = || async { scalers.get("web").await.ok()?.status.filter(|status| status.desired_replicas == 1) };
    let status = until("the status", status).await;
    assert!(status.last_scale_time.is_some());
    let active = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "ScalingActive").unwrap();
    assert_eq!((active.status.as_str(), active.reason.as_deref()), ("True", Some("ValidMetricFound")));
}

#[tokio::test]
async fn custom_kinds_are_scaled_and_missing_targets_told() {
    let (test, _stop) = start(&Figures::default()).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(test.client.clone());
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let scale = json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
    let definition = json!({"metadata": {"name": "farms.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "farms", "kind": "Farm"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": schema}, "subresources": {"scale": scale}}]}});
    make(&definitions, definition).await;
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", "v1", "Farm"), "farms");
    let farms: Api<DynamicObject> = Api::default_namespaced_with(test.client.clone(), &resource);
    let farm = DynamicObject::new("north", &resource).data(json!({"spec": {"replicas": 9}}));
    until("the kind is served", || async { farms.create(&PostParams::default(), &farm).await.ok() }).await;
    let scalers: Api<HorizontalPodAutoscaler> = Api::default_namespaced(test.client.clone());
    let target = json!({"apiVersion": "example.com/v1", "kind": "Farm", "name": "north"});
    make(&scalers, scaler("north", target, json!({}))).await;
    until("the farm shrinks", || async {
        (farms.get("north").await.ok()?.data["spec"]["replicas"] == 3).then_some(())
    })
    .await;
    for (name, version, kind, why) in [
        ("gone", "apps/v1", "Deployment", "deployments.apps \"gone\" not found"),
        ("odd", "apps/v1", "Shed", "no matches for kind \"Shed\" in group \"apps\""),
    ] {
        let target = json!({"apiVersion": version, "kind": kind, "name": name});
        make(&scalers, scaler(name, target, json!({}))).await;
        let message = format!("the HPA controller was unable to get the target's current scale: {why}");
        assert_eq!(condition(&scalers, name, "AbleToScale").await, told(false, "FailedGetScale", &message));
    }
}

fn told(status: bool, reason: &str, message: &str) -> (String, String, String) {
    ((if status { "True" } else { "False" }).to_owned(), reason.to_owned(), message.to_owned())
}

/// Status, reason and message of a condition, once there is one.
async fn condition(scalers: &Api<HorizontalPodAutoscaler>, name: &str, kind: &str) -> (String, String, String) {
    let found = || async {
        let conditions = scalers.get(name).await.ok()?.status?.conditions?;
        let one = conditions.into_iter().find(|condition| condition.type_ == kind)?;
        Some((one.status, one.reason.unwrap_or_default(), one.message.unwrap_or_default()))
    };
    until(kind, found).await
}

/// An autoscaler, what its metric is, and why that cannot be had.
fn unmeasured() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let average = json!({"type": "AverageValue", "averageValue": "5"});
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"});
    let percent = json!({"type": "Utilization", "averageUtilization": 50});
    vec![
        (
            "bare",
            json!({"type": "Resource", "resource": {"name": "cpu", "target": percent}}),
            "FailedGetResourceMetric",
            "failed to get cpu utilization: missing request for cpu in container c of Pod POD",
        ),
        (
            "absent",
            json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "d", "target": percent}}),
            "FailedGetContainerResourceMetric",
            "failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)",
        ),
        (
            "busy",
            json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": average}}),
            "FailedGetPodsMetric",
            "unable to get metric rps: unable to fetch metrics from custom metrics API: no custom metrics API \
             (custom.metrics.k8s.io) registered",
        ),
        (
            "visited",
            json!({"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": ingress, "target": average}}),
            "FailedGetObjectMetric",
            "unable to get metric hits: unable to fetch metrics from custom metrics API: no custom metrics API \
             (custom.metrics.k8s.io) registered on Ingress default/main",
        ),
        (
            "queued",
            json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": average}}),
            "FailedGetExternalMetric",
            "unable to get external metric default/queue/nil: unable to fetch metrics from external metrics API: the \
             server could not find the requested resource (get queue.external.metrics.k8s.io)",
        ),
    ]
}

#[tokio::test]
async fn what_cannot_be_measured_is_told_in_upstreams_words() {
    let (test, _stop) = start(&Figures::of(1)).await;
    let scalers: Api<HorizontalPodAutoscaler> = Api::default_namespaced(test.client.clone());
    let pods: Api<Pod> = Api::default_namespaced(test.client.clone());
    let events: Api<Event> = Api::default_namespaced(test.client.clone());
    for (name, metric, reason, why) in unmeasured() {
        deploy(&test.client, name, json!({})).await;
        let found = pods.list(&ListParams::default().labels(&format!("app={name}"))).await.unwrap().items;
        let why = why.replace("POD", found[0].metadata.name.as_deref().unwrap());
        make(&scalers, scaler(name, deployment(name), json!({"metrics": [metric]}))).await;
        let message = format!("the HPA was unable to compute the replica count: {why}");
        assert_eq!(condition(&scalers, name, "ScalingActive").await, told(false, reason, &message));
        assert_eq!(condition(&scalers, name, "AbleToScale").await.0, "True");
        for reason in [reason, "FailedComputeMetricsReplicas"] {
            let fields = format!("involvedObject.name={name},reason={reason}");
            let list = ListParams::default().fields(&fields);
            let told = || async { events.list(&list).await.ok()?.items.pop()?.message };
            let told = until("the event", told).await;
            assert!(told.ends_with(&why), "{told}");
        }
    }
}

#[tokio::test]
async fn custom_and_external_metrics_are_found_by_discovery() {
    let (test, _stop) = start(&Figures { adapter: true, ..Figures::default() }).await;
    let deployments = deploy(&test.client, "web", json!({})).await;
    let scalers: Api<HorizontalPodAutoscaler> = Api::default_namespaced(test.client.clone());
    let mut metrics: Vec<Value> = unmeasured().into_iter().skip(2).map(|(_, metric, ..)| metric).collect();
    metrics[1]["object"]["target"] = json!({"type": "Value", "value": "20"});
    metrics[2]["external"]["target"]["averageValue"] = "10".into();
    let spec = json!({ "metrics": metrics });
    make(&scalers, scaler("web", deployment("web"), spec)).await;
    let grown = || async { deployments.get("web").await.ok()?.spec?.replicas.filter(|replicas| *replicas == 3) };
    until("more pods", grown).await;
    let events: Api<Event> = Api::default_namespaced(test.client.clone());
    let told = || async {
        let list = events.list(&ListParams::default().fields("reason=SuccessfulRescale")).await.ok()?;
        list.items.into_iter().find_map(|event| event.message)
    };
    assert_eq!(until("the event", told).await, "New size: 3; reason: external metric queue(nil) above target");
    let measured = || async {
        let current = scalers.get("web").await.ok()?.status?.current_metrics?;
        let text = |quantity: Option<Quantity>| quantity.map(|quantity| quantity.0);
        let pods = text(current.first()?.pods.as_ref()?.current.average_value.clone())?;
        let object = text(current.get(1)?.object.as_ref()?.current.value.clone())?;
        Some((pods, object, text(current.get(2)?.external.as_ref()?.current.average_value.clone())?))
    };
    // Thirty in the queue, for one pod.
    assert_eq!(until("the figures", measured).await, ("10".to_owned(), "20".to_owned(), "30".to_owned()));
}
