//! Gathers the facts about an object and hands them to the explanation.

use std::collections::BTreeMap;

use anyhow::Result;
use explain::{Cause, Claim, NamespaceFacts, NodeFacts, PodFacts, Report, WorkloadFacts};
use serde_json::Value;

use super::reader::{Reader, is_forbidden};
use super::traffic::{self, Depth};
use super::{CLAIM, INGRESS, KINDS, Kind, NAMESPACE, NODE, POD, REPLICA_SET, SERVICE, claims, room};

/// Objects in trouble of which a namespace's answer tells.
const TROUBLES_MAX: usize = 10;

pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The answer about an object; for a Service also about the way from a pod to it.
pub async fn report(reader: &Reader, kind: Kind, object: &Value, from: Option<&str>) -> Result<Report> {
    let (state, causes) = if kind == POD {
        (explain::pod_state(object, now()), pod(reader, object).await?)
    } else if kind == NODE {
        node(reader, object).await?
    } else if kind == NAMESPACE {
        namespace(reader, object).await?
    } else if kind == CLAIM {
        claims::claim(reader, object).await?
    } else if kind == SERVICE {
        traffic::service(reader, object, Depth::Whole, from).await?
    } else if kind == INGRESS {
        traffic::ingress(reader, object, Depth::Whole).await?
    } else {
        workload(reader, kind, object).await?
    };
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let kind = kind.name.to_owned();
    Ok(Report { kind, namespace: namespace.to_owned(), name: name.to_owned(), state, causes })
}

pub async fn pod(reader: &Reader, pod: &Value) -> Result<Vec<Cause>> {
    let claims = claims::of_pod(reader, pod).await?;
    pod_with(reader, pod, &claims).await
}

/// As `pod`, with what is known of its claims.
pub async fn pod_with(reader: &Reader, pod: &Value, claims: &[Claim]) -> Result<Vec<Cause>> {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let events = reader.events(namespace, text(pod, "/metadata/uid")).await?;
    let on = text(pod, "/spec/nodeName");
    let waits = on.is_empty() && text(pod, "/metadata/deletionTimestamp").is_empty();
    let (placement, nodes) = if waits {
        match room::placement(reader, pod).await {
            Ok((placement, nodes)) => (Some(placement), Some(nodes)),
            // Who may not see nodes and all pods is told what the scheduler said.
            Err(error) if is_forbidden(&error) => (None, None),
            Err(error) => return Err(error),
        }
    } else if on.is_empty() {
        (None, Some(Vec::new()))
    } else {
        match reader.object(NODE, "", on).await {
            Ok(node) => (None, Some(node.into_iter().collect())),
            Err(error) if is_forbidden(&error) => (None, None),
            Err(error) => return Err(error),
        }
    };
    let mut logs = BTreeMap::new();
    for (container, previous) in explain::wants_logs(pod) {
        if let Some(log) = reader.log(namespace, name, &container, previous).await {
            logs.insert(container, log);
        }
    }
    let facts = PodFacts {
        pod,
        events: &events,
        nodes: nodes.as_deref(),
        placement: placement.as_ref(),
        logs: &logs,
        missing_pull_secrets: &missing_pull_secrets(reader, pod).await?,
        claims,
        now: now(),
    };
    Ok(explain::pod(&facts))
}

async fn missing_pull_secrets(reader: &Reader, pod: &Value) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for secret in pod["spec"]["imagePullSecrets"].as_array().into_iter().flatten() {
        let name = text(secret, "/name");
        let path = format!("/api/v1/namespaces/{}/secrets/{name}", text(pod, "/metadata/namespace"));
        // Who may not read secrets is told the rest.
        if !name.is_empty() && matches!(reader.get(&path).await, Ok(None)) {
            missing.push(name.to_owned());
        }
    }
    Ok(missing)
}

async fn node(reader: &Reader, node: &Value) -> Result<(String, Vec<Cause>)> {
    let name = text(node, "/metadata/name");
    let lease = reader.get(&format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")).await?;
    let causes = explain::node(&NodeFacts { node, lease: lease.as_ref(), now: now() });
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True");
    let cordoned = if node["spec"]["unschedulable"] == true { ", SchedulingDisabled" } else { "" };
    Ok((format!("{}{cordoned}", if ready { "Ready" } else { "NotReady" }), causes))
}

fn is_owned(object: &Value, owner: &Value) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners
        .into_iter()
        .flatten()
        .any(|reference| reference["controller"] == true && text(reference, "/uid") == text(owner, "/metadata/uid"))
}

async fn workload(reader: &Reader, kind: Kind, object: &Value) -> Result<(String, Vec<Cause>)> {
    let namespace = text(object, "/metadata/namespace");
    let all = reader.list("/api/v1", "pods", namespace, "").await?;
    workload_with(reader, kind, object, &all).await
}

/// As `workload`, with the pods of its namespace.
pub async fn workload_with(reader: &Reader, kind: Kind, object: &Value, all: &[Value]) -> Result<(String, Vec<Cause>)> {
    let namespace = text(object, "/metadata/namespace");
    let mut events = reader.events(namespace, text(object, "/metadata/uid")).await?;
    let mut sets = Vec::new();
    if kind.name == "Deployment" {
        sets = reader.list(REPLICA_SET.api, REPLICA_SET.plural, namespace, "").await?;
        sets.retain(|set| is_owned(set, object));
        sets.sort_by_key(|set| std::cmp::Reverse(revision(set)));
        if let Some(newest) = sets.first() {
            events.extend(reader.events(namespace, text(newest, "/metadata/uid")).await?);
        }
    }
    let owners: Vec<&Value> = if kind.name == "Deployment" { sets.iter().collect() } else { vec![object] };
    let of = |owners: &[&Value]| -> Vec<Value> {
        all.iter().filter(|pod| owners.iter().any(|owner| is_owned(pod, owner))).cloned().collect()
    };
    let pods = of(&owners);
    // Trouble with the newest template explains a rollout; an older one's only when the newest has none.
    let newest = of(owners.get(..1).unwrap_or_default());
    let mut worst = None;
    for group in [&newest, &pods] {
        let Some(candidate) = explain::worst(group, now()) else { continue };
        let causes = pod(reader, candidate).await?;
        if !causes.is_empty() {
            worst = Some((text(candidate, "/metadata/name"), causes));
            break;
        }
    }
    let facts = WorkloadFacts {
        kind: kind.name,
        object,
        events: &events,
        replica_set: sets.first(),
        pods: &pods,
        worst: worst.as_ref().map(|(name, causes)| (*name, causes.as_slice())),
        now: now(),
    };
    Ok((facts.state(), explain::workload(&facts)))
}

fn revision(set: &Value) -> i64 {
    set.pointer("/metadata/annotations/deployment.kubernetes.io~1revision")
        .and_then(Value::as_str)
        .and_then(|revision| revision.parse().ok())
        .unwrap_or(0)
}

async fn namespace(reader: &Reader, namespace: &Value) -> Result<(String, Vec<Cause>)> {
    let name = text(namespace, "/metadata/name");
    let mut troubles = Vec::new();
    if text(namespace, "/metadata/deletionTimestamp").is_empty() {
        let pods = reader.list("/api/v1", "pods", name, "").await?;
        let owned = |object: &Value| object.pointer("/metadata/ownerReferences/0").is_some();
        for kind in KINDS.iter().filter(|kind| kind.namespaced) {
            let objects =
                if *kind == POD { pods.clone() } else { reader.list(kind.api, kind.plural, name, "").await? };
            for object in objects.iter().filter(|object| !owned(object)) {
                if troubles.len() >= TROUBLES_MAX {
                    break;
                }
                let causes = if *kind == POD {
                    pod(reader, object).await?
                } else if *kind == CLAIM {
                    claims::claim(reader, object).await?.1
                } else if *kind == SERVICE {
                    traffic::service(reader, object, Depth::Alone, None).await?.1
                } else if *kind == INGRESS {
                    traffic::ingress(reader, object, Depth::Alone).await?.1
                } else {
                    workload_with(reader, *kind, object, &pods).await?.1
                };
                if !causes.is_empty() && !is_meant(object) {
                    troubles.push((format!("{} {}", kind.name.to_lowercase(), text(object, "/metadata/name")), causes));
                }
            }
        }
    }
    let phase = text(namespace, "/status/phase");
    let causes = explain::namespace(&NamespaceFacts { namespace, troubles: &troubles });
    Ok((phase.to_owned(), causes))
}

/// What was scaled to nothing or suspended is as its owner wants it.
fn is_meant(object: &Value) -> bool {
    object.pointer("/spec/replicas").and_then(Value::as_i64) == Some(0) || object["spec"]["suspend"] == true
}
