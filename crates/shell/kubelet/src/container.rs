//! From a container of a pod to the runtime's container configuration.

use crate::env::{Environment, environment};
use crate::fields::Addresses;
use crate::names;
use crate::node::Node;
use crate::runtime::{cri, label};
use crate::sandbox;
use crate::volumes::{self, Paths};
use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, VolumeDevice, VolumeMount};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const PATH_MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const PATH_READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Everything that a container's configuration is made from.
pub struct Inputs<'a> {
    /// The node.
    pub node: &'a Node,
    /// The pod.
    pub pod: &'a Pod,
    /// The container in it.
    pub spec: &'a Container,
    /// How many came before.
    pub attempt: u32,
    /// Addresses of pod and node.
    pub addresses: &'a Addresses,
    /// Host paths of the pod's volumes.
    pub volumes: &'a Paths,
    /// The image.
    pub image: &'a cri::Image,
    /// Runtime id of the container whose process namespace it joins.
    pub debugs: Option<&'a str>,
}

/// Builds the configuration and prepares the files it mounts.
///
/// # Errors
/// The message for `CreateContainerConfigError`.
pub async fn config(inputs: &Inputs<'_>) -> Result<cri::ContainerConfig, String> {
    let Inputs { node, pod, spec, .. } = inputs;
    refuse_root(inputs)?;
    let env = environment(node, pod, spec, inputs.addresses).await?;
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| podsync::expand(text, |name| env.get(name))).collect()
    };
    let (mounts, termination) = mounts(inputs, &env)?;
    let mut labels = sandbox::labels(pod);
    labels.insert(label::CONTAINER.into(), spec.name.clone());
    let policy = spec.termination_message_policy.clone().unwrap_or_else(|| "File".into());
    let annotations = [
        (label::IMAGE.to_string(), spec.image.clone().unwrap_or_default()),
        (label::TERMINATION_PATH.to_string(), termination.display().to_string()),
        (label::TERMINATION_POLICY.to_string(), policy),
    ];
    let log_dir = sandbox::log_directory(node, pod).join(&spec.name);
    std::fs::create_dir_all(&log_dir).map_err(|e| format!("cannot make {}: {e}", log_dir.display()))?;
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: spec.name.clone(), attempt: inputs.attempt }),
        image: Some(cri::ImageSpec { image: inputs.image.id.clone(), ..Default::default() }),
        command: expand(&spec.command),
        args: expand(&spec.args),
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        envs: env
            .pairs()
            .map(|(key, value)| cri::KeyValue { key: key.into(), value: value.as_bytes().to_vec() })
            .collect(),
        mounts,
        devices: devices(inputs)?,
        labels,
        annotations: annotations.into(),
        log_path: format!("{}/{}.log", spec.name, inputs.attempt),
        stdin: spec.stdin.unwrap_or(false),
        stdin_once: spec.stdin_once.unwrap_or(false),
        tty: spec.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(node, pod, spec)),
            security_context: Some(security(inputs)),
        }),
        ..Default::default()
    })
}

/// The kernel limits of a container.
pub fn resources(node: &Node, pod: &Pod, spec: &Container) -> cri::LinuxContainerResources {
    let limits = pod.spec.as_ref().map(|whole| podsync::container_limits(whole, spec)).unwrap_or_default();
    cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: limits.cpu_quota_us.unwrap_or(0),
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory_bytes.unwrap_or(0),
        oom_score_adj: podsync::oom_score_adj(pod, spec, node.machine.memory_bytes),
        unified: crate::cgroups::extras(&sandbox::cgroup_parent(node, pod)),
        ..Default::default()
    }
}

/// `runAsNonRoot` with a user that is root, or that cannot be told from the image.
fn refuse_root(inputs: &Inputs<'_>) -> Result<(), String> {
    let Inputs { pod, spec, image, .. } = inputs;
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = spec.security_context.as_ref();
    let wanted = own.and_then(|s| s.run_as_non_root).or(of_pod.and_then(|s| s.run_as_non_root)).unwrap_or(false);
    if !wanted {
        return Ok(());
    }
    let text = |what: String| {
        let (name, ns) = (pod.metadata.name.as_deref().unwrap_or(""), pod.metadata.namespace.as_deref().unwrap_or(""));
        let uid = pod.metadata.uid.as_deref().unwrap_or("");
        Err(format!("{what} (pod: \"{name}_{ns}({uid})\", container: {})", spec.name))
    };
    match own.and_then(|s| s.run_as_user).or(of_pod.and_then(|s| s.run_as_user)) {
        Some(0) => text("container's runAsUser breaks non-root policy".into()),
        Some(_) => Ok(()),
        None => match (&image.uid, image.username.as_str()) {
            (Some(uid), _) if uid.value != 0 => Ok(()),
            (None, name) if !name.is_empty() => text(format!(
                "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
            )),
            _ => text("container has runAsNonRoot and image will run as root".into()),
        },
    }
}

/// The runtime's form of an AppArmor profile. A kernel without AppArmor has refused the pod before.
fn app_armor(profile: &AppArmorProfile) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, reference) = match profile.type_.as_str() {
        "Localhost" => (ProfileType::Localhost, profile.localhost_profile.clone().unwrap_or_default()),
        "Unconfined" => (ProfileType::Unconfined, String::new()),
        _ => (ProfileType::RuntimeDefault, String::new()),
    };
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: reference }
}

/// The user that the pod names, else the image's, else root: a group alone would be refused by the runtime.
fn user(named: Option<i64>, image: &cri::Image) -> (Option<i64>, String) {
    match (named, &image.uid) {
        (Some(uid), _) => (Some(uid), String::new()),
        (None, Some(uid)) => (Some(uid.value), String::new()),
        (None, None) if image.username.is_empty() => (Some(0), String::new()),
        (None, None) => (None, image.username.clone()),
    }
}

fn security(inputs: &Inputs<'_>) -> cri::LinuxContainerSecurityContext {
    let Inputs { node, pod, spec, .. } = inputs;
    let mut namespaces = sandbox::namespaces(pod);
    if let Some(target) = inputs.debugs {
        namespaces.pid = cri::NamespaceMode::Target.into();
        namespaces.target_id = target.to_string();
    }
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = spec.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let number = |value: i64| cri::Int64Value { value };
    let names = |list: Option<Vec<String>>| list.unwrap_or_default();
    let capabilities = own.capabilities.map(|c| cri::Capability {
        add_capabilities: names(c.add),
        drop_capabilities: names(c.drop),
        ..Default::default()
    });
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(ToString::to_string).collect() };
    let strict = of_pod.supplemental_groups_policy.as_deref() == Some("Strict");
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let (user, username) = user(own.run_as_user.or(of_pod.run_as_user), inputs.image);
    cri::LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(namespaces),
        selinux_options: sandbox::selinux(own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref())),
        run_as_user: user.map(number),
        run_as_username: username,
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(number),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: of_pod
            .fs_group
            .into_iter()
            .chain(of_pod.supplemental_groups.into_iter().flatten())
            .collect(),
        supplemental_groups_policy: if strict { 1 } else { 0 },
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&PATH_MASKED),
        readonly_paths: paths(&PATH_READONLY),
        seccomp: Some(sandbox::seccomp(profile, &node.config.root_dir)),
        apparmor: own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref()).map(app_armor),
        ..Default::default()
    }
}

/// The container's mounts, and the host path of its termination message.
fn mounts(inputs: &Inputs<'_>, env: &Environment) -> Result<(Vec<cri::Mount>, PathBuf), String> {
    let Inputs { node, pod, spec, .. } = inputs;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let dir = volumes::pod_dir(node, uid);
    let mut mounts = Vec::new();
    let mut own_hosts = false;
    for (index, mount) in spec.volume_mounts.iter().flatten().enumerate() {
        let volume = inputs.volumes.get(&mount.name);
        let volume = volume.ok_or_else(|| format!("cannot find volume \"{}\" to mount into container", mount.name))?;
        let sub = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(text)) if !text.is_empty() => Some(podsync::expand(text, |name| env.get(name))),
            _ => None,
        };
        let host_path = match sub {
            None => volume.clone(),
            Some(sub) => {
                let target = dir.join("volume-subpaths").join(&mount.name).join(&spec.name).join(index.to_string());
                let bound = volumes::bind_subpath(volume, &sub, &target);
                bound.map_err(|e| format!("failed to prepare subPath for volumeMount \"{}\": {e}", mount.name))?;
                target
            }
        };
        // a missing host path is made, as a directory: the runtime cannot bind what does not exist
        if !host_path.exists() {
            std::fs::create_dir_all(&host_path).map_err(|e| format!("cannot make {}: {e}", host_path.display()))?;
        }
        refuse_recursive(mount)?;
        own_hosts |= mount.mount_path.trim_end_matches('/') == "/etc/hosts";
        let path = &mount.mount_path;
        mounts.push(cri::Mount {
            container_path: if path.starts_with('/') { path.clone() } else { format!("/{path}") },
            host_path: host_path.display().to_string(),
            readonly: mount.read_only.unwrap_or(false) || is_read_only_claim(pod, &mount.name),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer.into(),
                Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional.into(),
                _ => cri::MountPropagation::PropagationPrivate.into(),
            },
            ..Default::default()
        });
    }
    let bind = |path: &Path, at: &str, readonly: bool| cri::Mount {
        container_path: at.to_string(),
        host_path: path.display().to_string(),
        readonly,
        ..Default::default()
    };
    if !own_hosts {
        let path = dir.join("etc-hosts");
        let host_network = pod.spec.as_ref().is_some_and(podsync::is_host_network);
        let of_node = host_network.then(|| std::fs::read_to_string("/etc/hosts").unwrap_or_default());
        let text = names::hosts_file(pod, &node.config.cluster_domain, &inputs.addresses.pod, of_node.as_deref());
        put(&path, text.as_bytes(), 0o644).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        mounts.push(bind(&path, "/etc/hosts", false));
    }
    let termination = dir.join("containers").join(&spec.name).join(inputs.attempt.to_string());
    put(&termination, b"", 0o666).map_err(|e| format!("cannot write {}: {e}", termination.display()))?;
    let at = spec.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log");
    mounts.push(bind(&termination, at, false));
    Ok((mounts, termination))
}

fn is_read_only_claim(pod: &Pod, name: &str) -> bool {
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.any(|volume| {
        let claim = volume.persistent_volume_claim.as_ref();
        volume.name == name && claim.is_some_and(|claim| claim.read_only == Some(true))
    })
}

/// The block volumes of the container.
fn devices(inputs: &Inputs<'_>) -> Result<Vec<cri::Device>, String> {
    let one = |device: &VolumeDevice| {
        let path = inputs.volumes.get(&device.name);
        let path = path.ok_or_else(|| format!("cannot find volume \"{}\" to pass into container", device.name))?;
        let read_only = is_read_only_claim(inputs.pod, &device.name);
        Ok(cri::Device {
            container_path: device.device_path.clone(),
            host_path: path.display().to_string(),
            permissions: if read_only { "r" } else { "mrw" }.to_owned(),
        })
    };
    inputs.spec.volume_devices.iter().flatten().map(one).collect()
}

/// containerd says from 2.0 on whether it can make what is mounted below a volume read-only too; until then it cannot.
fn refuse_recursive(mount: &VolumeMount) -> Result<(), String> {
    let mode = mount.recursive_read_only.as_deref().unwrap_or("Disabled");
    let wants = |why: String| Err(format!("failed to resolve recursive read-only mode: {why}"));
    let asked = format!("volume \"{}\" requested recursive read-only mode", mount.name);
    let propagation = mount.mount_propagation.as_deref().unwrap_or("None");
    match mode {
        "Disabled" => Ok(()),
        _ if mount.read_only != Some(true) => wants(format!("{asked}, but it is not read-only")),
        _ if propagation != "None" => {
            wants(format!("{asked}, but it is not compatible with propagation \"{propagation}\""))
        }
        "IfPossible" => Ok(()),
        "Enabled" => wants(format!("{asked}, but it is not supported by the runtime")),
        other => wants(format!("unknown recursive read-only mode \"{other}\"")),
    }
}

fn put(path: &Path, data: &[u8], mode: u32) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, data)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
