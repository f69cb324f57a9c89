//! Gathers the facts about Services and Ingresses.

use std::collections::BTreeMap;

use anyhow::Result;
use explain::{Attempt, Backend, Cause, Certificate, IngressFacts, ServiceFacts};
use serde_json::Value;

use super::caller::caller;
use super::gather::{self, text};
use super::reader::{Reader, is_forbidden};
use super::{KINDS, SERVICE, certificate};

pub const NETWORKING: &str = "/apis/networking.k8s.io/v1";
const DISCOVERY: &str = "/apis/discovery.k8s.io/v1";

/// How a Service is asked about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// With what stands in the way of its pods.
    Whole,
    /// Without what is told of the pods themselves, and without knocking at them.
    Alone,
}

pub async fn service(
    reader: &Reader,
    service: &Value,
    depth: Depth,
    from: Option<&str>,
) -> Result<(String, Vec<Cause>)> {
    let (namespace, name) = (text(service, "/metadata/namespace"), text(service, "/metadata/name"));
    let pods = reader.list("/api/v1", "pods", namespace, "").await?;
    let of_service = format!("&labelSelector=kubernetes.io%2Fservice-name%3D{name}");
    let slices = reader.list_if_allowed(DISCOVERY, "endpointslices", namespace, &of_service).await?;
    let policies = reader.list_if_allowed(NETWORKING, "networkpolicies", namespace, "").await?;
    let events = reader.events(namespace, text(service, "/metadata/uid")).await?;
    let selected: Vec<Value> = explain::selected(service, &pods).into_iter().cloned().collect();
    let mut worst = None;
    let mut attempts = Vec::new();
    if depth == Depth::Whole {
        if let Some(pod) = explain::worst(&selected, gather::now()) {
            worst = Some((text(pod, "/metadata/name"), gather::pod(reader, pod).await?));
        }
        for (pod, port) in explain::wants_attempts(service, &pods) {
            if let Some(listening) = reader.knock(namespace, &pod, port).await {
                attempts.push(Attempt { pod, port, listening });
            }
        }
    }
    let maker = if selected.is_empty() { maker(reader, service, &pods, depth).await? } else { None };
    let nodes = nodes(reader).await?;
    let caller = match from {
        Some(from) => Some(caller(reader, from, service, &pods).await?),
        None => None,
    };
    let facts = ServiceFacts {
        service,
        events: &events,
        slices: &slices,
        pods: &pods,
        worst: worst.as_ref().filter(|(_, causes)| !causes.is_empty()).map(|(pod, causes)| (*pod, causes.as_slice())),
        maker: maker.as_ref().map(|(maker, causes)| (maker.as_str(), causes.as_slice())),
        policies: &policies,
        attempts: &attempts,
        caller: caller.as_ref(),
        nodes: nodes.as_deref(),
        now: gather::now(),
    };
    let causes = if depth == Depth::Alone { explain::service_alone(&facts) } else { explain::service(&facts) };
    Ok((facts.state(), causes))
}

/// The workload that is to make the Service's pods, and what stands in its way.
async fn maker(reader: &Reader, service: &Value, pods: &[Value], depth: Depth) -> Result<Option<(String, Vec<Cause>)>> {
    for kind in KINDS.iter().filter(|kind| kind.is_workload()) {
        let all = reader.list_if_allowed(kind.api, kind.plural, text(service, "/metadata/namespace"), "").await?;
        let Some(found) = all.iter().find(|workload| explain::makes_pods_of(workload, service)) else { continue };
        let causes = match depth {
            Depth::Whole => gather::workload_with(reader, *kind, found, pods).await?.1,
            Depth::Alone => Vec::new(),
        };
        return Ok(Some((format!("{} {}", kind.name.to_lowercase(), text(found, "/metadata/name")), causes)));
    }
    Ok(None)
}

/// Names of the nodes that are ready.
async fn nodes(reader: &Reader) -> Result<Option<Vec<String>>> {
    let nodes = match reader.list("/api/v1", "nodes", "", "").await {
        Err(error) if is_forbidden(&error) => return Ok(None),
        nodes => nodes?,
    };
    let ready = |node: &&Value| {
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    Ok(Some(nodes.iter().filter(ready).map(|node| text(node, "/metadata/name").to_owned()).collect()))
}

pub async fn ingress(reader: &Reader, ingress: &Value, depth: Depth) -> Result<(String, Vec<Cause>)> {
    let namespace = text(ingress, "/metadata/namespace");
    let events = reader.events(namespace, text(ingress, "/metadata/uid")).await?;
    let classes = match reader.list(NETWORKING, "ingressclasses", "", "").await {
        Err(error) if is_forbidden(&error) => None,
        classes => Some(classes?),
    };
    let mut services = BTreeMap::new();
    for name in explain::backend_names(ingress) {
        let found = reader.object(SERVICE, namespace, &name).await?;
        let causes = match &found {
            Some(found) if depth == Depth::Whole => service(reader, found, depth, None).await?.1,
            _ => Vec::new(),
        };
        services.insert(name, (found, causes));
    }
    let backends: Vec<Backend<'_>> =
        services.iter().map(|(name, (service, causes))| Backend { name, service: service.as_ref(), causes }).collect();
    let mut certificates = Vec::new();
    for (secret, hosts) in explain::certificate_names(ingress) {
        let state = match reader.get(&format!("/api/v1/namespaces/{namespace}/secrets/{secret}")).await {
            Err(error) if is_forbidden(&error) => Certificate::Hidden,
            found => found?.map_or(Certificate::Missing, |found| certificate::judge(&found, &hosts, gather::now())),
        };
        certificates.push((secret, state));
    }
    let facts = IngressFacts {
        ingress,
        events: &events,
        classes: classes.as_deref(),
        backends: &backends,
        certificates: &certificates,
        now: gather::now(),
    };
    Ok((explain::ingress_state(ingress), explain::ingress(&facts)))
}
