//! v1 Pod: containers that run together on one node.

use meta::Gvk;
use serde_json::{Value, json};

use super::V1;
use super::pod_defaults::{default_pod_spec, default_requests};
use super::pod_rules;
use super::qos::qos_class;
use crate::json::{child, fill, flag, list, set, text};
use crate::kind::{Kind, SelectableField, Subresource, texts};

const DEFAULT_GRACE_SECONDS: u64 = 30;

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["po"]),
        categories: texts(&["all"]),
        has_status: true,
        has_generation: true,
        subresources: vec![
            Subresource::speaking("attach", Gvk::new("", "v1", "PodAttachOptions"), &["create", "get"]),
            Subresource::speaking("binding", Gvk::new("", "v1", "Binding"), &["create"]),
            Subresource::new("ephemeralcontainers", &["get", "patch", "update"]),
            Subresource::speaking("eviction", Gvk::new("policy", "v1", "Eviction"), &["create"]),
            Subresource::speaking("exec", Gvk::new("", "v1", "PodExecOptions"), &["create", "get"]),
            Subresource::new("log", &["get"]),
            Subresource::speaking("portforward", Gvk::new("", "v1", "PodPortForwardOptions"), &["create", "get"]),
            Subresource::speaking(
                "proxy",
                Gvk::new("", "v1", "PodProxyOptions"),
                &["create", "delete", "get", "patch", "update"],
            ),
            Subresource::new("resize", &["get", "patch", "update"]),
        ]
        .into(),
        columns: super::pod_columns::columns().into(),
        graceful_delete: Some(grace_seconds),
        default,
        prepare_create,
        validate: pod_rules::validate_pod,
        validate_update: pod_rules::validate_pod_update,
        warnings: pod_rules::warnings,
        selectable_fields: vec![
            SelectableField { path: "spec.nodeName".into(), read: |o| text(o, "spec.nodeName").to_owned() },
            SelectableField { path: "spec.restartPolicy".into(), read: |o| text(o, "spec.restartPolicy").to_owned() },
            SelectableField { path: "spec.schedulerName".into(), read: |o| text(o, "spec.schedulerName").to_owned() },
            SelectableField {
                path: "spec.serviceAccountName".into(),
                read: |o| text(o, "spec.serviceAccountName").to_owned(),
            },
            SelectableField { path: "spec.hostNetwork".into(), read: |o| flag(o, "spec.hostNetwork").to_string() },
            SelectableField { path: "status.phase".into(), read: |o| text(o, "status.phase").to_owned() },
            SelectableField { path: "status.podIP".into(), read: |o| text(o, "status.podIP").to_owned() },
            SelectableField { path: "status.podIPs".into(), read: |o| pod_ips(o) },
            SelectableField {
                path: "status.nominatedNodeName".into(),
                read: |o| text(o, "status.nominatedNodeName").to_owned(),
            },
        ]
        .into(),
        ..Kind::namespaced(V1, "Pod", "pods")
    }
}

/// The pod's own grace period; a pod that no node runs, or that has ended, goes at once.
fn grace_seconds(pod: &Value) -> u64 {
    let ended = matches!(text(pod, "status.phase"), "Succeeded" | "Failed");
    if ended || text(pod, "spec.nodeName").is_empty() {
        return 0;
    }
    pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(DEFAULT_GRACE_SECONDS)
}

fn pod_ips(pod: &Value) -> String {
    list(pod, "status.podIPs").iter().map(|ip| text(ip, "ip")).collect::<Vec<_>>().join(",")
}

fn default(pod: &mut Value) {
    let Some(spec) = child(pod, "spec") else { return };
    default_pod_spec(spec);
    // old clients say -1 for "at once"
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        set(spec, "terminationGracePeriodSeconds", 1);
    }
    default_requests(spec);
    fill(spec, "enableServiceLinks", true);
}

fn prepare_create(pod: &mut Value) {
    let class = qos_class(&pod["spec"]);
    let mut status = json!({"phase": "Pending", "qosClass": class});
    if !list(pod, "spec.schedulingGates").is_empty() {
        let message = "Scheduling is blocked due to non-empty scheduling gates";
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": message,
            "lastProbeTime": null, "lastTransitionTime": null,
        });
        set(&mut status, "conditions", json!([condition]));
    }
    set(pod, "status", status);
}
