//! Forgets flows whose endpoint is gone: the kernel would keep sending their packets there.
//!
//! UDP flows go at once, and with them every datagram that follows. Of TCP only attempts that got no answer go: the
//! client's next try, or another client's that got the same port, would follow them to where nobody answers, for two
//! minutes after a node died. They go a moment after the rules, since a handshake that is under way needs its entry.

use crate::nft::{CallError, call};
use netplan::proxy::UdpFlush;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// By then a living endpoint has answered.
const HANDSHAKE_MAX: Duration = Duration::from_millis(500);

/// Endpoints that left the rules and may have unanswered attempts.
#[derive(Clone, Default)]
pub struct Unanswered(Arc<Mutex<HashSet<Ipv4Addr>>>);

impl Unanswered {
    /// Sees to it that attempts to reach these are forgotten soon; one look at the kernel's list serves all that come
    /// until then.
    pub fn forget_later(&self, gone: &[Ipv4Addr]) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.is_empty() && !gone.is_empty();
        waiting.extend(gone);
        if first {
            let waiting = self.0.clone();
            tokio::spawn(async move {
                tokio::time::sleep(HANDSHAKE_MAX).await;
                let gone = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
                if let Err(error) = forget(&gone).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot forget unanswered connections");
                }
            });
        }
    }
}

async fn forget(gone: &HashSet<Ipv4Addr>) -> Result<(), CallError> {
    let unanswered = ["-p", "tcp", "--state", "SYN_SENT"];
    let listing = call("conntrack", &[&["-L", "--dst-nat"], &unanswered[..]].concat(), "").await?;
    for ip in answerers(&String::from_utf8_lossy(&listing)).intersection(gone) {
        tracing::debug!(%ip, "forgetting unanswered connections");
        delete(&[&["-D", "--reply-src", &ip.to_string()], &unanswered[..]].concat()).await?;
    }
    Ok(())
}

/// The addresses from which answers are awaited: each line has the flow's own source first, and then the answer's.
fn answerers(listing: &str) -> HashSet<Ipv4Addr> {
    let second = |line: &str| line.split(' ').filter_map(|word| word.strip_prefix("src=")).nth(1)?.parse().ok();
    listing.lines().filter_map(second).collect()
}

/// That there are none is success.
async fn delete(arguments: &[&str]) -> Result<(), CallError> {
    match call("conntrack", arguments, "").await {
        Err(CallError::Failed { complaint, .. }) if complaint.contains("0 flow entries") => Ok(()),
        other => other.map(drop),
    }
}

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
    delete(&arguments).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_from_the_second_source() {
        let listing = "tcp      6 107 SYN_SENT src=10.0.0.1 dst=10.96.0.1 sport=1 dport=80 [UNREPLIED] src=10.1.2.5 \
                       dst=10.0.0.1 sport=8080 dport=1 mark=1 use=1\nnonsense\n";
        assert_eq!(answerers(listing), HashSet::from([[10, 1, 2, 5].into()]));
    }
}
