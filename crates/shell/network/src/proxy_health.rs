//! The service proxy's own health, on the ports where load balancers and people look for kube-proxy's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::applied::Applied;
use crate::plain_http::{self, Answer};

/// Set by the cluster autoscaler on a node that it is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What the answers depend on.
pub struct ProxyHealth {
    pub applied: Applied,
    /// Whether load balancers may send new connections here: not to a node that is about to go.
    pub eligible: AtomicBool,
}

impl ProxyHealth {
    pub fn see(&self, node: &Node) {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let marked = taints.into_iter().any(|taint| taint.key == TO_BE_DELETED);
        self.eligible.store(node.metadata.deletion_timestamp.is_none() && !marked, Relaxed);
    }

    /// `/healthz` is for load balancers and asks whether to send traffic, `/livez` only whether the proxy works.
    fn health(&self, path: &str) -> Answer {
        let (works, eligible) = (self.applied.generation() > 0, self.eligible.load(Relaxed));
        let now = Timestamp::now().to_string();
        let body = json!({ "lastUpdated": now, "currentTime": now, "nodeEligible": eligible });
        match path {
            "/healthz" => Answer::json(works && eligible, &body),
            "/livez" => Answer::json(works, &body),
            _ => Answer::not_found(),
        }
    }

    fn status(path: &str) -> Answer {
        match path {
            "/proxyMode" => Answer::text("nftables"),
            "/healthz" => Answer::text("ok"),
            _ => Answer::not_found(),
        }
    }
}

/// Serves `health_port` on all addresses and `status_port` on the loopback one, until cancelled.
pub async fn run(health: Arc<ProxyHealth>, health_port: u16, status_port: u16, stop: CancellationToken) {
    let answers = Arc::new(move |path: &str| health.health(path));
    tokio::join!(
        plain_http::serve(SocketAddr::from((Ipv4Addr::UNSPECIFIED, health_port)), answers, stop.clone()),
        plain_http::serve(SocketAddr::from((Ipv4Addr::LOCALHOST, status_port)), Arc::new(ProxyHealth::status), stop)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_balancers_hear_of_rules_and_of_nodes_that_go() {
        let health = ProxyHealth { applied: Applied::default(), eligible: AtomicBool::new(true) };
        let codes = || ["/healthz", "/livez", "/"].map(|path| health.health(path).status[..3].to_owned());
        assert_eq!(codes(), ["503", "503", "404"], "before there are rules");
        health.applied.update(&[], &[]);
        assert_eq!(codes(), ["200", "200", "404"]);
        let node = |taint: &str| -> Node {
            serde_json::from_value(json!({"spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]}})).unwrap()
        };
        health.see(&node(TO_BE_DELETED));
        assert_eq!(codes(), ["503", "200", "404"], "connections here would be cut soon");
        health.see(&node("other"));
        assert_eq!(codes(), ["200", "200", "404"]);
    }
}
