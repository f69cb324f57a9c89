//! The CNI configuration that tells the container runtime how to attach pods, and the kernel switches it relies on.

use crate::config::NetworkConfig;
use std::io::{Error, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Name of the file in the CNI configuration directory.
pub const CONFIG_FILE: &str = "10-pods.conflist";

/// The configuration list as text.
pub fn conflist(config: &NetworkConfig, pod_cidr: (Ipv4Addr, u8), mtu: u32) -> String {
    let list = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": config.bridge,
        "plugins": [
            {
                "type": "bridge",
                "bridge": config.bridge,
                "isGateway": true,
                // The service proxy's table masquerades: it knows which networks are the cluster's own.
                "ipMasq": false,
                "hairpinMode": true,
                "mtu": mtu,
                "ipam": {
                    "type": "host-local",
                    "dataDir": config.cni_data_dir,
                    "ranges": [[{ "subnet": format!("{}/{}", pod_cidr.0, pod_cidr.1) }]],
                    "routes": [{ "dst": "0.0.0.0/0" }]
                }
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }
        ]
    });
    format!("{list:#}\n")
}

/// Writes the configuration so that a reader sees the old or the new one, never a part.
pub fn write(directory: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let (file, part) = (directory.join(CONFIG_FILE), directory.join(format!(".{CONFIG_FILE}.part")));
    if std::fs::read_to_string(&file).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let mut out = std::fs::File::create(&part)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(part, file)
}

/// What the kernel has to do, by file under `/proc/sys`. With `bridge-nf-call-iptables` off, a backend on its client's own
/// node would answer over the bridge without translation. Idle connections are remembered for a day and half-closed ones
/// for an hour, in seconds, as on any Kubernetes node.
const SWITCHES: [(&str, &str, Need); 4] = [
    ("net/ipv4/ip_forward", "1", Need::Always),
    (
        "net/bridge/bridge-nf-call-iptables",
        "1",
        Need::Module { name: "br_netfilter", without: "services fail between pods of one node" },
    ),
    ("net/netfilter/nf_conntrack_tcp_timeout_established", "86400", CONNTRACK),
    ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600", CONNTRACK),
];
const CONNTRACK: Need = Need::Module { name: "nf_conntrack", without: "connections are remembered for too long" };

/// What it means that a kernel has no such switch, or one that cannot be written, as in a container.
enum Need {
    /// No network without it.
    Always,
    /// It comes with a module, which is loaded; a kernel that has none is warned about.
    Module { name: &'static str, without: &'static str },
}

/// Sets the kernel's switches, and loads the modules that bring them.
pub fn kernel_switches() -> std::io::Result<()> {
    for (name, wanted, need) in SWITCHES {
        let path = format!("/proc/sys/{name}");
        match need {
            Need::Always => set(&path, wanted)?,
            Need::Module { name, without } => {
                // a kernel may have it built in, and where it may not load modules it may have it loaded
                let loaded = if Path::new(&path).exists() { Ok(()) } else { load(name) };
                if let Err(error) = loaded.and_then(|()| set(&path, wanted)) {
                    tracing::warn!(path, wanted, module = name, %error, "cannot be set; without it {without}");
                }
            }
        }
    }
    Ok(())
}

fn set(path: &str, wanted: &str) -> std::io::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == wanted) {
        return Ok(());
    }
    std::fs::write(path, wanted)
}

fn load(module: &str) -> std::io::Result<()> {
    let output = Command::new("modprobe").arg(module).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
