//! Services of type LoadBalancer without a cloud: every node is a load balancer, its address is the Service's.
//!
//! The service rules of each node answer on the addresses that a Service's status names. What has to be decided is who
//! may have a port of the nodes: the first Service that asked keeps it, and so do the node's own servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use crate::ownership::reference;
use crate::plan::{Note, Op, Plan, SERVICES, Step, to_value};

/// The class of Services that are served this way, beside those without a class.
pub const CLASS: &str = "tug.dev/nodes";
/// Nodes that are not to be load balancers.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Where the status says why a Service has no address.
const CONDITION: &str = "tug.dev/LoadBalancerReady";

/// Transport protocol and number of a port of the nodes.
pub type NodePort = (String, u16);

/// Gives addresses to the Services of the whole cluster. `reserved` are ports of the nodes' own servers, `slices` those
/// of a Service.
pub fn plan(
    services: &[Arc<Service>],
    nodes: &[Arc<Node>],
    slices: &dyn Fn(&Service) -> Vec<Arc<EndpointSlice>>,
    reserved: &BTreeSet<NodePort>,
    now: &str,
) -> Plan {
    let addresses: BTreeMap<&str, &str> = nodes.iter().filter_map(|node| usable(node)).collect();
    let mut ours: Vec<&Arc<Service>> = services.iter().filter(|service| is_ours(service)).collect();
    // Who has its ports keeps them; among the others the oldest goes first.
    ours.sort_by_cached_key(|service| {
        let meta = &service.metadata;
        let created = meta.creation_timestamp.as_ref().map(|time| time.0);
        (ingress(service).is_none(), created, meta.namespace.clone(), meta.name.clone())
    });
    let mut taken: BTreeMap<NodePort, String> = BTreeMap::new();
    let mut plan = Plan::default();
    for service in ours {
        let wanted = ports(service);
        let conflict = wanted.iter().find_map(|port| match taken.get(port) {
            Some(other) => Some(format!("port {}/{} of the nodes belongs to service {other}", port.1, port.0)),
            None if reserved.contains(port) => {
                Some(format!("port {}/{} of the nodes is used by Tug itself", port.1, port.0))
            }
            None => None,
        });
        let local = is_local(service).then(|| nodes_with_endpoints(&slices(service)));
        let chosen = addresses.iter().filter(|(node, _)| local.as_ref().is_none_or(|local| local.contains(**node)));
        let mut ips: Vec<&str> = chosen.map(|(_, ip)| *ip).collect();
        ips.sort_unstable();
        match conflict {
            Some(cause) => step(&mut plan, service, &[], Some(&cause), now),
            None => {
                let name = format!("{}/{}", namespace(service), name(service));
                taken.extend(wanted.into_iter().map(|port| (port, name.clone())));
                step(&mut plan, service, &ips, None, now);
            }
        }
    }
    plan
}

fn namespace(service: &Service) -> &str {
    service.metadata.namespace.as_deref().unwrap_or_default()
}

fn name(service: &Service) -> &str {
    service.metadata.name.as_deref().unwrap_or_default()
}

fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let class = spec.load_balancer_class.as_deref();
    spec.type_.as_deref() == Some("LoadBalancer")
        && class.is_none_or(|class| class == CLASS)
        && service.metadata.deletion_timestamp.is_none()
}

fn is_local(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref()) == Some("Local")
}

fn ports(service: &Service) -> Vec<NodePort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some((port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), u16::try_from(port.port).ok()?))
    };
    ports.filter_map(port).collect()
}

fn ingress(service: &Service) -> Option<&Vec<k8s_openapi::api::core::v1::LoadBalancerIngress>> {
    let status = service.status.as_ref()?.load_balancer.as_ref()?;
    status.ingress.as_ref().filter(|all| !all.is_empty())
}

/// Name and IPv4 address of a node that takes traffic from outside.
fn usable(node: &Node) -> Option<(&str, &str)> {
    let status = node.status.as_ref()?;
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let excluded = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
    let internal = status.addresses.iter().flatten().find(|a| a.type_ == "InternalIP" && !a.address.contains(':'))?;
    (ready && !excluded).then_some((node.metadata.name.as_deref()?, internal.address.as_str()))
}

fn nodes_with_endpoints(slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let ready = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

/// Writes the status where it differs, and tells once why there is no address.
fn step(plan: &mut Plan, service: &Service, ips: &[&str], cause: Option<&str>, now: &str) {
    let wanted: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).collect();
    let status = service.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let known = conditions.iter().find(|condition| condition.type_ == CONDITION);
    let same_cause = known.map(|condition| condition.message.as_str()) == cause;
    let same_ips = ingress(service).map_or(json!([]), to_value) == json!(wanted);
    if same_ips && same_cause {
        return;
    }
    let mut conditions: Vec<Value> = conditions.iter().filter(|c| c.type_ != CONDITION).map(to_value).collect();
    conditions.extend(cause.map(|cause| {
        json!({ "type": CONDITION, "status": "False", "reason": "PortUnavailable", "message": cause,
                "lastTransitionTime": now, "observedGeneration": service.metadata.generation.unwrap_or(0) })
    }));
    let ingress = if wanted.is_empty() { Value::Null } else { json!(wanted) };
    let conditions = if conditions.is_empty() { Value::Null } else { json!(conditions) };
    let body = json!({ "loadBalancer": { "ingress": ingress }, "conditions": conditions });
    let about: ObjectReference = reference(SERVICES, &service.metadata);
    let note = match cause {
        Some(cause) if !same_cause => {
            Some(Note::warning(&about, "SyncLoadBalancerFailed", format!("Error syncing load balancer: {cause}")))
        }
        None if !ips.is_empty() && self::ingress(service).is_none() => {
            Some(Note::normal(&about, "EnsuredLoadBalancer", "Ensured load balancer"))
        }
        _ => None,
    };
    let op = Op::update_status(SERVICES, namespace(service), name(service), body);
    plan.push(note.into_iter().fold(Step::from(op), Step::on_success));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ip: &str, ready: bool) -> Arc<Node> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name }, "status": {
                "conditions": [{ "type": "Ready", "status": ready }],
                "addresses": [{ "type": "InternalIP", "address": ip }] } }))
            .unwrap(),
        )
    }

    fn service(name: &str, created: u8, spec: Value) -> Arc<Service> {
        let mut all = json!({ "type": "LoadBalancer", "ports": [{ "port": 80, "protocol": "TCP" }] });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "a",
                "creationTimestamp": format!("2026-01-01T00:00:0{created}Z") }, "spec": all }))
            .unwrap(),
        )
    }

    /// What the plan writes: service, addresses or the cause.
    fn written(services: &[Arc<Service>], nodes: &[Arc<Node>], here: &[&str]) -> Vec<String> {
        let endpoints: Vec<Value> = here.iter().map(|n| json!({ "addresses": ["10.1.1.1"], "nodeName": n })).collect();
        let slice: EndpointSlice =
            serde_json::from_value(json!({ "addressType": "IPv4", "endpoints": endpoints })).unwrap();
        let slices = [Arc::new(slice)].to_vec();
        let reserved = BTreeSet::from([("TCP".to_owned(), 6443)]);
        let plan = plan(services, nodes, &|_| slices.clone(), &reserved, "2026-01-01T00:00:00Z");
        let show = |step: &Step| match &step.op {
            Op::Patch { name, body, .. } => {
                let ingress = body["status"]["loadBalancer"]["ingress"].as_array();
                let ips: Vec<&str> = ingress.into_iter().flatten().filter_map(|i| i["ip"].as_str()).collect();
                let cause = body["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
                let event = step.done.as_ref().map_or("", |note| note.reason);
                format!("{name}: {}{cause} ({event})", ips.join(" "))
            }
            other => format!("{other:?}"),
        };
        plan.steps.iter().map(show).collect()
    }

    #[test]
    fn ready_nodes_are_the_address_and_a_port_has_one_owner() {
        let nodes = [node("n1", "10.0.0.1", true), node("n2", "10.0.0.2", true), node("n3", "10.0.0.3", false)];
        let web = service("web", 1, json!({}));
        assert_eq!(written(std::slice::from_ref(&web), &nodes, &[]), ["web: 10.0.0.1 10.0.0.2 (EnsuredLoadBalancer)"]);
        let udp = service("udp", 3, json!({ "ports": [{ "port": 80, "protocol": "UDP" }] }));
        let late = service("late", 2, json!({}));
        assert_eq!(
            written(&[late, web, udp], &nodes, &[]),
            [
                "web: 10.0.0.1 10.0.0.2 (EnsuredLoadBalancer)",
                "late: port 80/TCP of the nodes belongs to service a/web (SyncLoadBalancerFailed)",
                "udp: 10.0.0.1 10.0.0.2 (EnsuredLoadBalancer)",
            ]
        );
        let own = service("own", 1, json!({ "ports": [{ "port": 6443 }] }));
        assert_eq!(
            written(&[own], &nodes, &[]),
            ["own: port 6443/TCP of the nodes is used by Tug itself (SyncLoadBalancerFailed)"]
        );
    }

    #[test]
    fn only_nodes_with_endpoints_take_traffic_that_may_not_travel_on() {
        let nodes = [node("n1", "10.0.0.1", true), node("n2", "10.0.0.2", true)];
        let local = service("web", 1, json!({ "externalTrafficPolicy": "Local" }));
        assert_eq!(written(&[local], &nodes, &["n2", "n9"]), ["web: 10.0.0.2 (EnsuredLoadBalancer)"]);
    }

    #[test]
    fn a_status_that_is_right_is_left_alone_and_other_classes_are_not_ours() {
        let nodes = [node("n1", "10.0.0.1", true)];
        let mut known = (*service("web", 9, json!({}))).clone();
        known.status =
            serde_json::from_value(json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1", "ipMode": "VIP" }] } }))
                .ok();
        let earlier = service("older", 1, json!({}));
        assert_eq!(
            written(&[earlier, Arc::new(known)], &nodes, &[]),
            ["older: port 80/TCP of the nodes belongs to service a/web (SyncLoadBalancerFailed)"],
            "who has a port keeps it"
        );
        let other = service("other", 1, json!({ "loadBalancerClass": "example.com/vip" }));
        let own = service("own", 1, json!({ "loadBalancerClass": CLASS }));
        assert_eq!(written(&[other, own], &nodes, &[]), ["own: 10.0.0.1 (EnsuredLoadBalancer)"]);
    }
}
