//! Questions about a pod's specification that several decisions ask.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// Which list of the pod a container stands in, and how it is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// Runs to completion before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: started in order, kept running.
    Sidecar,
    /// One of `spec.containers`.
    Main,
    /// Added to the running pod for debugging: started once, of no influence on the pod.
    Ephemeral,
}

/// Whether an init container keeps running beside the main ones.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The pod's ephemeral containers as ordinary ones.
pub fn ephemeral_containers(spec: &PodSpec) -> impl Iterator<Item = Container> {
    spec.ephemeral_containers.iter().flatten().cloned().map(|e| Container {
        name: e.name,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        command: e.command,
        args: e.args,
        working_dir: e.working_dir,
        env: e.env,
        env_from: e.env_from,
        volume_mounts: e.volume_mounts,
        volume_devices: e.volume_devices,
        security_context: e.security_context,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        tty: e.tty,
        ..Default::default()
    })
}

/// The container of that name, wherever it stands in the pod.
pub fn container(spec: &PodSpec, name: &str) -> Option<(ContainerKind, Container)> {
    let ordinary = all_containers(spec).find(|(_, c)| c.name == name).map(|(kind, c)| (kind, c.clone()));
    ordinary.or_else(|| ephemeral_containers(spec).find(|c| c.name == name).map(|c| (ContainerKind::Ephemeral, c)))
}

/// Init and main containers in starting order, each with its kind.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = (ContainerKind, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|c| {
        let kind = if is_sidecar(c) { ContainerKind::Sidecar } else { ContainerKind::Init };
        (kind, c)
    });
    init.chain(spec.containers.iter().map(|c| (ContainerKind::Main, c)))
}

/// Whether the pod lives in the node's network namespace.
pub fn is_host_network(spec: &PodSpec) -> bool {
    spec.host_network.unwrap_or(false)
}

/// Seconds that containers get between SIGTERM and SIGKILL: the deletion's own grace period if the pod is being deleted.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let spec = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    pod.metadata.deletion_timestamp.as_ref().and(pod.metadata.deletion_grace_period_seconds).unwrap_or(spec).max(0)
}
