//! Forgets UDP flows whose endpoint is gone: the kernel would keep sending their datagrams there.

use crate::nft::{CallError, call};
use netplan::proxy::UdpFlush;

/// Deletes the flows of one frontend (to one endpoint). That there are none is success.
pub async fn flush(flush: &UdpFlush) -> Result<(), CallError> {
    let port = flush.frontend.port.to_string();
    let frontend_ip = flush.frontend.ip.map(|ip| ip.to_string());
    let endpoint = flush.endpoint.map(|endpoint| (endpoint.ip.to_string(), endpoint.port.to_string()));
    let mut arguments = vec!["-D", "-p", "udp", "--orig-port-dst", &port];
    if let Some(ip) = &frontend_ip {
        arguments.extend(["--orig-dst", ip]);
    }
    if let Some((ip, port)) = &endpoint {
        arguments.extend(["--reply-src", ip, "--reply-port-src", port]);
    }
    match call("conntrack", &arguments, "").await {
        Err(CallError::Failed { complaint, .. }) if complaint.contains("0 flow entries") => Ok(()),
        other => other.map(drop),
    }
}
