//! Gathers the facts about PersistentVolumeClaims.

use anyhow::Result;
use explain::{Cause, Claim, ClaimFacts};
use serde_json::Value;

use super::CLAIM;
use super::gather::{self, text};
use super::reader::{Reader, is_forbidden};

const STORAGE: &str = "/apis/storage.k8s.io/v1";

/// A claim that is asked about itself.
pub async fn claim(reader: &Reader, claim: &Value) -> Result<(String, Vec<Cause>)> {
    let (namespace, name) = (text(claim, "/metadata/namespace"), text(claim, "/metadata/name"));
    let mut pods = reader.list_if_allowed("/api/v1", "pods", namespace, "").await?;
    pods.retain(|pod| explain::uses_claim(pod, name));
    let unplaced = |pod: &&Value| text(pod, "/spec/nodeName").is_empty() && text(pod, "/status/phase") == "Pending";
    let waiting = match pods.iter().find(unplaced) {
        // Its other claims may wait for it in turn: they are not looked into.
        Some(pod) => Some((text(pod, "/metadata/name"), gather::pod_with(reader, pod, &[]).await?)),
        None => None,
    };
    let waiting = waiting.as_ref().map(|(pod, causes)| (*pod, causes.as_slice()));
    Ok((explain::claim_state(claim), causes(reader, claim, &pods, waiting, false).await?))
}

async fn causes(
    reader: &Reader,
    claim: &Value,
    pods: &[Value],
    waiting: Option<(&str, &[Cause])>,
    for_pod: bool,
) -> Result<Vec<Cause>> {
    let namespace = text(claim, "/metadata/namespace");
    let events = reader.events(namespace, text(claim, "/metadata/uid")).await?;
    let hidden = |error: anyhow::Error| if is_forbidden(&error) { Ok(None) } else { Err(error) };
    let classes = reader.list(STORAGE, "storageclasses", "", "").await.map(Some).or_else(hidden)?;
    let volumes = reader.list("/api/v1", "persistentvolumes", "", "").await.map(Some).or_else(hidden)?;
    Ok(explain::claim(&ClaimFacts {
        claim,
        events: &events,
        classes: classes.as_deref(),
        volumes: volumes.as_deref(),
        pods,
        waiting,
        for_pod,
        now: gather::now(),
    }))
}

/// The claims that a pod's volumes name, each with what stands in its way.
pub async fn of_pod(reader: &Reader, pod: &Value) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        let Some(name) = explain::claim_of(pod, volume) else { continue };
        let claim = match reader.object(CLAIM, text(pod, "/metadata/namespace"), &name).await {
            Err(error) if is_forbidden(&error) => continue,
            claim => claim?,
        };
        let Some(claim) = claim else {
            claims.push(Claim { name, ..Claim::default() });
            continue;
        };
        let phase = Some(text(&claim, "/status/phase")).filter(|phase| !phase.is_empty()).unwrap_or("Pending");
        let bound = phase == "Bound";
        let causes =
            if bound { Vec::new() } else { causes(reader, &claim, std::slice::from_ref(pod), None, true).await? };
        let class = text(&claim, "/spec/storageClassName").to_owned();
        claims.push(Claim { name, phase: Some(phase.to_owned()), class, causes });
    }
    Ok(claims)
}
