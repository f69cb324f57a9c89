//! The CNI configuration that tells the container runtime how to attach pods, and the kernel switches it relies on.

use crate::config::NetworkConfig;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;

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
const SWITCHES: [(&str, &str, Absence); 4] = [
    ("net/ipv4/ip_forward", "1", Absence::Fails),
    (
        "net/bridge/bridge-nf-call-iptables",
        "1",
        Absence::Warns("load br_netfilter, or services fail between pods of one node"),
    ),
    ("net/netfilter/nf_conntrack_tcp_timeout_established", "86400", Absence::Warns("load nf_conntrack")),
    ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600", Absence::Warns("load nf_conntrack")),
];

/// What it means that a kernel has no such switch, as when it is in a module that is not loaded yet, or one that cannot
/// be written, as in a container.
enum Absence {
    Fails,
    Warns(&'static str),
}

/// Sets the kernel's switches.
pub fn kernel_switches() -> std::io::Result<()> {
    for (name, wanted, absence) in SWITCHES {
        let path = format!("/proc/sys/{name}");
        match (std::fs::read_to_string(&path), absence) {
            (Ok(value), _) if value.trim() == wanted => {}
            (Err(_), Absence::Warns(remedy)) => tracing::warn!(path, remedy, "absent"),
            (Ok(_), Absence::Warns(remedy)) => {
                if let Err(error) = std::fs::write(&path, wanted) {
                    tracing::warn!(path, wanted, %error, remedy, "cannot be set");
                }
            }
            (_, Absence::Fails) => std::fs::write(&path, wanted)?,
        }
    }
    Ok(())
}
