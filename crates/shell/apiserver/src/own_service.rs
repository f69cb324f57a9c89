//! The `kubernetes` Service, through which pods find the API server: what is removed of it comes back.

use std::sync::Arc;
use std::time::Duration;

use meta::GroupResource;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::bootstrap;
use crate::cache::{Delivery, EventType, Filter};
use crate::engine::Engine;
use crate::server::StartError;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// The parts of it, by group and resource.
const PARTS: [(&str, &str); 3] = [("", "services"), ("", "endpoints"), ("discovery.k8s.io", "endpointslices")];
/// Between a failed write and the next attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Under this port pods find the API server's service.
const SERVICE_PORT: u16 = 443;

fn service_at(ip: &str) -> Value {
    let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": [family],
            "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "https", "port": SERVICE_PORT, "protocol": "TCP", "targetPort": SERVICE_PORT}]}})
}

/// Where the service leads: the address that this server was told to advertise.
fn endpoints(address: std::net::SocketAddr) -> [Value; 2] {
    let (ip, port) = (address.ip().to_string(), address.port());
    let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    [
        json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": ip}], "ports": ports}]}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": family, "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}], "ports": ports}),
    ]
}

/// The Service, where this server has an address for it.
pub fn service(engine: &Engine) -> Option<Value> {
    engine.config.service_ip.map(|ip| service_at(&ip.to_string()))
}

/// Makes the Service where it is missing, and its endpoints what this server advertises.
pub async fn settle(engine: &Engine) -> Result<(), StartError> {
    if let Some(service) = service(engine) {
        bootstrap::ensure(engine, service).await?;
    }
    // Pods do not reach a loopback address.
    for object in engine.config.advertise.filter(|address| !address.ip().is_loopback()).into_iter().flat_map(endpoints)
    {
        bootstrap::settle(engine, object).await?;
    }
    Ok(())
}

/// Brings back what is deleted, until `stop`.
pub fn start(engine: &Arc<Engine>, stop: &CancellationToken) {
    for (group, resource) in PARTS {
        let (engine, stop) = (engine.clone(), stop.clone());
        let of = GroupResource::new(group, resource);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(&engine, &of) => {}
            }
        });
    }
}

async fn follow(engine: &Engine, of: &GroupResource) {
    let filter = || Filter { namespace: Some(NAMESPACE.to_owned()), name: Some(NAME.to_owned()), ..Filter::default() };
    loop {
        let resource = engine.cache.resource(of);
        let (_, mut opened) = resource.snapshot_and_watch(filter(), engine.cache.reached());
        while let Some(delivery) = opened.receiver.recv().await {
            if !matches!(delivery, Delivery::Change(EventType::Deleted, _)) {
                continue;
            }
            while let Err(error) = settle(engine).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot restore the kubernetes service yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        resource.close(&opened.id);
    }
}
