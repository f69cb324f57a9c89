//! Asks the rules of network policies whether a pod may reach the pods of a Service.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use explain::Caller;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netplan::policy::judge::{Connection, World};
use netplan::policy::view::{Direction, Labels, PodView, PolicyView};
use netplan::view::{Key, Protocol};
use serde::Deserialize;
use serde_json::Value;

use super::POD;
use super::gather::text;
use super::reader::Reader;
use super::traffic::NETWORKING;

/// How policies stand between a pod, named `NAME` or `NAMESPACE/NAME`, and the Service. `pods` are those of the Service's
/// namespace.
pub async fn caller(reader: &Reader, from: &str, service: &Value, pods: &[Value]) -> Result<Caller> {
    let here = text(service, "/metadata/namespace");
    let (namespace, name) = from.split_once('/').unwrap_or((here, from));
    let Some(source) = reader.object(POD, namespace, name).await? else {
        bail!("there is no pod called {name:?} in namespace {namespace:?}; name one as --from NAMESPACE/POD");
    };
    let world = world(reader, namespace, here, pods.iter().chain([&source])).await?;
    let Some(source_address) = address(&source) else {
        bail!("pod {name} has no address yet; see: tug why pod {name} -n {namespace}");
    };
    let mut caller = Caller { name: format!("pod {name}"), ..Caller::default() };
    for (pod, port, protocol) in explain::destinations(service, pods) {
        let of_name = pods.iter().find(|one| text(one, "/metadata/name") == pod);
        let (Some(destination), Ok(port), Some(protocol)) =
            (of_name.and_then(address), u16::try_from(port), Protocol::parse(Some(&protocol)))
        else {
            continue;
        };
        let connection = Connection { source: source_address, destination, protocol, port };
        if source_address == destination {
            continue;
        }
        let closed = |direction| world.closed_by(direction, connection).map(|keys| keys.iter().map(shown).collect());
        caller.kept_in.extend(closed(Direction::Egress).map(|policies| (pod.clone(), policies)));
        caller.kept_out.extend(closed(Direction::Ingress).map(|policies| (pod, policies)));
    }
    Ok(caller)
}

fn shown(key: &&Key) -> String {
    format!("{}/{}", key.namespace, key.name)
}

fn address(pod: &Value) -> Option<Ipv4Addr> {
    text(pod, "/status/podIP").parse().ok()
}

fn key(object: &Value) -> Key {
    Key::new(text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

async fn world(reader: &Reader, one: &str, other: &str, pods: impl Iterator<Item = &Value>) -> Result<World> {
    let mut world = World::default();
    for namespace in reader.list("/api/v1", "namespaces", "", "").await? {
        let labels = Labels::deserialize(&namespace["metadata"]["labels"]).unwrap_or_default();
        world.namespaces.insert(text(&namespace, "/metadata/name").to_owned(), Arc::new(labels));
    }
    for pod in pods {
        let view = PodView::from_object(&Pod::deserialize(pod).context("cannot read a pod")?);
        world.pods.extend(view.map(|view| (key(pod), view)));
    }
    let mut policies: BTreeMap<Key, PolicyView> = BTreeMap::new();
    for namespace in [one, other] {
        for policy in reader.list(NETWORKING, "networkpolicies", namespace, "").await? {
            let view = PolicyView::from_object(&NetworkPolicy::deserialize(&policy).context("cannot read a policy")?);
            policies.extend(view.map(|view| (key(&policy), view)));
        }
    }
    world.policies = policies;
    Ok(world)
}
