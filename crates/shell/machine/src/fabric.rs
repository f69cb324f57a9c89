//! The network between the nodes of a local cluster: a bridge on the machine, and a namespace with a veth pair per node.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::programs::run;

const NAMESPACE_DIR: &str = "/run/netns";
/// Longest interface name that Linux takes.
pub const INTERFACE_NAME_MAX: usize = 15;

/// The bridge that joins a cluster's local nodes; the machine itself has the first address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fabric {
    pub bridge: String,
    pub gateway: Ipv4Addr,
    pub prefix: u8,
}

/// One further node's place on the fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the network namespace.
    pub namespace: String,
    /// The machine's end of the veth pair.
    pub port: String,
    pub address: Ipv4Addr,
}

impl Fabric {
    /// Makes the bridge where it is missing. Running it again changes nothing.
    ///
    /// # Errors
    /// A link or address could not be made: root is needed.
    pub fn ensure(&self) -> Result<()> {
        if !exists(&self.bridge) {
            run("ip", &["link", "add", &self.bridge, "type", "bridge"])?;
        }
        run("ip", &["address", "replace", &format!("{}/{}", self.gateway, self.prefix), "dev", &self.bridge])?;
        run("ip", &["link", "set", &self.bridge, "up"])?;
        Ok(())
    }

    /// Makes a node's namespace, its veth pair, address and default route.
    ///
    /// # Errors
    /// As `ensure`.
    pub fn place(&self, place: &Place) -> Result<()> {
        if place.path().exists() && exists(&place.port) {
            return Ok(());
        }
        let (name, port) = (place.namespace.as_str(), place.port.as_str());
        place.remove();
        run("ip", &["netns", "add", name])?;
        run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        run("ip", &["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        run("ip", &["link", "set", port, "master", &self.bridge, "up"])?;
        // What a node sends to a port of the first node may have to come back to it: the bridge itself translates and
        // forwards it, and would not send a frame out where it came in.
        run("ip", &["link", "set", port, "type", "bridge_slave", "hairpin", "on"])?;
        run("ip", &["-n", name, "address", "add", &format!("{}/{}", place.address, self.prefix), "dev", "eth0"])?;
        run("ip", &["-n", name, "link", "set", "eth0", "up"])?;
        run("ip", &["-n", name, "route", "add", "default", "via", &self.gateway.to_string()])?;
        Ok(())
    }

    pub fn remove(&self) {
        let _ = run("ip", &["link", "delete", &self.bridge]);
    }
}

impl Place {
    /// The file that holds the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACE_DIR).join(&self.namespace)
    }

    pub fn remove(&self) {
        let _ = run("ip", &["link", "delete", &self.port]);
        let _ = run("ip", &["netns", "delete", &self.namespace]);
    }
}

/// Asked of the kernel and not of /sys, which may show the network namespace of whoever mounted it.
fn exists(interface: &str) -> bool {
    nix::net::if_::if_nametoindex(interface).is_ok()
}

/// The machine's own address towards the world: the source of its default route.
pub fn primary_address() -> Option<Ipv4Addr> {
    let routes = run("ip", &["-4", "route", "show", "default"]).ok()?;
    let words: Vec<&str> = routes.lines().next()?.split_whitespace().collect();
    let after = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1)).copied();
    if let Some(source) = after("src") {
        return source.parse().ok();
    }
    let addresses = run("ip", &["-4", "-o", "address", "show", "dev", after("dev")?, "scope", "global"]).ok()?;
    let mut words = addresses.lines().next()?.split_whitespace().skip_while(|word| *word != "inet");
    words.nth(1)?.split('/').next()?.parse().ok()
}
