//! Objects from JSON, and a kubelet that says of every pod that it runs.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Creates an object from its JSON.
///
/// # Panics
/// It is not one of the kind, or the server refuses it.
pub async fn make<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

/// # Panics
/// The server refuses the patch.
pub async fn merge<K: Clone + Debug + DeserializeOwned>(api: &Api<K>, name: &str, patch: Value) {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// What a kubelet would report of the pods of a namespace: each runs and is ready, with an address of its own. A pod that
/// somebody else has moved on is left alone. Ends with the task that runs it.
pub async fn run_pods(client: Client, namespace: &str) {
    let api: Api<Pod> = Api::namespaced(client, namespace);
    let mut number = 0;
    loop {
        for pod in api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
            let status = pod.status.unwrap_or_default();
            let pending = status.phase.is_none_or(|phase| phase == "Pending") && status.pod_ip.is_none();
            let Some(name) = pod.metadata.name.filter(|_| pending && pod.metadata.deletion_timestamp.is_none()) else {
                continue;
            };
            number += 1;
            let ip = format!("10.1.{}.{}", number / 256, number % 256);
            let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap().to_string();
            let status = json!({ "metadata": { "resourceVersion": pod.metadata.resource_version },
                "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
                    "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": now }] } });
            let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
