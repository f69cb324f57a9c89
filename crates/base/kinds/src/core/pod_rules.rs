//! Rules of a PodSpec, in Pods and in templates, and what may change in a running Pod.

use std::collections::BTreeSet;

use meta::{FieldError, FieldErrors, FieldPath, labels, names};
use serde_json::Value;

use super::container_rules::{self as container, Pod};
use super::pod_level;
use crate::json::{flag, has, is_empty, list, map, remove, set, text};
use crate::rules;

/// Rules of a Pod.
pub fn validate_pod(pod: &Value) -> FieldErrors {
    validate_pod_spec(&pod["spec"], &FieldPath::new("spec"))
}

/// Rules of a template that makes pods.
pub fn validate_template(template: &Value, path: &FieldPath) -> FieldErrors {
    let metadata = path.child("metadata");
    let mut errors = labels::validate_labels(&template["metadata"]["labels"], &metadata.child("labels"));
    errors.extend(validate_pod_spec(&template["spec"], &path.child("spec")));
    errors
}

pub fn validate_pod_spec(spec: &Value, path: &FieldPath) -> FieldErrors {
    let mut errors = Vec::new();
    volumes(&mut errors, spec, &path.child("volumes"));
    containers(&mut errors, spec, path);
    rules::one_of(&mut errors, spec, path, "restartPolicy", &["Always", "OnFailure", "Never"]);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    rules::one_of(&mut errors, spec, path, "dnsPolicy", &policies);
    rules::not_negative(&mut errors, spec, path, "terminationGracePeriodSeconds");
    let selector = path.child("nodeSelector");
    errors.extend(labels::validate_labels(&spec["nodeSelector"], &selector));
    security(&mut errors, &spec["securityContext"], &path.child("securityContext"));
    affinity(&mut errors, &spec["affinity"], &path.child("affinity"));
    if spec["dnsPolicy"] == "None" && list(spec, "dnsConfig.nameservers").is_empty() {
        if has(spec, "dnsConfig") {
            let path = path.child("dnsConfig").child("nameservers");
            errors
                .push(FieldError::required(&path, "must provide at least one DNS nameserver when `dnsPolicy` is None"));
        } else {
            let why = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(FieldError::required(&path.child("dnsConfig"), why));
        }
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64() {
        let path = path.child("activeDeadlineSeconds");
        let broken = names::in_range(seconds, 1, i64::from(i32::MAX));
        errors.extend(broken.into_iter().map(|why| FieldError::invalid(&path, seconds, why)));
    }
    for (key, check) in [
        ("serviceAccountName", names::dns_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
    ] {
        let value = text(spec, key);
        if !value.is_empty() {
            rules::name(&mut errors, &path.child(key), value, check);
        }
    }
    tolerations(&mut errors, spec, &path.child("tolerations"));
    host_aliases(&mut errors, spec, &path.child("hostAliases"));
    spread(&mut errors, spec, &path.child("topologySpreadConstraints"));
    pod_level::validate(&mut errors, spec, &path.child("resources"));
    errors
}

fn containers(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let volumes = list(spec, "volumes").iter().map(|volume| text(volume, "name")).collect();
    let pod = Pod { volumes, host_network: flag(spec, "hostNetwork"), os: text(spec, "os.name") };
    let mut seen = BTreeSet::new();
    if list(spec, "containers").is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    for (field, init) in [("containers", false), ("initContainers", true)] {
        for (i, one) in list(spec, field).iter().enumerate() {
            let path = path.child(field).index(i);
            let name = text(one, "name");
            rules::required_name(errors, &path.child("name"), name, names::dns_label);
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            container::validate(errors, one, &path, &pod);
            if init && one["restartPolicy"] != "Always" {
                container::init_only(errors, one, &path);
            } else {
                container::lifecycle(errors, one, &path, &pod);
            }
        }
    }
    host_ports(errors, spec, path, &pod);
}

/// A host port is taken once per pod, and with the host's network it is the container's own.
fn host_ports(errors: &mut FieldErrors, spec: &Value, path: &FieldPath, pod: &Pod<'_>) {
    let mut seen = BTreeSet::new();
    for (i, one) in list(spec, "containers").iter().enumerate() {
        for (j, port) in list(one, "ports").iter().enumerate() {
            let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) else { continue };
            let path = path.child("containers").index(i).child("ports").index(j).child("hostPort");
            if pod.host_network && port["containerPort"] != port["hostPort"] {
                errors.push(FieldError::invalid(
                    &path,
                    number,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
            if !seen.insert((text(port, "hostIP"), text(port, "protocol"), number)) {
                let shown = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
                errors.push(FieldError::duplicate(&path, shown));
            }
        }
    }
}

fn volumes(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(i);
        let before = errors.len();
        volume_source(errors, volume, &path);
        let name = text(volume, "name");
        rules::required_name(errors, &path.child("name"), name, names::dns_label);
        // A volume with errors of its own does not count as the first of its name.
        if errors.len() == before && !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
    }
}

fn volume_source(errors: &mut FieldErrors, volume: &Value, path: &FieldPath) {
    const REQUIRED: [(&str, &str); 5] = [
        ("configMap", "name"),
        ("secret", "secretName"),
        ("hostPath", "path"),
        ("persistentVolumeClaim", "claimName"),
        ("csi", "driver"),
    ];
    let fields = volume.as_object().into_iter().flatten();
    let mut sources = fields.filter(|(key, value)| *key != "name" && !value.is_null()).map(|(key, _)| key);
    let first = sources.next();
    for extra in sources {
        errors.push(FieldError::forbidden(&path.child(extra), "may not specify more than 1 volume type"));
    }
    for (source, field) in REQUIRED.iter().filter(|(source, _)| first.is_some_and(|first| first == source)) {
        rules::required(errors, &volume[source], &path.child(source), field);
    }
    if first.is_some_and(|first| first == "hostPath")
        && text(volume, "hostPath.path").split('/').any(|part| part == "..")
    {
        let path = path.child("hostPath").child("path");
        errors.push(FieldError::invalid(&path, text(volume, "hostPath.path"), "must not contain '..'"));
    }
}

fn security(errors: &mut FieldErrors, context: &Value, path: &FieldPath) {
    container::user_id(errors, &context["fsGroup"], &path.child("fsGroup"));
    for (i, group) in list(context, "supplementalGroups").iter().enumerate() {
        container::user_id(errors, group, &path.child("supplementalGroups").index(i));
    }
    for key in ["runAsUser", "runAsGroup"] {
        container::user_id(errors, &context[key], &path.child(key));
    }
    rules::one_of(errors, context, path, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    rules::one_of(errors, context, path, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    // mounting with a label needs a feature that is off by default
    rules::one_of(errors, context, path, "seLinuxChangePolicy", &["Recursive"]);
    let mut seen = BTreeSet::new();
    for (i, sysctl) in list(context, "sysctls").iter().enumerate() {
        let path = path.child("sysctls").index(i).child("name");
        match text(sysctl, "name") {
            "" => errors.push(FieldError::required(&path, "")),
            name if !is_sysctl(name) => errors.push(FieldError::invalid(&path, name, SYSCTL)),
            name if !seen.insert(name) => errors.push(FieldError::duplicate(&path, name)),
            _ => {}
        }
    }
}

const SYSCTL: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn is_sysctl(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-' || c == '_')
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

pub fn tolerations(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    for (i, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        if !key.is_empty() {
            rules::name(errors, &path.child("key"), key, names::qualified_name);
        }
        if key.is_empty() && operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&path.child("operator"), operator, why));
        }
        if has(toleration, "tolerationSeconds") && toleration["effect"] != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path.child("effect"), text(toleration, "effect"), why));
        }
        match operator {
            "Equal" | "" => rules::name(errors, &path.child("operator"), text(toleration, "value"), names::label_value),
            "Exists" if !text(toleration, "value").is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(&path.child("operator"), text(toleration, "value"), why));
            }
            "Exists" => {}
            other => errors.push(FieldError::not_supported(&path.child("operator"), other, &["Equal", "Exists"])),
        }
        if !text(toleration, "effect").is_empty() {
            rules::one_of(errors, toleration, &path, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

fn host_aliases(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        rules::ip(errors, &path.index(i).child("ip"), text(alias, "ip"));
        for (j, host) in list(alias, "hostnames").iter().filter_map(Value::as_str).enumerate() {
            rules::name(errors, &path.index(i).child("hostnames").index(j), host, names::dns_subdomain);
        }
    }
}

fn spread(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    for (i, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.index(i);
        if let skew @ ..=0 = constraint["maxSkew"].as_i64().unwrap_or_default() {
            errors.push(FieldError::invalid(&path.child("maxSkew"), skew, "must be greater than zero"));
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
        }
        rules::one_of(errors, constraint, &path, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]);
    }
}

fn affinity(errors: &mut FieldErrors, affinity: &Value, path: &FieldPath) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = &affinity["nodeAffinity"];
    let node_path = path.child("nodeAffinity");
    if has(node, REQUIRED) {
        let path = node_path.child(REQUIRED).child("nodeSelectorTerms");
        let terms = list(&node[REQUIRED], "nodeSelectorTerms");
        if terms.is_empty() {
            errors.push(FieldError::required(&path, "must have at least one node selector term"));
        }
        terms.iter().enumerate().for_each(|(i, term)| node_term(errors, term, &path.index(i)));
    }
    for (i, preferred) in list(node, PREFERRED).iter().enumerate() {
        let path = node_path.child(PREFERRED).index(i);
        weight(errors, preferred, &path);
        node_term(errors, &preferred["preference"], &path.child("preference"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (i, term) in list(&affinity[kind], REQUIRED).iter().enumerate() {
            pod_term(errors, term, &path.child(kind).child(REQUIRED).index(i));
        }
        for (i, preferred) in list(&affinity[kind], PREFERRED).iter().enumerate() {
            let path = path.child(kind).child(PREFERRED).index(i);
            weight(errors, preferred, &path);
            pod_term(errors, &preferred["podAffinityTerm"], &path.child("podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut FieldErrors, preferred: &Value, path: &FieldPath) {
    let weight = preferred["weight"].as_i64().unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn node_term(errors: &mut FieldErrors, term: &Value, path: &FieldPath) {
    for (i, expression) in list(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = list(expression, "values").len();
        let mut wrong = |why: &str| errors.push(FieldError::required(&path.child("values"), why));
        match text(expression, "operator") {
            "In" | "NotIn" if values == 0 => wrong("must be specified when `operator` is 'In' or 'NotIn'"),
            "Gt" | "Lt" if values != 1 => wrong("must be specified single value when `operator` is 'Lt' or 'Gt'"),
            "Exists" | "DoesNotExist" if values > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&path.child("values"), why));
            }
            "In" | "NotIn" | "Gt" | "Lt" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        rules::name(errors, &path.child("key"), text(expression, "key"), names::qualified_name);
    }
}

fn pod_term(errors: &mut FieldErrors, term: &Value, path: &FieldPath) {
    errors.extend(labels::validate_label_selector(&term["labelSelector"], &path.child("labelSelector")));
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
    }
    rules::name(errors, &path.child("topologyKey"), key, names::qualified_name);
}

const CHANGES: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Little may change in a pod that exists: images, the deadline (sooner), more tolerations; while it is gated, also
/// its node selection and fewer gates.
pub fn validate_pod_update(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    let (mut then, now) = (old["spec"].clone(), &new["spec"]);
    if list(now, "containers").len() != list(&then, "containers").len() {
        return vec![FieldError::forbidden(&path.child("containers"), "pod updates may not add or remove containers")];
    }
    if list(now, "initContainers").len() != list(&then, "initContainers").len() {
        let path = path.child("initContainers");
        return vec![FieldError::forbidden(&path, "pod updates may not add or remove containers")];
    }
    deadline(&mut errors, now, &then, &path.child("activeDeadlineSeconds"));
    for toleration in list(&then, "tolerations") {
        let same = |other: &&Value| {
            ["key", "operator", "value", "effect"].iter().all(|k| text(other, k) == text(toleration, k))
        };
        let kept = list(now, "tolerations").iter().find(same);
        if kept.is_none() {
            let why = "existing toleration can not be modified except its tolerationSeconds";
            errors.push(FieldError::forbidden(&path.child("tolerations"), why));
            break;
        }
    }
    if !list(now, "schedulingGates").is_empty() || !list(&then, "schedulingGates").is_empty() {
        gates(&mut errors, now, &then, &path.child("schedulingGates"));
    }
    let gated = !list(&then, "schedulingGates").is_empty();
    let free: &[&str] = if gated { &["nodeSelector", "affinity"] } else { &[] };
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"].iter().chain(free) {
        match &now[key] {
            Value::Null => remove(&mut then, key),
            value => set(&mut then, key, value.clone()),
        }
    }
    for field in ["containers", "initContainers"] {
        let images: Vec<Value> = list(now, field).iter().map(|container| container["image"].clone()).collect();
        let containers = then.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        containers.zip(images).for_each(|(container, image)| set(container, "image", image));
    }
    if old["spec"]["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0)
        && now["terminationGracePeriodSeconds"] == 1
    {
        set(&mut then, "terminationGracePeriodSeconds", 1);
    }
    if tidy(&then) != tidy(now) {
        errors.push(FieldError::forbidden(&path, CHANGES));
    }
    errors
}

/// An object without its empty fields, so that absent and empty compare equal.
pub fn tidy(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), tidy(value)));
            Value::Object(fields.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => items.iter().map(tidy).collect(),
        other => other.clone(),
    }
}

fn deadline(errors: &mut FieldErrors, now: &Value, then: &Value, path: &FieldPath) {
    match (now["activeDeadlineSeconds"].as_i64(), then["activeDeadlineSeconds"].as_i64()) {
        (Some(now), Some(then)) if now > then => {
            errors.push(FieldError::invalid(path, now, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(path, Value::Null, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}

fn gates(errors: &mut FieldErrors, now: &Value, then: &Value, path: &FieldPath) {
    let before = list(then, "schedulingGates");
    for gate in list(now, "schedulingGates").iter().filter(|gate| !before.contains(gate)) {
        let why = format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
        errors.push(FieldError::forbidden(path, why));
    }
}

/// What a pod's author should know though it is allowed.
pub fn warnings(pod: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if has(pod, "spec.nodeSelector") {
        for old in ["beta.kubernetes.io/os", "beta.kubernetes.io/arch"] {
            if map(pod, "spec.nodeSelector").is_some_and(|selector| selector.contains_key(old)) {
                let new = old.replace("beta.", "");
                warnings.push(format!("spec.nodeSelector[{old}]: deprecated since v1.14; use \"{new}\" instead"));
            }
        }
    }
    for (i, container) in list(pod, "spec.containers").iter().enumerate() {
        let mut seen = BTreeSet::new();
        for (j, variable) in list(container, "env").iter().enumerate() {
            let name = text(variable, "name");
            if !seen.insert(name) {
                let at = format!("spec.containers[{i}].env[{j}]");
                warnings.push(format!("{at}: hides previous definition of \"{name}\", which may be unexpected"));
            }
        }
    }
    warnings
}
