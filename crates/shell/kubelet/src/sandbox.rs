//! From a pod to the runtime's sandbox configuration.

use crate::cgroups;
use crate::names;
use crate::node::Node;
use crate::runtime::{cri, label};
use k8s_openapi::api::core::v1::{Pod, SELinuxOptions, SeccompProfile};
use std::collections::HashMap;
use std::path::PathBuf;

/// Directory of the pod's logs: namespace, name and uid make it unique.
pub fn log_directory(node: &Node, pod: &Pod) -> PathBuf {
    let meta = &pod.metadata;
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    node.config.log_dir.join(format!("{}_{}_{}", text(&meta.namespace), text(&meta.name), text(&meta.uid)))
}

/// Labels that lead from a runtime object back to its pod.
pub fn labels(pod: &Pod) -> HashMap<String, String> {
    let meta = &pod.metadata;
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    HashMap::from([
        (label::POD_NAME.to_string(), text(&meta.name)),
        (label::POD_NAMESPACE.to_string(), text(&meta.namespace)),
        (label::POD_UID.to_string(), text(&meta.uid)),
    ])
}

/// Which namespaces the pod shares with the node.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = pod.spec.as_ref();
    let node_or = |yes: Option<bool>, other: cri::NamespaceMode| {
        i32::from(if yes.unwrap_or(false) { cri::NamespaceMode::Node } else { other })
    };
    let shared = spec.and_then(|s| s.share_process_namespace).unwrap_or(false);
    let pid = if shared { cri::NamespaceMode::Pod } else { cri::NamespaceMode::Container };
    cri::NamespaceOption {
        network: node_or(spec.and_then(|s| s.host_network), cri::NamespaceMode::Pod),
        pid: node_or(spec.and_then(|s| s.host_pid), pid),
        ipc: node_or(spec.and_then(|s| s.host_ipc), cri::NamespaceMode::Pod),
        ..Default::default()
    }
}

/// The runtime's form of a seccomp profile; unset means unconfined, as Kubernetes has it.
pub fn seccomp(profile: Option<&SeccompProfile>, root: &std::path::Path) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, reference) = match profile.map(|p| p.type_.as_str()) {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let name = profile.and_then(|p| p.localhost_profile.as_deref()).unwrap_or_default();
            (ProfileType::Localhost, root.join("seccomp").join(name).display().to_string())
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: reference }
}

/// The runtime's form of SELinux labels. A machine without SELinux has no use for them, and the runtime passes over them.
pub fn selinux(options: Option<&SELinuxOptions>) -> Option<cri::SeLinuxOption> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    options.map(|o| cri::SeLinuxOption {
        user: text(&o.user),
        role: text(&o.role),
        r#type: text(&o.type_),
        level: text(&o.level),
    })
}

/// Whether any container asks for privileges.
fn privileged(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    podsync::all_containers(spec).any(|(_, c)| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false))
}

/// The control group parent for the pod.
pub fn cgroup_parent(node: &Node, pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    cgroups::pod_path(&node.config.cgroup_parent, podsync::qos_class(pod), uid)
}

/// Builds the sandbox configuration; the same pod and attempt give the same result.
pub fn config(node: &Node, pod: &Pod, attempt: u32) -> cri::PodSandboxConfig {
    let meta = &pod.metadata;
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = podsync::is_host_network(&spec);
    let security = spec.security_context.clone().unwrap_or_default();
    let ports = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(|c| podsync::is_sidecar(c)));
    let ports = ports.flat_map(|c| c.ports.iter().flatten());
    let port_mappings = ports
        .filter(|p| !host_network && p.host_port.unwrap_or(0) > 0)
        .map(|p| cri::PortMapping {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp.into(),
                Some("SCTP") => cri::Protocol::Sctp.into(),
                _ => cri::Protocol::Tcp.into(),
            },
            container_port: p.container_port,
            host_port: p.host_port.unwrap_or(0),
            host_ip: p.host_ip.clone().unwrap_or_default(),
        })
        .collect();
    // with host networking there is no own UTS namespace that could hold a name
    let hostname = if host_network { String::new() } else { names::hostname(pod, &node.config.cluster_domain).0 };
    let context = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux(security.se_linux_options.as_ref()),
        run_as_user: security.run_as_user.map(|value| cri::Int64Value { value }),
        run_as_group: security.run_as_user.and(security.run_as_group).map(|value| cri::Int64Value { value }),
        supplemental_groups: security
            .fs_group
            .into_iter()
            .chain(security.supplemental_groups.into_iter().flatten())
            .collect(),
        privileged: privileged(pod),
        // the pause process always runs confined
        seccomp: Some(cri::SecurityProfile::default()),
        ..Default::default()
    };
    let sysctls = security.sysctls.iter().flatten().map(|s| (s.name.replace('/', "."), s.value.clone())).collect();
    let mut all = labels(pod);
    all.extend(meta.labels.clone().into_iter().flatten());
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: text(&meta.name),
            uid: text(&meta.uid),
            namespace: text(&meta.namespace),
            attempt,
        }),
        hostname,
        log_directory: log_directory(node, pod).display().to_string(),
        dns_config: Some(names::dns(pod, &node.config)),
        port_mappings,
        labels: all,
        annotations: meta.annotations.clone().into_iter().flatten().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(node, pod),
            security_context: Some(context),
            sysctls,
            ..Default::default()
        }),
    }
}
