//! Rules of one container: names, ports, environment, mounts, probes, hooks, resources.

use std::collections::BTreeSet;

use meta::quantity::Quantity;
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use super::resource_rules;
use crate::json::{flag, has, is_empty, list, map, text};
use crate::rules;

const ENV_SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];
const ENV_FIELDS: [&str; 8] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
];

const LINUX_SIGNALS: [&str; 36] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGRTMIN",
    "SIGRTMAX",
];

/// What a container may refer to.
pub struct Pod<'a> {
    pub volumes: BTreeSet<&'a str>,
    pub host_network: bool,
    /// `spec.os.name`, empty where it is not said.
    pub os: &'a str,
}

pub fn validate(errors: &mut FieldErrors, container: &Value, path: &FieldPath, pod: &Pod<'_>) {
    let image = text(container, "image");
    if image.is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.child("image"), image, why));
    }
    rules::one_of(errors, container, path, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"]);
    ports(errors, container, &path.child("ports"));
    environment(errors, container, path);
    mounts(errors, container, &path.child("volumeMounts"), pod);
    rules::one_of(errors, container, path, "imagePullPolicy", &["Always", "IfNotPresent", "Never"]);
    resources(errors, &container["resources"], &path.child("resources"), resource_rules::container_name);
    security(errors, &container["securityContext"], &path.child("securityContext"));
}

/// Rules of what only a running container has: hooks and probes.
pub fn lifecycle(errors: &mut FieldErrors, container: &Value, path: &FieldPath, pod: &Pod<'_>) {
    for hook in ["postStart", "preStop"] {
        if has(&container["lifecycle"], hook) {
            let path = path.child("lifecycle").child(hook);
            handler(errors, &container["lifecycle"][hook], &path, &HOOK_HANDLERS);
        }
    }
    stop_signal(errors, &container["lifecycle"], &path.child("lifecycle"), pod.os);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe_path = path.child(name);
        let value = &container[name];
        if value.is_null() {
            continue;
        }
        probe(errors, value, &probe_path);
        if name != "readinessProbe" && value["successThreshold"].as_i64().is_some_and(|threshold| threshold != 1) {
            let threshold = value["successThreshold"].clone();
            errors.push(FieldError::invalid(&probe_path.child("successThreshold"), threshold, "must be 1"));
        }
    }
}

/// Which signals there are depends on the system, so that the pod has to name it.
fn stop_signal(errors: &mut FieldErrors, lifecycle: &Value, path: &FieldPath, os: &str) {
    if !has(lifecycle, "stopSignal") {
        return;
    }
    match os {
        "" => {
            let why = "may not be set for containers with empty `spec.os.name`";
            errors.push(FieldError::forbidden(&path.child("stopSignal"), why));
        }
        "windows" => rules::one_of(errors, lifecycle, path, "stopSignal", &["SIGKILL", "SIGTERM"]),
        _ => {
            let real_time = (1..=15).map(|i| format!("SIGRTMIN+{i}")).chain((1..=14).map(|i| format!("SIGRTMAX-{i}")));
            let mut all: Vec<String> = LINUX_SIGNALS.iter().map(ToString::to_string).chain(real_time).collect();
            all.sort_unstable();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            rules::one_of(errors, lifecycle, path, "stopSignal", &all);
        }
    }
}

fn ports(errors: &mut FieldErrors, container: &Value, path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for (i, port) in list(container, "ports").iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let broken = names::port_name(name);
            let duplicate = broken.is_empty() && !seen.insert(name);
            errors.extend(broken.into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
            if duplicate {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        match port["containerPort"].as_i64().unwrap_or_default() {
            0 => errors.push(FieldError::required(&path.child("containerPort"), "")),
            number => rules::number_port(errors, &path.child("containerPort"), number),
        }
        if let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) {
            rules::number_port(errors, &path.child("hostPort"), number);
        }
        if text(port, "protocol").is_empty() {
            errors.push(FieldError::required(&path.child("protocol"), ""));
        }
        rules::one_of(errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"]);
    }
}

fn environment(errors: &mut FieldErrors, container: &Value, path: &FieldPath) {
    for (i, variable) in list(container, "env").iter().enumerate() {
        let path = path.child("env").index(i);
        rules::required_name(errors, &path.child("name"), text(variable, "name"), names::env_var_name);
        if has(variable, "valueFrom") {
            value_from(errors, variable, &path.child("valueFrom"));
        }
    }
    for (i, source) in list(container, "envFrom").iter().enumerate() {
        let path = path.child("envFrom");
        let sources = ["configMapRef", "secretRef"].iter().filter(|key| has(source, key)).count();
        match sources {
            0 => errors.push(FieldError::invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {
                for key in ["configMapRef", "secretRef"].iter().filter(|key| has(source, key)) {
                    rules::required(errors, &source[key], &path.index(i).child(key), "name");
                }
            }
            _ => errors.push(FieldError::invalid(&path, "", "may not have more than one field specified at a time")),
        }
    }
}

fn value_from(errors: &mut FieldErrors, variable: &Value, path: &FieldPath) {
    let source = &variable["valueFrom"];
    if let Some(field) = source["fieldRef"]["fieldPath"].as_str() {
        env_field(errors, field, &path.child("fieldRef").child("fieldPath"));
    } else if has(source, "fieldRef") {
        errors.push(FieldError::required(&path.child("fieldRef").child("fieldPath"), ""));
    }
    for reference in ["configMapKeyRef", "secretKeyRef"] {
        if has(source, reference) {
            let path = path.child(reference);
            rules::required(errors, &source[reference], &path, "name");
            let key = text(&source[reference], "key");
            rules::required_name(errors, &path.child("key"), key, names::config_map_key);
        }
    }
    if has(source, "resourceFieldRef") {
        rules::required(errors, &source["resourceFieldRef"], &path.child("resourceFieldRef"), "resource");
    }
    if !text(variable, "value").is_empty() {
        errors.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty"));
    }
    match ENV_SOURCES.iter().filter(|key| has(source, key)).count() {
        0 => {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.push(FieldError::invalid(path, "", why));
        }
        1 => {}
        _ => errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
    }
}

fn env_field(errors: &mut FieldErrors, field: &str, path: &FieldPath) {
    let keyed =
        ["metadata.labels['", "metadata.annotations['"].iter().any(|p| field.starts_with(p)) && field.ends_with("']");
    if !keyed && !ENV_FIELDS.contains(&field) && field != "status.podIPs" {
        let why = format!("error converting fieldPath: field label not supported: {field}");
        errors.push(FieldError::invalid(path, field, why));
    }
}

fn mounts(errors: &mut FieldErrors, container: &Value, path: &FieldPath, pod: &Pod<'_>) {
    let mut seen = BTreeSet::new();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let at = path.index(i);
        let (name, place) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if !pod.volumes.contains(name) {
            errors.push(FieldError::not_found(&at.child("name"), name));
        }
        if place.is_empty() {
            errors.push(FieldError::required(&at.child("mountPath"), ""));
        } else if !seen.insert(place) {
            errors.push(FieldError::invalid(&at.child("mountPath"), place, "must be unique"));
        }
        for key in ["subPath", "subPathExpr"] {
            let sub = text(mount, key);
            if sub.starts_with('/') {
                errors.push(FieldError::invalid(&path.child(key), sub, "must be a relative path"));
            }
            if sub.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(&path.child(key), sub, "must not contain '..'"));
            }
        }
    }
}

fn probe(errors: &mut FieldErrors, probe: &Value, path: &FieldPath) {
    handler(errors, probe, path, &HANDLERS);
    for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        rules::not_negative(errors, probe, path, key);
    }
    if let Some(seconds) = probe["terminationGracePeriodSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        let path = path.child("terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(&path, seconds, "must be greater than 0"));
    }
}

fn handler(errors: &mut FieldErrors, value: &Value, path: &FieldPath, kinds: &[&str]) {
    let mut first = true;
    for kind in kinds.iter().filter(|kind| has(value, kind)) {
        let own = path.child(kind);
        if !std::mem::take(&mut first) {
            errors.push(FieldError::forbidden(&own, "may not specify more than 1 handler type"));
            continue;
        }
        let action = &value[kind];
        match *kind {
            "exec" => rules::required(errors, action, &own, "command"),
            "httpGet" => {
                rules::required(errors, action, &own, "path");
                rules::port_or_name(errors, &own.child("port"), &action["port"]);
                rules::one_of(errors, action, &own, "scheme", &["HTTP", "HTTPS"]);
                for (i, header) in list(action, "httpHeaders").iter().enumerate() {
                    let path = own.child("httpHeaders").index(i).child("name");
                    rules::name(errors, &path, text(header, "name"), names::http_header_name);
                }
            }
            "tcpSocket" | "grpc" => rules::port_or_name(errors, &own.child("port"), &action["port"]),
            _ => {}
        }
    }
    if first {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

/// Rules of a ResourceRequirements, whose names `known` checks.
pub fn resources(
    errors: &mut FieldErrors,
    resources: &Value,
    path: &FieldPath,
    known: fn(&mut FieldErrors, &str, &FieldPath),
) {
    for (name, value) in map(resources, "limits").into_iter().flatten() {
        let path = path.child("limits").key(name);
        known(errors, name, &path);
        resource_rules::amount(errors, name, value, &path);
    }
    let requests = path.child("requests");
    for (name, value) in map(resources, "requests").into_iter().flatten() {
        let key = requests.key(name);
        resource_rules::amount(errors, name, value, &key);
        let (Ok(amount), limit) = (Quantity::from_value(value), &resources["limits"][name]) else { continue };
        match Quantity::from_value(limit) {
            Ok(limit) if amount > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&requests, amount.to_string(), why));
            }
            Ok(limit) if amount != limit && !resource_rules::overcommits(name) => {
                let why = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&requests, amount.to_string(), why));
            }
            Err(_) if !limit.is_null() => {}
            Err(_) if !resource_rules::overcommits(name) => {
                errors.push(FieldError::required(
                    &path.child("limits"),
                    "Limit must be set for non overcommitable resources",
                ));
            }
            _ => {}
        }
        known(errors, name, &key);
    }
}

fn security(errors: &mut FieldErrors, context: &Value, path: &FieldPath) {
    for key in ["runAsUser", "runAsGroup"] {
        user_id(errors, &context[key], &path.child(key));
    }
    if context["allowPrivilegeEscalation"] == false && flag(context, "privileged") {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(path, context.clone(), why));
    }
}

pub fn user_id(errors: &mut FieldErrors, id: &Value, path: &FieldPath) {
    let Some(id) = id.as_i64() else { return };
    let broken = names::in_range(id, 0, i64::from(i32::MAX));
    errors.extend(broken.into_iter().map(|why| FieldError::invalid(path, id, why)));
}

/// What an init container that ends before the others start may not have.
pub fn init_only(errors: &mut FieldErrors, container: &Value, path: &FieldPath) {
    for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if !is_empty(&container[key]) {
            let why = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(&path.child(key), why));
        }
    }
}
