//! What one node's network needs to know; every name and path is the caller's, so that clusters share a machine.

use crate::applied::Applied;
use crate::guarded::Guarded;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// How pods of other nodes are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// A plain route when the other node is in a directly connected subnet, VXLAN otherwise.
    #[default]
    Auto,
    /// Always VXLAN, for networks that drop packets with unknown addresses.
    Vxlan,
}

/// Configuration of [`crate::run`].
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Name of this node's Node object.
    pub node_name: String,
    /// Address by which other nodes and clients reach this node; node ports are served on it.
    pub node_ip: Ipv4Addr,
    /// Further local addresses on which node ports are served.
    pub node_port_ips: Vec<Ipv4Addr>,
    /// The pod network of the whole cluster; each node's `spec.podCIDR` lies in it.
    pub cluster_cidr: (Ipv4Addr, u8),
    pub service_cidr: (Ipv4Addr, u8),
    /// `cluster.local` unless configured.
    pub cluster_domain: String,
    /// Cluster IP of the `kube-dns` Service.
    pub dns_service_ip: Ipv4Addr,
    /// Port of the node's DNS server on the bridge's address. Pods use 53 on the service IP whatever this is.
    pub dns_port: u16,
    /// File whose nameservers answer what is outside the cluster.
    pub resolv_conf: PathBuf,
    /// Where load balancers and people ask for the service proxy's health; kube-proxy's ports, on a machine's one cluster.
    pub proxy_health_port: u16,
    pub proxy_status_port: u16,
    /// Name of the nftables table.
    pub table: String,
    /// Name of the pod bridge.
    pub bridge: String,
    /// Name of the VXLAN device, its network identifier and UDP port.
    pub vxlan_device: String,
    pub vxlan_id: u32,
    pub vxlan_port: u16,
    pub backend: Backend,
    /// Bytes; 0 means that of the node's own interface, less the VXLAN header.
    pub mtu: u32,
    /// Directory for the CNI configuration, and the one for leased pod addresses.
    pub cni_config_dir: PathBuf,
    pub cni_data_dir: PathBuf,
    /// Tells what the rules of this node hold; share it with the node's kubelet.
    pub applied: Applied,
    /// Tells which pods the policy rules of this node guard; share it with the node's kubelet.
    pub guarded: Guarded,
}
