//! IPAddresses: each address that a Service has is an object that names the Service; those that nobody has go.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::{Value, json};

use crate::plan::{IP_ADDRESSES, Op, Plan};

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Who manages the addresses of Services; others belong to users.
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// The addresses of the cluster's ranges that a Service has, in canonical form.
pub fn addresses(service: &Service) -> impl Iterator<Item = String> {
    let ips = service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
    ips.filter_map(|ip| ip.parse::<std::net::IpAddr>().ok()).map(|ip| ip.to_string())
}

/// What is due for one address: `owner` is the Service that has it, `known` the object that says so.
pub fn plan(address: &str, owner: Option<&Service>, known: Option<&IPAddress>) -> Plan {
    let mut plan = Plan::default();
    let managed = |known: &&IPAddress| {
        let by = known.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        by.is_some_and(|by| by == ALLOCATOR) && known.metadata.deletion_timestamp.is_none()
    };
    let (resource, namespace) = (IP_ADDRESSES, String::new());
    match (owner, known) {
        (Some(owner), None) => plan.push(Op::Create { resource, namespace, object: object(address, owner) }),
        (owner, Some(known)) => {
            // whom an object names cannot change: the next one follows its end
            let stale = Some(known).filter(managed).filter(|known| !owner.is_some_and(|owner| names(known, owner)));
            if let Some(stale) = stale {
                let (name, uid) = (address.to_owned(), stale.metadata.uid.clone());
                plan.push(Op::Delete { resource, namespace, name, uid, grace: None });
            }
        }
        (None, None) => {}
    }
    plan
}

fn names(known: &IPAddress, service: &Service) -> bool {
    let parent = &known.spec.parent_ref;
    let core = parent.group.as_deref().unwrap_or_default().is_empty() && parent.resource == "services";
    let (namespace, name) = (&service.metadata.namespace, service.metadata.name.as_ref());
    core && parent.namespace == *namespace && Some(&parent.name) == name
}

fn object(address: &str, owner: &Service) -> Value {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    let parent = json!({"resource": "services", "namespace": owner.metadata.namespace, "name": owner.metadata.name});
    json!({"apiVersion": IP_ADDRESSES.api_version, "kind": IP_ADDRESSES.kind,
        "metadata": {"name": address, "labels": {FAMILY: family, MANAGED_BY: ALLOCATOR}},
        "spec": {"parentRef": parent}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, ips: &[&str]) -> Service {
        let object = json!({"metadata": {"namespace": "n", "name": name}, "spec": {"clusterIPs": ips}});
        serde_json::from_value(object).unwrap()
    }

    fn ip(owner: &str, manager: &str) -> IPAddress {
        let parent = json!({"group": "", "resource": "services", "namespace": "n", "name": owner});
        let object = json!({"metadata": {"name": "10.0.0.1", "uid": "u", "labels": {MANAGED_BY: manager}},
            "spec": {"parentRef": parent}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_address_follows_who_has_it() {
        let web = service("web", &["10.0.0.1"]);
        let rows = [
            (None, None, ""),
            (Some(&web), None, "create web"),
            (Some(&web), Some(ip("web", ALLOCATOR)), ""),
            (Some(&web), Some(ip("old", ALLOCATOR)), "delete"),
            (Some(&web), Some(ip("old", "someone")), ""),
            (None, Some(ip("web", ALLOCATOR)), "delete"),
            (None, Some(ip("web", "someone")), ""),
        ];
        for (owner, known, expected) in rows {
            let plan = plan("10.0.0.1", owner, known.as_ref());
            let step = plan.steps.first().map(|step| match &step.op {
                Op::Create { object, .. } => {
                    format!("create {}", object["spec"]["parentRef"]["name"].as_str().unwrap())
                }
                Op::Delete { uid, .. } => {
                    assert_eq!(uid.as_deref(), Some("u"));
                    "delete".to_owned()
                }
                other => panic!("{other:?}"),
            });
            assert_eq!(step.unwrap_or_default(), expected, "{known:?}");
        }
    }

    #[test]
    fn only_addresses_count_and_their_family_is_told() {
        let service = service("web", &["None", "10.0.0.1", "fd00:0::1"]);
        let all: Vec<String> = addresses(&service).collect();
        assert_eq!(all, ["10.0.0.1", "fd00::1"]);
        assert_eq!(object("fd00::1", &service)["metadata"]["labels"][FAMILY], "IPv6");
    }
}
