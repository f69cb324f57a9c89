//! v1 Node: a machine that runs pods.

use meta::{FieldError, FieldErrors, FieldPath, Gvk, names};
use serde_json::{Value, json};

use std::collections::BTreeSet;

use super::V1;
use super::pod_defaults::default_resource_list;
use crate::json::{child, ensure, fill, flag, has, list, map, text};
use crate::kind::{Column, Kind, SelectableField, Subresource, texts};
use crate::{columns, rules};

const NODE_INFO: [&str; 10] = [
    "architecture",
    "bootID",
    "containerRuntimeVersion",
    "kernelVersion",
    "kubeProxyVersion",
    "kubeletVersion",
    "machineID",
    "operatingSystem",
    "osImage",
    "systemUUID",
];

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["no"]),
        has_status: true,
        subresources: vec![Subresource::speaking(
            "proxy",
            Gvk::new("", "v1", "NodeProxyOptions"),
            &["create", "delete", "get", "patch", "update"],
        )]
        .into(),
        columns: vec![
            columns::name(),
            Column::new("Status", "string", "Whether it is ready and takes pods.", |o, _| status(o).into()),
            Column::new("Roles", "string", "The roles that its labels name.", |o, _| roles(o)),
            columns::age(),
            Column::new("Version", "string", "The version of its kubelet.", |o, _| {
                text(o, "status.nodeInfo.kubeletVersion").into()
            }),
            Column::new("Internal-IP", "string", "Its first internal address.", |o, _| address(o, "InternalIP")).wide(),
            Column::new("External-IP", "string", "Its first external address.", |o, _| address(o, "ExternalIP")).wide(),
            Column::new("OS-Image", "string", "Its operating system.", |o, _| {
                or_unknown(text(o, "status.nodeInfo.osImage"))
            })
            .wide(),
            Column::new("Kernel-Version", "string", "Its kernel.", |o, _| kernel(o)).wide(),
            Column::new("Container-Runtime", "string", "What runs its containers.", |o, _| {
                or_unknown(text(o, "status.nodeInfo.containerRuntimeVersion"))
            })
            .wide(),
        ]
        .into(),
        default,
        prepare_create,
        selectable_fields: vec![SelectableField {
            path: "spec.unschedulable".into(),
            read: |o| flag(o, "spec.unschedulable").to_string(),
        }]
        .into(),
        validate,
        ..Kind::cluster(V1, "Node", "nodes")
    }
}

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

fn status(node: &Value) -> String {
    let ready = list(node, "status.conditions").iter().find(|condition| condition["type"] == "Ready");
    let ready = ready.map_or("Unknown", |condition| if condition["status"] == "True" { "Ready" } else { "NotReady" });
    if flag(node, "spec.unschedulable") { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn roles(node: &Value) -> Value {
    let labels = map(node, "metadata.labels").into_iter().flatten();
    let role = |(key, value): (&String, &Value)| match key.strip_prefix(ROLE_PREFIX) {
        Some(role) => Some(role.to_owned()),
        None if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
        None => None,
    };
    let roles: BTreeSet<String> = labels.filter_map(role).filter(|role| !role.is_empty()).collect();
    columns::or_none(&roles.into_iter().collect::<Vec<_>>().join(","))
}

fn address(node: &Value, kind: &str) -> Value {
    let address = list(node, "status.addresses").iter().find(|address| address["type"] == kind);
    columns::or_none(address.map_or("", |address| text(address, "address")))
}

fn or_unknown(value: &str) -> Value {
    if value.is_empty() { "<unknown>".into() } else { value.into() }
}

fn kernel(node: &Value) -> Value {
    let kernel = or_unknown(text(node, "status.nodeInfo.kernelVersion"));
    match (kernel.as_str().unwrap_or_default(), text(node, "status.nodeInfo.architecture")) {
        (kernel, "") => kernel.into(),
        (kernel, architecture) => format!("{kernel} ({architecture})").into(),
    }
}

fn default(node: &mut Value) {
    let Some(status) = child(node, "status") else { return };
    default_resource_list(status, "capacity");
    default_resource_list(status, "allocatable");
    let capacity = status["capacity"].clone();
    if !capacity.is_null() {
        fill(status, "allocatable", capacity);
    }
}

/// A node may bring its status when it is created; what it leaves out is shown empty.
fn prepare_create(node: &mut Value) {
    let Some(status) = ensure(node, "status") else { return };
    fill(status, "daemonEndpoints", json!({"kubeletEndpoint": {"Port": 0}}));
    fill(status, "nodeInfo", json!({}));
    for field in NODE_INFO {
        if let Some(info) = child(status, "nodeInfo") {
            fill(info, field, "");
        }
    }
}

/// Taints are well-formed and unique, and pod ranges are CIDRs.
fn validate(node: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("metadata").child("taints");
    let mut seen = BTreeSet::new();
    for (i, taint) in list(node, "spec.taints").iter().enumerate() {
        let path = path.index(i);
        rules::name(&mut errors, &path.child("key"), text(taint, "key"), names::qualified_name);
        rules::name(&mut errors, &path.child("value"), text(taint, "value"), names::label_value);
        rules::one_of(&mut errors, taint, &path, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if !seen.insert((text(taint, "key"), text(taint, "effect"))) {
            let shown = json!({"Key": taint["key"], "Value": text(taint, "value"), "Effect": taint["effect"],
                "TimeAdded": taint["timeAdded"]});
            let mut error = FieldError::duplicate(&path, shown);
            error.message.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
    let ranges = list(node, "spec.podCIDRs")
        .iter()
        .chain(Some(&node["spec"]["podCIDR"]).filter(|_| !has(node, "spec.podCIDRs")));
    for (i, range) in ranges.filter_map(Value::as_str).filter(|range| !range.is_empty()).enumerate() {
        if !rules::is_cidr(range) {
            let path = FieldPath::new("spec").child("podCIDRs").index(i);
            errors.push(FieldError::invalid(&path, range, rules::CIDR));
        }
    }
    errors
}
