//! Whether the node takes a pod that has been bound to it: the last check before its first container.

use crate::{Waiting, pod_total};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::{BTreeMap, BTreeSet};

/// sysctls that touch the pod alone, with the kernel from which on they do, and the namespace they live in.
const SAFE_SYSCTLS: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

/// What the node has and allows.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// CPU in thousandths, memory and storage in bytes, pods and extended resources in pieces.
    pub allocatable: BTreeMap<String, i64>,
    /// Kernel version: major and minor.
    pub kernel: (u32, u32),
    /// Further sysctls that this node allows; a name may end in `*`.
    pub unsafe_sysctls: Vec<String>,
    /// Whether the kernel enforces AppArmor profiles.
    pub app_armor: bool,
    /// Whether the runtime keeps to the groups of the pod alone.
    pub strict_groups: bool,
}

fn refusal(reason: &str, message: String) -> Result<(), Waiting> {
    Err(Waiting { reason: reason.to_string(), message })
}

/// Whether the node takes `pod` beside the pods it has taken already.
///
/// # Errors
/// Reason and message of the pod's failure.
pub fn admit(pod: &Pod, others: &[&Pod], facts: &NodeFacts) -> Result<(), Waiting> {
    operating_system(pod)?;
    groups(pod, facts)?;
    room(pod, others, facts)?;
    ports(pod, others)?;
    sysctls(pod, facts)?;
    app_armor(pod, facts)
}

fn operating_system(pod: &Pod) -> Result<(), Waiting> {
    let named = pod.spec.as_ref().and_then(|s| s.os.as_ref()).map_or("linux", |os| os.name.as_str());
    let labelled = pod.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os")).map_or("linux", String::as_str);
    match (labelled, named) {
        ("linux", "linux") => Ok(()),
        ("linux", _) => {
            refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS".to_string())
        }
        _ => refusal(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label".to_string(),
        ),
    }
}

fn groups(pod: &Pod, facts: &NodeFacts) -> Result<(), Waiting> {
    let security = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    match security.and_then(|s| s.supplemental_groups_policy.as_deref()) {
        Some("Strict") if !facts.strict_groups => refusal(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node".to_string(),
        ),
        _ => Ok(()),
    }
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Whether what the pod requests is free beside the others.
pub(crate) fn room(pod: &Pod, others: &[&Pod], facts: &NodeFacts) -> Result<(), Waiting> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let active = || others.iter().filter(|other| !is_finished(other)).filter_map(|other| other.spec.as_ref());
    let out = |reason: &str, name: &str, requested: i64, used: i64, capacity: i64| {
        let text = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        refusal(reason, text)
    };
    let count = i64::try_from(active().count()).unwrap_or(i64::MAX);
    if let Some(most) = facts.allocatable.get("pods").filter(|most| count + 1 > **most) {
        return out("OutOfpods", "pods", 1, count, *most);
    }
    for (name, capacity) in facts.allocatable.iter().filter(|(name, _)| *name != "pods") {
        let requested = pod_total(spec, name, false).unwrap_or(0);
        if requested == 0 {
            continue;
        }
        let used: i64 = active().filter_map(|spec| pod_total(spec, name, false)).sum();
        if requested > capacity - used {
            return out(&format!("OutOf{name}"), name, requested, used, *capacity);
        }
    }
    Ok(())
}

/// The ports that a pod takes on the node: protocol, address, number.
fn host_ports(pod: &Pod) -> BTreeSet<(String, String, i32)> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| crate::is_sidecar(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c: &Container| c.ports.iter().flatten());
    let host = crate::is_host_network(spec);
    let taken = ports.filter_map(|p| {
        let number = p.host_port.filter(|n| *n > 0).or_else(|| host.then_some(p.container_port))?;
        let address = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_string());
        Some((p.protocol.clone().unwrap_or_else(|| "TCP".to_string()), address, number))
    });
    taken.collect()
}

fn ports(pod: &Pod, others: &[&Pod]) -> Result<(), Waiting> {
    let wanted = host_ports(pod);
    if wanted.is_empty() {
        return Ok(());
    }
    let any = |address: &str| matches!(address, "0.0.0.0" | "::");
    let clash = |a: &(String, String, i32), b: &(String, String, i32)| {
        a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || any(&a.1) || any(&b.1))
    };
    for other in others.iter().filter(|other| !is_finished(other)) {
        let taken = host_ports(other);
        if wanted.iter().any(|want| taken.iter().any(|has| clash(want, has))) {
            let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
            return refusal("NodePorts", text.to_string());
        }
    }
    Ok(())
}

fn sysctls(pod: &Pod, facts: &NodeFacts) -> Result<(), Waiting> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let list = spec.security_context.as_ref().and_then(|s| s.sysctls.as_deref()).unwrap_or_default();
    let forbidden = |text: String| refusal("SysctlForbidden", format!("forbidden sysctl: {text}"));
    for sysctl in list {
        let name = sysctl.name.replace('/', ".");
        let safe = SAFE_SYSCTLS.iter().any(|(safe, kernel)| *safe == name && facts.kernel >= *kernel);
        let allowed = facts.unsafe_sysctls.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *pattern == name,
        });
        if !safe && !allowed {
            return forbidden(format!("\"{name}\" not allowlisted"));
        }
        // what is the node's own namespace must not be changed by a pod
        if name.starts_with("net.") && crate::is_host_network(spec) {
            return forbidden(format!("\"{name}\" not allowed with host net enabled"));
        }
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| name.starts_with(p));
        if ipc && spec.host_ipc.unwrap_or(false) {
            return forbidden(format!("\"{name}\" not allowed with host ipc enabled"));
        }
    }
    Ok(())
}

/// Profiles other than `Unconfined` need a kernel that enforces them.
fn app_armor(pod: &Pod, facts: &NodeFacts) -> Result<(), Waiting> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let of_pod = spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
    let needs = crate::all_containers(spec).any(|(_, container)| {
        let own = container.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
        own.or(of_pod).is_some_and(|profile| profile.type_ != "Unconfined")
    });
    if needs && !facts.app_armor {
        let text = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        return refusal("AppArmor", text.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn one(container: Value) -> Value {
        let mut container = container;
        container["name"] = "c".into();
        json!({"containers": [container]})
    }

    #[test]
    fn what_does_not_fit_is_refused_in_upstreams_words() {
        let allocatable = [("cpu", 1000), ("memory", 1 << 30), ("pods", 2)];
        let facts = NodeFacts {
            allocatable: allocatable.map(|(name, value)| (name.to_string(), value)).into(),
            kernel: (6, 1),
            unsafe_sysctls: vec!["kernel.msg*".into()],
            ..NodeFacts::default()
        };
        let cpu = |amount: &str| one(json!({"resources": {"requests": {"cpu": amount}}}));
        let sysctl = |name: &str, host: bool| {
            json!({"containers": [], "hostNetwork": host, "hostIPC": host,
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}})
        };
        let other = pod(one(
            json!({"resources": {"requests": {"cpu": "600m"}}, "ports": [{"containerPort": 1, "hostPort": 80}]}),
        ));
        let mut done = other.clone();
        done.status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
        let port = |ip: &str| one(json!({"ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}));
        let rows = [
            (cpu("400m"), ""),
            (cpu("401m"), "OutOfcpu: Node didn't have enough resource: cpu, requested: 401, used: 600, capacity: 1000"),
            (
                port("1.2.3.4"),
                "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
            ),
            (sysctl("net.ipv4.tcp_rmem", false), ""),
            (
                sysctl("net/ipv4/tcp_rmem", true),
                "SysctlForbidden: forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host net enabled",
            ),
            (sysctl("kernel.msgmax", false), ""),
            (
                sysctl("kernel.msgmax", true),
                "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowed with host ipc enabled",
            ),
            (sysctl("kernel.sem", false), "SysctlForbidden: forbidden sysctl: \"kernel.sem\" not allowlisted"),
            (
                json!({"containers": [], "os": {"name": "windows"}}),
                "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS",
            ),
            (
                json!({"containers": [], "securityContext": {"supplementalGroupsPolicy": "Strict"}}),
                "SupplementalGroupsPolicyNotSupported: SupplementalGroupsPolicy=Strict is not supported in this node",
            ),
            (
                one(json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}})),
                "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host",
            ),
        ];
        for (spec, expected) in rows {
            let answer = admit(&pod(spec.clone()), &[&other, &done], &facts);
            let text = answer.err().map(|w| format!("{}: {}", w.reason, w.message)).unwrap_or_default();
            assert_eq!(text, expected, "{spec}");
        }
        let full = admit(&pod(cpu("1m")), &[&other, &other], &facts).unwrap_err();
        assert_eq!(full.reason, "OutOfpods");
    }
}
