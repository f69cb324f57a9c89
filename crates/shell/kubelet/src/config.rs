//! What a node is told when it starts: names, directories, addresses and limits. Nothing is a fixed path.

use k8s_openapi::api::core::v1::Taint;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Where the container runtime comes from.
#[derive(Clone, Debug)]
pub enum RuntimeSource {
    /// A containerd that somebody else runs.
    Socket(PathBuf),
    /// A containerd of our own, started and supervised here.
    Private(crate::containerd::ContainerdConfig),
}

/// What is too little of the node's resources.
#[derive(Clone, Debug)]
pub struct PressureLimits {
    /// Memory.
    pub memory_available_bytes_min: u64,
    /// Share of the disk.
    pub disk_available_percent_min: u8,
    /// Room that is enough on a disk of any size: a twentieth of a large disk is no emergency.
    pub disk_available_bytes_enough: u64,
    /// The same for the removal of unused images.
    pub images_available_bytes_enough: u64,
    /// Share of the disk's inodes.
    pub inodes_free_percent_min: u8,
    /// Process ids.
    pub processes_free_min: u64,
}

impl Default for PressureLimits {
    fn default() -> Self {
        Self {
            memory_available_bytes_min: 100 << 20,
            disk_available_percent_min: 5,
            disk_available_bytes_enough: 2 << 30,
            images_available_bytes_enough: 4 << 30,
            inodes_free_percent_min: 5,
            processes_free_min: 500,
        }
    }
}

/// Configuration of one node's kubelet.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// Name of the Node object.
    pub node_name: String,
    /// The node's addresses; the first is primary.
    pub node_ips: Vec<IpAddr>,
    /// Labels beside the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Taints set when the node registers.
    pub taints: Vec<Taint>,
    /// Directory for pods and volumes.
    pub root_dir: PathBuf,
    /// Directory for container logs.
    pub log_dir: PathBuf,
    /// Directory with manifests of static pods.
    pub manifests_dir: Option<PathBuf>,
    /// The container runtime.
    pub runtime: RuntimeSource,
    /// Control group under which all pods live, for example `/kubepods`.
    pub cgroup_parent: String,
    /// Addresses of the cluster's DNS service.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// The node's own resolver configuration, for `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
    /// Most pods the node takes.
    pub pods_max: u32,
    /// CPU withheld from pods, thousandths of a core.
    pub reserved_cpu_milli: i64,
    /// Memory withheld from pods.
    pub reserved_memory_bytes: i64,
    /// sysctls beyond the safe ones that pods may set; a name may end in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Port of the kubelet's HTTPS server, announced in the Node object.
    pub port: u16,
    /// Size at which a container log is rotated.
    pub log_bytes_max: u64,
    /// Files kept per container log.
    pub log_files_max: u32,
    /// When the node counts as running out of something.
    pub pressure: PressureLimits,
    /// Disk use in percent at which unused images are removed.
    pub image_gc_high_percent: u8,
    /// Disk use in percent down to which they are removed.
    pub image_gc_low_percent: u8,
}

impl KubeletConfig {
    /// The settings as upstream's `/configz` names them.
    pub fn document(&self) -> Value {
        json!({"kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "staticPodPath": self.manifests_dir.as_ref().map(|dir| dir.display().to_string()).unwrap_or_default(),
            "address": self.node_ips.first().map(ToString::to_string),
            "port": self.port,
            "clusterDomain": self.cluster_domain,
            "clusterDNS": self.cluster_dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "nodeStatusUpdateFrequency": "10s",
            "nodeStatusReportFrequency": "5m0s",
            "nodeLeaseDurationSeconds": 40,
            "imageGCHighThresholdPercent": self.image_gc_high_percent,
            "imageGCLowThresholdPercent": self.image_gc_low_percent,
            "cgroupRoot": self.cgroup_parent,
            "cgroupsPerQOS": true,
            "cgroupDriver": "cgroupfs",
            "cpuManagerPolicy": "none",
            "memoryManagerPolicy": "None",
            "topologyManagerPolicy": "none",
            "hairpinMode": "hairpin-veth",
            "maxPods": self.pods_max,
            "resolvConf": self.resolv_conf.display().to_string(),
            "cpuCFSQuota": true,
            "cpuCFSQuotaPeriod": "100ms",
            "containerLogMaxSize": self.log_bytes_max.to_string(),
            "containerLogMaxFiles": self.log_files_max,
            "failSwapOn": false,
        }})
    }

    /// A configuration with Kubernetes' defaults for everything that is not the node's identity.
    pub fn new(node_name: &str, node_ip: IpAddr, root_dir: PathBuf, runtime: RuntimeSource) -> KubeletConfig {
        KubeletConfig {
            node_name: node_name.to_string(),
            node_ips: vec![node_ip],
            labels: BTreeMap::new(),
            taints: Vec::new(),
            log_dir: root_dir.join("log"),
            root_dir,
            manifests_dir: None,
            runtime,
            cgroup_parent: "/kubepods".into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            pods_max: 110,
            reserved_cpu_milli: 0,
            reserved_memory_bytes: 0,
            allowed_unsafe_sysctls: Vec::new(),
            port: 10250,
            log_bytes_max: 10 << 20,
            log_files_max: 5,
            pressure: PressureLimits::default(),
            image_gc_high_percent: 85,
            image_gc_low_percent: 80,
        }
    }
}
