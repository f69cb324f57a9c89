//! A cluster on this machine: what identifies it, and every path, name, address and port that derives from that.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use machine::fabric::{Fabric, Place};
use machine::teardown::Remains;
use serde::{Deserialize, Serialize};

/// Where clusters live by default: one directory each.
const CLUSTERS_DIR: &str = "/var/lib/tug";
pub const DEFAULT_NAME: &str = "tug";
const NAME_BYTES_MAX: usize = 32;

/// Clusters on one machine get different networks and ports by their slot.
const SLOTS: u8 = 16;
const API_PORT: u16 = 6443;
const KUBELET_PORT: u16 = 10250;
/// Health and status of the service proxy, where kube-proxy has them.
pub const PROXY_PORTS: (u16, u16) = (10256, 10249);
/// Ports of the machine's further clusters, which would meet the kubelets' ports otherwise.
const FURTHER_PROXY_PORTS: (u16, u16) = (10512, 10768);
const NODES_NETWORK: u8 = 80;
const SERVICES_NETWORK: u8 = 96;
const PODS_NETWORK: u8 = 112;
/// Nodes that one machine carries as namespaces; a bound, not an aim.
pub const LOCAL_NODES_MAX: u16 = 100;

/// What `tug up` decides once and every later start reads again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    pub slot: u8,
    pub port: u16,
    /// Nodes on this machine; the first is the machine itself.
    pub nodes: u16,
    /// `embedded`, or `etcd=URL,URL`.
    pub datastore: String,
    #[serde(skip)]
    pub dir: PathBuf,
}

impl Cluster {
    /// The directory of a cluster by name.
    pub fn default_dir(name: &str) -> PathBuf {
        Path::new(CLUSTERS_DIR).join(name)
    }

    fn file(dir: &Path) -> PathBuf {
        dir.join("cluster.json")
    }

    /// Reads a cluster's file; None where there is none.
    ///
    /// # Errors
    /// The file is there but cannot be read or understood.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = Self::file(dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut cluster: Self = serde_json::from_str(&text).with_context(|| {
            format!("{} is damaged; restore it, or delete {} to start over", path.display(), dir.display())
        })?;
        cluster.dir = dir.to_path_buf();
        Ok(Some(cluster))
    }

    /// The cluster of a directory, or a new one in the first slot that no other cluster here uses.
    ///
    /// # Errors
    /// The name is no DNS label, all slots are taken, or the directory cannot be read.
    pub fn read_or_new(name: &str, dir: &Path, port: Option<u16>) -> Result<Self> {
        check_name(name)?;
        if let Some(cluster) = Self::read(dir)? {
            if cluster.name != name {
                bail!(
                    "{} belongs to cluster {:?}; use --name {} or another --data-dir",
                    dir.display(),
                    cluster.name,
                    cluster.name
                );
            }
            if port.is_some_and(|port| port != cluster.port) {
                bail!(
                    "cluster {name:?} serves on port {}; delete it to choose another: tug down --delete --name {name}",
                    cluster.port
                );
            }
            return Ok(cluster);
        }
        let slot = free_slot(&claims(), name, dir, SystemTime::now())?;
        let port = port.unwrap_or(API_PORT + u16::from(slot));
        Ok(Self {
            name: name.to_owned(),
            slot,
            port,
            nodes: 0,
            datastore: "embedded".to_owned(),
            dir: dir.to_path_buf(),
        })
    }

    /// Writes the cluster's file, whole or not at all.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let tell = || format!("cannot write to {}; choose another place with --data-dir", self.dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).with_context(tell)?;
        let partial = self.dir.join("cluster.json.new");
        fs::write(&partial, serde_json::to_vec_pretty(self)?).with_context(tell)?;
        fs::rename(&partial, Self::file(&self.dir)).with_context(tell)
    }

    pub fn pod_cidr(&self) -> String {
        format!("10.{}.0.0/16", PODS_NETWORK + self.slot)
    }

    pub fn service_cidr(&self) -> String {
        format!("10.{}.0.0/16", SERVICES_NETWORK + self.slot)
    }

    pub fn dns_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, SERVICES_NETWORK + self.slot, 0, 10)
    }

    /// The address of the service `kubernetes`.
    pub fn kubernetes_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, SERVICES_NETWORK + self.slot, 0, 1)
    }

    pub fn kubelet_port(&self) -> u16 {
        KUBELET_PORT + u16::from(self.slot)
    }

    /// Health and status of the service proxy of the first node.
    pub fn proxy_ports(&self) -> (u16, u16) {
        let (health, status) = FURTHER_PROXY_PORTS;
        let slot = u16::from(self.slot);
        if slot == 0 { PROXY_PORTS } else { (health + slot, status + slot) }
    }

    pub fn context(&self) -> String {
        if self.name == DEFAULT_NAME { DEFAULT_NAME.to_owned() } else { format!("tug-{}", self.name) }
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("server.pid")
    }

    pub fn fabric(&self) -> Fabric {
        Fabric {
            bridge: format!("tug{}", self.slot),
            gateway: Ipv4Addr::new(10, NODES_NETWORK + self.slot, 0, 1),
            prefix: 24,
        }
    }

    /// The `index`th local node, counted from 1.
    pub fn node(&self, index: u16) -> LocalNode {
        LocalNode {
            name: if self.name == DEFAULT_NAME {
                format!("node-{index}")
            } else {
                format!("{}-node-{index}", self.name)
            },
            index,
            dir: self.dir.join("nodes").join(index.to_string()),
            slot: self.slot,
        }
    }

    pub fn local_nodes(&self) -> impl Iterator<Item = LocalNode> + '_ {
        (1..=self.nodes).map(|index| self.node(index))
    }
}

/// A node that runs on this machine, with the names that belong to it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    pub name: String,
    pub index: u16,
    pub dir: PathBuf,
    slot: u8,
}

impl LocalNode {
    /// Its network namespace; the first node is the machine itself and has none of its own.
    pub fn place(&self) -> Option<Place> {
        let last = u8::try_from(self.index).ok().filter(|index| *index > 1)?;
        Some(Place {
            namespace: format!("tug{}-{}", self.slot, self.index),
            port: format!("tug{}p{}", self.slot, self.index),
            address: Ipv4Addr::new(10, NODES_NETWORK + self.slot, 0, last),
        })
    }

    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("agent.pid")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }
}

/// The paths and names of one node, wherever it runs: everything derives from its directory and a short tag.
#[derive(Clone, Debug)]
pub struct NodePaths {
    pub dir: PathBuf,
    /// Short and unique on this machine: it ends up in interface names and cgroups.
    pub tag: String,
}

impl NodePaths {
    /// The tag comes from the directory, so the same node finds its own things again.
    pub fn new(dir: &Path) -> Self {
        // FNV-1a: stable across builds, which the standard library's hasher does not promise.
        let hash = dir
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        Self { dir: dir.to_path_buf(), tag: format!("{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff) }
    }

    pub fn cgroup(&self) -> String {
        format!("/tug-{}", self.tag)
    }

    pub fn bridge(&self) -> String {
        format!("cni{}", self.tag)
    }

    pub fn vxlan(&self) -> String {
        format!("vx{}", self.tag)
    }

    pub fn table(&self) -> String {
        format!("tug-{}", self.tag)
    }

    pub fn containerd_dir(&self) -> PathBuf {
        self.dir.join("containerd")
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.containerd_dir().join("c.sock")
    }

    pub fn cni_conf(&self) -> PathBuf {
        self.dir.join("cni.d")
    }

    pub fn cni_data(&self) -> PathBuf {
        self.dir.join("ipam")
    }

    pub fn kubelet_dir(&self) -> PathBuf {
        self.dir.join("kubelet")
    }

    pub fn mounts(&self) -> PathBuf {
        self.dir.join("ns").join("mnt")
    }

    pub fn remains(&self) -> Remains {
        Remains {
            cgroup: self.cgroup(),
            containerd: self.containerd_dir(),
            mounts: self.mounts(),
            dir: self.dir.clone(),
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let label = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !label {
        bail!("{name:?} is no cluster name: use at most {NAME_BYTES_MAX} of a-z, 0-9 and '-', not at an end");
    }
    Ok(())
}

/// A claim whose cluster wrote no file of its own within this time is nobody's.
const CLAIM_LIFE: Duration = Duration::from_secs(60);

/// Slots are claimed by a link to the cluster's directory, made at once or not at all, so that two `tug up` never share
/// one; the default name has slot 0. A claim ends with the directory, also where that was removed by hand.
fn free_slot(claims: &Path, name: &str, dir: &Path, now: SystemTime) -> Result<u8> {
    fs::create_dir_all(claims).with_context(|| format!("cannot create {}; run as root", claims.display()))?;
    let dir = std::path::absolute(dir).with_context(|| format!("cannot find {}", dir.display()))?;
    let first = if name == DEFAULT_NAME { 0 } else { 1 };
    for slot in first..SLOTS {
        let claim = claims.join(slot.to_string());
        if is_abandoned(&claim, now) && !has_links(slot) {
            let _ = fs::remove_file(&claim);
        }
        match symlink(&dir, &claim) {
            Ok(()) => return Ok(slot),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write to {}", claims.display())),
        }
    }
    bail!("{SLOTS} clusters exist on this machine; delete one: tug down --delete --name NAME")
}

fn is_abandoned(claim: &Path, now: SystemTime) -> bool {
    let Ok(owner) = fs::read_link(claim) else { return false };
    let made = fs::symlink_metadata(claim).and_then(|meta| meta.modified());
    let is_old = made.is_ok_and(|made| now.duration_since(made).is_ok_and(|age| age > CLAIM_LIFE));
    is_old && !Cluster::file(&owner).exists()
}

/// Whether network interfaces of a slot's cluster are left: it may still run.
fn has_links(slot: u8) -> bool {
    let ours = format!("tug{slot}");
    let of_slot =
        |name: &str| name.strip_prefix(&ours).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    let Ok(links) = fs::read_dir("/sys/class/net") else { return false };
    links.flatten().any(|link| link.file_name().to_str().is_some_and(of_slot))
}

fn claims() -> PathBuf {
    Path::new(CLUSTERS_DIR).join(".slots")
}

/// Gives a deleted cluster's slot back.
pub fn release_slot(slot: u8) {
    let _ = fs::remove_file(claims().join(slot.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(slot: u8) -> Cluster {
        let dir = PathBuf::from("/x");
        Cluster { name: "a".to_owned(), slot, port: 1, nodes: 3, datastore: "embedded".to_owned(), dir }
    }

    #[test]
    fn clusters_in_different_slots_share_no_network_or_interface() {
        let facts = |slot| {
            let c = cluster(slot);
            let names = [c.pod_cidr(), c.service_cidr(), c.fabric().gateway.to_string(), c.fabric().bridge];
            names.into_iter().chain(c.local_nodes().filter_map(|n| n.place()).map(|p| p.port)).collect::<Vec<_>>()
        };
        let mut all: Vec<String> = (0..SLOTS).flat_map(facts).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn names_fit_what_the_kernel_takes() {
        let paths = NodePaths::new(Path::new("/var/lib/tug/some-cluster/nodes/12"));
        assert!(paths.bridge().len() <= machine::fabric::INTERFACE_NAME_MAX);
        assert!(
            cluster(SLOTS - 1).node(LOCAL_NODES_MAX).place().unwrap().port.len() <= machine::fabric::INTERFACE_NAME_MAX
        );
    }

    #[test]
    fn names_of_clusters_are_dns_labels() {
        for (name, ok) in [("tug", true), ("a-1", true), ("", false), ("A", false), ("-a", false), ("a/b", false)] {
            assert_eq!(check_name(name).is_ok(), ok, "{name}");
        }
    }

    #[test]
    fn a_slot_is_free_again_when_its_directory_is_gone() {
        let top = tempfile::tempdir().unwrap();
        let (claims, dir) = (top.path().join("slots"), top.path().join("a"));
        Cluster { dir: dir.clone(), ..cluster(SLOTS - 1) }.write().unwrap();
        // The slots below are taken, whatever links this machine has.
        for slot in 0..SLOTS - 1 {
            fs::create_dir_all(claims.join(slot.to_string())).unwrap();
        }
        let now = SystemTime::now();
        let later = now + CLAIM_LIFE * 2;
        let free = |name: &str, now| free_slot(&claims, name, &dir, now);
        assert_eq!(free("a", now).unwrap(), SLOTS - 1);
        free("b", later).expect_err("a cluster lives there");
        fs::remove_dir_all(&dir).unwrap();
        free("b", now).expect_err("a new claim has time to write its file");
        assert_eq!(free("b", later).unwrap(), SLOTS - 1, "the directory was removed by hand");
    }
}
