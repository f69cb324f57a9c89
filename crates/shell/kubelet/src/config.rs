//! What a node is told when it starts: names, directories, addresses and limits. Nothing is a fixed path.

use k8s_openapi::api::core::v1::Taint;
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
    /// Port of the kubelet's HTTPS server, announced in the Node object.
    pub port: u16,
    /// Size at which a container log is rotated.
    pub log_bytes_max: u64,
    /// Files kept per container log.
    pub log_files_max: u32,
    /// Disk use in percent at which unused images are removed.
    pub image_gc_high_percent: u8,
    /// Disk use in percent down to which they are removed.
    pub image_gc_low_percent: u8,
}

impl KubeletConfig {
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
            port: 10250,
            log_bytes_max: 10 << 20,
            log_files_max: 5,
            image_gc_high_percent: 85,
            image_gc_low_percent: 80,
        }
    }
}
