//! One node's network from start to cancellation.

use crate::config::NetworkConfig;
use crate::proxy;
use crate::watch::{self, Change};
use kube::Client;
use netplan::proxy::{ProxyConfig, ProxyState};
use netplan::select::NodeIdentity;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Serves the node until `stop`. Rules and routes stay in the kernel, so that connections survive a restart;
/// [`crate::cleanup`] removes them. `client` must reach the API server by its own address, never by a cluster IP.
pub async fn run(config: NetworkConfig, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
    let state = ProxyState::new(proxy_config(&config));
    let (sender, receiver) = mpsc::channel(proxy::CHANGES_WAITING_MAX);
    let send = |change: Change| {
        let sender = sender.clone();
        async move { drop(sender.send(change).await) }
    };
    tokio::select! {
        () = watch::services(client.clone(), send) => {}
        () = watch::slices(client.clone(), send) => {}
        () = proxy::run(state, receiver, config.applied.clone(), stop.clone()) => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

fn proxy_config(config: &NetworkConfig) -> ProxyConfig {
    ProxyConfig {
        table: config.table.clone(),
        node: NodeIdentity { name: config.node_name.clone(), zone: None },
        node_ips: std::iter::once(config.node_ip).chain(config.node_port_ips.iter().copied()).collect(),
        pod_cidrs: vec![config.cluster_cidr],
        own_pod_cidrs: vec![],
        service_cidrs: vec![config.service_cidr],
        dns: None,
    }
}
