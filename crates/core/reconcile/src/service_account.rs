//! What every namespace is given: the `default` ServiceAccount and the `kube-root-ca.crt` ConfigMap.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use serde_json::{Value, json};

use crate::plan::{CONFIG_MAPS, Op, Plan, SERVICE_ACCOUNTS, to_value};

pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

fn is_live(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}

/// Makes the default ServiceAccount when a live namespace has none.
pub fn plan_service_account(namespace: &Namespace, exists: bool) -> Plan {
    let mut plan = Plan::default();
    let name = namespace.metadata.name.clone().unwrap_or_default();
    if is_live(namespace) && !exists {
        let object = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": DEFAULT_SERVICE_ACCOUNT, "namespace": name } });
        plan.push(Op::Create { resource: SERVICE_ACCOUNTS, namespace: name, object });
    }
    plan
}

/// Makes or restores the CA bundle of a live namespace.
pub fn plan_root_ca(namespace: &Namespace, known: Option<&ConfigMap>, ca_pem: &str) -> Plan {
    let mut plan = Plan::default();
    let name = namespace.metadata.name.clone().unwrap_or_default();
    if !is_live(namespace) {
        return plan;
    }
    let data = json!({ "ca.crt": ca_pem });
    match known {
        None => {
            let object = json!({ "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": ROOT_CA_CONFIG_MAP, "namespace": name,
                              "annotations": { DESCRIPTION_KEY: DESCRIPTION } },
                "data": data });
            plan.push(Op::Create { resource: CONFIG_MAPS, namespace: name, object });
        }
        Some(known) => {
            let described = known.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(DESCRIPTION_KEY));
            if to_value(&known.data) != data || !described {
                let mut wanted: serde_json::Map<String, Value> =
                    known.data.iter().flatten().map(|(key, _)| (key.clone(), Value::Null)).collect();
                wanted.insert("ca.crt".into(), ca_pem.into());
                let annotations = json!({ DESCRIPTION_KEY: DESCRIPTION });
                let body = json!({ "metadata": { "annotations": annotations }, "data": wanted });
                plan.push(Op::update(CONFIG_MAPS, &name, ROOT_CA_CONFIG_MAP, body));
            }
        }
    }
    plan
}
