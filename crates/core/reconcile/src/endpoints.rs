//! The legacy Endpoints object of a Service, and the EndpointSlices that mirror hand-made Endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice};
use serde_json::{Value, json};

use crate::endpoint_slice::{
    Group, GroupKey, HEADLESS, MANAGED_BY, SERVICE_NAME, SliceTemplate, family_of, hostname, is_headless, owner,
    spread, target_port, target_ref,
};
use crate::plan::{ENDPOINTS, Op, Plan, difference, to_value};
use crate::pod::PodView;

pub const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
const ENDPOINTS_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const ENDPOINT_CONTROLLER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Addresses of one Endpoints object, and mirrored of one subset (upstream's limit).
const ADDRESSES_MAX: usize = 1000;

/// The Endpoints due for a Service with a selector; without the Service, its generated Endpoints go.
pub fn plan(key: (&str, &str), service: Option<&Service>, pods: &[Arc<PodView>], known: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = service else {
        let label = |e: &Endpoints| e.metadata.labels.as_ref().and_then(|l| l.get(ENDPOINTS_MANAGED_BY).cloned());
        if let Some(known) = known.filter(|known| label(known).as_deref() == Some(ENDPOINT_CONTROLLER)) {
            plan.push(Op::Delete {
                resource: ENDPOINTS,
                namespace: key.0.to_owned(),
                name: key.1.to_owned(),
                uid: known.metadata.uid.clone(),
                grace: None,
            });
        }
        return plan;
    };
    let spec = service.spec.clone().unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    if spec.selector.is_none() || external || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let (subsets, truncated) = subsets(service, pods);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(ENDPOINTS_MANAGED_BY.into(), ENDPOINT_CONTROLLER.into());
    let annotation = if truncated { json!("truncated") } else { Value::Null };
    match known {
        None => {
            let mut object = json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": { "name": key.1, "namespace": key.0, "labels": labels }, "subsets": subsets,
            });
            if truncated {
                object["metadata"]["annotations"] = json!({ OVER_CAPACITY: annotation });
            }
            plan.push(Op::Create { resource: ENDPOINTS, namespace: key.0.to_owned(), object });
        }
        Some(known) => {
            let mut body = json!({});
            if known.subsets.as_deref().unwrap_or_default() != subsets {
                body["subsets"] = to_value(&subsets);
            }
            if let Some(labels) = difference(&known.metadata.labels.clone().unwrap_or_default(), &labels) {
                body["metadata"]["labels"] = labels;
            }
            let marked = known.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OVER_CAPACITY));
            if marked != truncated {
                body["metadata"]["annotations"] = json!({ OVER_CAPACITY: annotation });
            }
            if body != json!({}) {
                body["metadata"]["resourceVersion"] = json!(known.metadata.resource_version);
                plan.push(Op::update(ENDPOINTS, key.0, key.1, body));
            }
        }
    }
    plan
}

/// Pods by the ports they serve, ready and not ready apart; addresses in order.
fn subsets(service: &Service, pods: &[Arc<PodView>]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.clone().unwrap_or_default();
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let primary = spec.ip_families.as_ref().and_then(|families| families.first());
    let family = primary.map_or_else(
        || spec.cluster_ip.as_deref().map_or("IPv4", family_of),
        |family| if family == "IPv6" { "IPv6" } else { "IPv4" },
    );
    let mut pods: Vec<(&String, &Arc<PodView>)> = pods
        .iter()
        .filter(|pod| !pod.is_finished() && (publish || pod.deletion.is_none()))
        .filter_map(|pod| Some((pod.ips.iter().find(|ip| family_of(ip) == family)?, pod)))
        .collect();
    // Ready ones first, so that truncation drops the others.
    pods.sort_by_key(|(ip, pod)| (!(pod.ready || publish), (*ip).clone(), pod.uid.clone()));
    let truncated = pods.len() > ADDRESSES_MAX;
    pods.truncate(ADDRESSES_MAX);
    let mut groups: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for (ip, pod) in pods {
        let ports: Vec<EndpointPort> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: port.name.clone().filter(|name| !name.is_empty()),
                    port: target_port(port, pod)?,
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.clone(),
            hostname: hostname(service, pod),
            node_name: (!pod.node.is_empty()).then(|| pod.node.clone()),
            target_ref: Some(target_ref(pod)),
        };
        let subset = groups.entry(to_value(&ports).to_string()).or_default();
        subset.ports = (!ports.is_empty()).then_some(ports);
        let ready = publish || pod.ready;
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    (groups.into_values().collect(), truncated)
}

/// Whether these Endpoints are hand-made for a Service without selector.
fn is_mirrored(service: Option<&Service>, endpoints: &Endpoints) -> bool {
    let label = |key: &str| endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let leader = endpoints.metadata.annotations.as_ref();
    let leader = leader.is_some_and(|a| a.contains_key("control-plane.alpha.kubernetes.io/leader"));
    let plain = service
        .and_then(|service| service.spec.as_ref())
        .is_some_and(|spec| spec.selector.is_none() && spec.type_.as_deref() != Some("ExternalName"));
    plain && !leader && label(SKIP_MIRROR).map(String::as_str) != Some("true")
}

/// The slices that mirror hand-made Endpoints; none when there is nothing to mirror (any more).
pub fn mirror(service: Option<&Service>, endpoints: Option<&Endpoints>, slices: &[Arc<EndpointSlice>]) -> Plan {
    let mirrored = endpoints.filter(|endpoints| is_mirrored(service, endpoints));
    let first = slices.first().map(|slice| slice.metadata.clone()).unwrap_or_default();
    let meta = mirrored.map(|endpoints| endpoints.metadata.clone()).unwrap_or(first);
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), meta.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MIRROR.into());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| {
        key != "kubectl.kubernetes.io/last-applied-configuration" && !key.starts_with("endpoints.kubernetes.io/")
    });
    let template = SliceTemplate {
        namespace: meta.namespace.clone().unwrap_or_default(),
        prefix: meta.name.clone().unwrap_or_default(),
        labels,
        annotations,
        owner: owner(&meta, "v1", "Endpoints"),
        placeholder: None,
    };
    spread(&template, mirrored.map(mirror_groups).unwrap_or_default(), slices)
}

fn mirror_groups(endpoints: &Endpoints) -> BTreeMap<GroupKey, Group> {
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = subset.ports.iter().flatten().map(|port| SlicePort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        });
        let ports = to_value(&ports.collect::<Vec<_>>()).to_string();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(not_ready).take(ADDRESSES_MAX) {
            let key = (family_of(&address.ip).to_owned(), ports.clone());
            groups.entry(key).or_default().endpoints.push(Endpoint {
                addresses: vec![address.ip.clone()],
                conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
                hostname: address.hostname.clone(),
                node_name: address.node_name.clone(),
                target_ref: address.target_ref.clone(),
                ..Endpoint::default()
            });
        }
    }
    groups
}
