//! What the API server fills into a PodSpec, in Pods and in every template that makes them.

use meta::quantity::{self, Quantity};
use serde_json::{Map, Value, json};

use crate::json::{child, ensure, fill, fill_empty, flag, items, map, set};

/// Defaults of a PodSpec wherever it stands.
pub fn default_pod_spec(spec: &mut Value) {
    fill_empty(spec, "dnsPolicy", "ClusterFirst");
    fill_empty(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill_empty(spec, "schedulerName", "default-scheduler");
    same_name_twice(spec);
    items(spec, "volumes").for_each(default_volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        items(spec, list).for_each(default_container);
    }
    items(spec, "topologySpreadConstraints").for_each(|constraint| {
        fill_empty(constraint, "whenUnsatisfiable", "DoNotSchedule");
    });
    if let Some(resources) = child(spec, "resources") {
        default_resources(resources);
    }
    default_resource_list(spec, "overhead");
    if flag(spec, "hostNetwork") {
        for list in ["initContainers", "containers"] {
            items(spec, list).for_each(default_host_ports);
        }
    }
}

/// Defaults of a PodTemplateSpec: the template of a workload.
pub fn default_template(template: &mut Value) {
    ensure(template, "metadata");
    if let Some(spec) = child(template, "spec") {
        default_pod_spec(spec);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; whichever is set names both.
fn same_name_twice(spec: &mut Value) {
    let new = spec["serviceAccountName"].as_str().unwrap_or_default().to_owned();
    let old = spec["serviceAccount"].as_str().unwrap_or_default().to_owned();
    let name = if new.is_empty() { old } else { new };
    if !name.is_empty() {
        set(spec, "serviceAccountName", name.as_str());
        set(spec, "serviceAccount", name);
    }
}

fn default_host_ports(container: &mut Value) {
    for port in items(container, "ports") {
        let number = port["containerPort"].clone();
        fill_empty(port, "hostPort", number);
    }
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(container["image"].as_str().unwrap_or_default());
    fill_empty(container, "imagePullPolicy", policy);
    fill_empty(container, "terminationMessagePath", "/dev/termination-log");
    fill_empty(container, "terminationMessagePolicy", "File");
    items(container, "ports").for_each(|port| fill_empty(port, "protocol", "TCP"));
    for variable in items(container, "env") {
        let Some(from) = child(variable, "valueFrom") else { continue };
        if let Some(field) = child(from, "fieldRef") {
            fill_empty(field, "apiVersion", "v1");
        }
        if let Some(resource) = child(from, "resourceFieldRef") {
            fill_empty(resource, "divisor", "0");
        }
        if let Some(file) = child(from, "fileKeyRef") {
            fill(file, "optional", false);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, probe) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(http) = child(lifecycle, hook).and_then(|hook| child(hook, "httpGet")) {
                default_http_get(http);
            }
        }
    }
    if let Some(resources) = ensure(container, "resources") {
        default_resources(resources);
    }
}

fn default_probe(probe: &mut Value) {
    fill_empty(probe, "timeoutSeconds", 1);
    fill_empty(probe, "periodSeconds", 10);
    fill_empty(probe, "successThreshold", 1);
    fill_empty(probe, "failureThreshold", 3);
    if let Some(http) = child(probe, "httpGet") {
        default_http_get(http);
    }
    if let Some(grpc) = child(probe, "grpc") {
        fill(grpc, "service", "");
    }
}

fn default_http_get(http: &mut Value) {
    fill_empty(http, "path", "/");
    fill_empty(http, "scheme", "HTTP");
}

/// `Always` for the tag `latest`, written or meant; `IfNotPresent` for any other tag and for digests.
pub fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    match name.split_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        None if digest.is_some() => "IfNotPresent",
        None => "Always",
    }
}

/// Quantities of a ResourceRequirements in the form that is stored.
pub fn default_resources(resources: &mut Value) {
    default_resource_list(resources, "limits");
    default_resource_list(resources, "requests");
}

/// Quantities of a resource list in canonical form, rounded up to thousandths.
pub fn default_resource_list(object: &mut Value, key: &str) {
    let Some(list) = child(object, key).and_then(Value::as_object_mut) else { return };
    for value in list.values_mut() {
        let Ok(amount) = Quantity::from_value(value) else { continue };
        let rounded = amount.rounded_to_milli();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        *value = match quantity::canonical(&text) {
            Ok(canonical) if rounded == amount => canonical.into(),
            _ => rounded.to_string().into(),
        };
    }
}

/// Limits without a request are requests too. Pods only: a template keeps what its author wrote.
pub fn default_requests(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        for resources in items(spec, list).filter_map(|container| child(container, "resources")) {
            let limits = map(resources, "limits").cloned().unwrap_or_default();
            let Some(requests) = (!limits.is_empty()).then(|| ensure(resources, "requests")).flatten() else {
                continue;
            };
            for (name, limit) in limits {
                fill(requests, &name, limit);
            }
        }
    }
    default_pod_requests(spec);
}

/// Pod-level limits without a request: the sum of the containers' requests where they name any, else the limit.
fn default_pod_requests(spec: &mut Value) {
    let Some(limits) = map(spec, "resources.limits").filter(|limits| !limits.is_empty()).cloned() else { return };
    let sums: Map<String, Value> = ["cpu", "memory"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), sum_over_containers(spec, "requests", name)?.to_string().into())))
        .collect();
    let Some(requests) = child(spec, "resources").and_then(|resources| ensure(resources, "requests")) else { return };
    for (name, amount) in sums.into_iter().chain(limits) {
        fill(requests, &name, amount);
    }
}

/// The `requests` or `limits` of the containers of a pod together: the larger of all running ones and of each init
/// container with the sidecars before it.
pub fn sum_over_containers(spec: &Value, side: &str, name: &str) -> Option<Quantity> {
    let amount = |container: &Value| Quantity::from_value(&container["resources"][side][name]).ok();
    let containers = spec["containers"].as_array().into_iter().flatten().filter_map(amount);
    let mut running: Option<Quantity> = containers.reduce(|sum, next| sum + next);
    let (mut sidecars, mut peak) = (None::<Quantity>, None::<Quantity>);
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let Some(amount) = amount(container) else { continue };
        let with_sidecars = sidecars.map_or(amount, |sum| sum + amount);
        if container["restartPolicy"] == "Always" {
            sidecars = Some(with_sidecars);
            running = Some(running.map_or(amount, |sum| sum + amount));
        }
        peak = peak.max(Some(with_sidecars));
    }
    running.max(peak)
}

fn default_volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |v| v.iter().filter(|(k, v)| *k != "name" && !v.is_null()).count());
    if sources == 0 {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, source) {
            fill(source, "defaultMode", 0o644);
        }
    }
    if let Some(source) = child(volume, "downwardAPI") {
        items(source, "items").for_each(default_downward_file);
    }
    if let Some(source) = child(volume, "projected") {
        items(source, "sources").for_each(default_projection);
    }
    if let Some(source) = child(volume, "hostPath") {
        fill(source, "type", "");
    }
    if let Some(template) = child(volume, "ephemeral").and_then(|e| child(e, "volumeClaimTemplate")) {
        ensure(template, "metadata");
        if let Some(spec) = child(template, "spec") {
            super::persistentvolumeclaim::default_claim_spec(spec);
        }
    }
    if let Some(image) = child(volume, "image") {
        let policy = pull_policy(image["reference"].as_str().unwrap_or_default());
        fill_empty(image, "pullPolicy", policy);
    }
    default_network_volume(volume);
}

/// Defaults of the volume sources that name a protocol's parameters.
pub fn default_network_volume(volume: &mut Value) {
    let defaults: [(&str, &[(&str, Value)]); 4] = [
        ("iscsi", &[("iscsiInterface", json!("default"))]),
        ("rbd", &[("pool", json!("rbd")), ("user", json!("admin")), ("keyring", json!("/etc/ceph/keyring"))]),
        (
            "azureDisk",
            &[
                ("cachingMode", json!("ReadWrite")),
                ("kind", json!("Shared")),
                ("fsType", json!("ext4")),
                ("readOnly", json!(false)),
            ],
        ),
        ("scaleIO", &[("fsType", json!("xfs")), ("storageMode", json!("ThinProvisioned"))]),
    ];
    for (source, fields) in defaults {
        if let Some(source) = child(volume, source) {
            fields.iter().for_each(|(key, value)| fill(source, key, value.clone()));
        }
    }
}

fn default_downward_file(file: &mut Value) {
    if let Some(field) = child(file, "fieldRef") {
        fill_empty(field, "apiVersion", "v1");
    }
    if let Some(resource) = child(file, "resourceFieldRef") {
        fill_empty(resource, "divisor", "0");
    }
}

fn default_projection(projection: &mut Value) {
    if let Some(token) = child(projection, "serviceAccountToken") {
        fill(token, "expirationSeconds", 3600);
    }
    if let Some(source) = child(projection, "downwardAPI") {
        items(source, "items").for_each(default_downward_file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_the_pull_policy() {
        for (image, expected) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), expected, "{image}");
        }
    }
}
