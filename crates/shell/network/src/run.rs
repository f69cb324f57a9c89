//! One node's network from start to cancellation, and its removal.

use crate::config::{Backend, NetworkConfig};
use crate::dns::{Listener, Server, SharedZone};
use crate::forward::Forwarder;
use crate::guard::Guards;
use crate::link::Links;
use crate::policy::{self, PolicyChange};
use crate::proxy_health::{self, ProxyHealth};
use crate::upstreams::SharedUpstreams;
use crate::watch::{self as watches, Change};
use crate::{cni, health, nft, proxy};
use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use netplan::dns::Zone;
use netplan::policy::state::{PolicyConfig, PolicyState};
use netplan::proxy::{DnsRedirect, ProxyConfig, ProxyState};
use netplan::routes::{Cidr, NodeView, Place, plan};
use netplan::select::NodeIdentity;
use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Wait after a failed change of links or routes.
const RETRY: Duration = Duration::from_secs(1);
/// How often routes are written again, should someone else have removed them.
const RESYNC_PERIOD: Duration = Duration::from_secs(60);

/// The nodes as last seen; empty until the first list is complete.
#[derive(Clone, Debug, Default, PartialEq)]
struct Nodes {
    synced: bool,
    all: BTreeMap<String, NodeView>,
}

/// Serves the node until `stop`. Rules and routes stay in the kernel, so that connections survive a restart;
/// [`crate::cleanup`] removes them. `client` must reach the API server by its own address, never by a cluster IP.
/// Works in the network namespace of the calling thread's runtime. Fails only when the machine cannot do it at all.
pub async fn run(config: NetworkConfig, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
    cni::kernel_switches().context("cannot switch packet forwarding on (is this root?)")?;
    let links = Links::open(config.clone()).context("cannot open a netlink socket")?;
    let zone: SharedZone = Arc::new(RwLock::new(Zone::new(&config.cluster_domain, config.dns_service_ip)));
    let (nodes_sender, nodes) = watch::channel(Nodes::default());
    let (sender, receiver) = mpsc::channel(proxy::CHANGES_WAITING_MAX);
    let state = ProxyState::new(proxy_config(&config, None, None));
    let (policies, policy_receiver) = mpsc::channel(policy::CHANGES_WAITING_MAX);
    let policy_state = PolicyState::new(policy_config(&config, None));
    let (checks, checked) = watch::channel(health::Checks::new());
    let sink = |change: Change| {
        change.tell(&mut zone.write().unwrap_or_else(PoisonError::into_inner));
        let sender = sender.clone();
        async move { drop(sender.send(change).await) }
    };
    let own = Arc::new(ProxyHealth { applied: config.applied.clone(), eligible: AtomicBool::new(true) });
    let node_sink = |name: Option<String>, node: Option<Node>| {
        if let Some(node) = node.as_ref().filter(|_| name.as_deref() == Some(config.node_name.as_str())) {
            own.see(node);
        }
        nodes_sender.send_if_modified(|known| note(known, name, node.as_ref()));
        std::future::ready(())
    };
    let (upstreams, guards) = (SharedUpstreams::default(), Guards::default());
    let mut node = Local {
        config: &config,
        links,
        zone: zone.clone(),
        upstreams: upstreams.clone(),
        changes: sender.clone(),
        policies: policies.clone(),
        stop: stop.clone(),
        network: None,
    };
    tokio::select! {
        () = policy::follow(client.clone(), policies) => {}
        () = policy::run(policy_state, policy_receiver, config.guarded.clone(), guards.clone(), stop.clone()) => {}
        () = watches::services(client.clone(), sink) => {}
        () = watches::slices(client.clone(), sink) => {}
        () = watches::nodes(client.clone(), node_sink) => {}
        () = watches::upstreams(client.clone(), |servers| upstreams.set(servers)) => {}
        () = proxy::run(state, receiver, config.applied.clone(), checks, guards.clone(), stop.clone()) => {}
        () = health::run(config.node_ip, checked, stop.clone()) => {}
        () = proxy_health::run(own.clone(), config.proxy_health_port, config.proxy_status_port, stop.clone()) => {}
        () = node.follow(nodes) => {}
        () = stop.cancelled() => {}
    }
    if let Some(network) = node.network {
        network.dns_stop.cancel();
    }
    Ok(())
}

/// Removes what [`run`] leaves in the kernel and in the CNI directory. Pods must be gone before.
pub async fn cleanup(config: &NetworkConfig) -> anyhow::Result<()> {
    let table = &config.table;
    nft::apply(&format!("add table ip {table}\ndelete table ip {table}\n"))
        .await
        .context("cannot remove the service rules")?;
    nft::apply(&PolicyState::new(policy_config(config, None)).full())
        .await
        .context("cannot remove the policy rules")?;
    let links = Links::open(config.clone()).context("cannot open a netlink socket")?;
    links.cleanup().await.context("cannot remove links and routes")?;
    match std::fs::remove_file(config.cni_config_dir.join(cni::CONFIG_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove the CNI configuration")
        }
        _ => Ok(()),
    }
}

/// Notes one node; tells whether anything that matters changed.
fn note(known: &mut Nodes, name: Option<String>, node: Option<&Node>) -> bool {
    let Some(name) = name else { return !std::mem::replace(&mut known.synced, true) };
    match node.map(NodeView::from) {
        Some(view) => known.all.insert(name, view.clone()).as_ref() != Some(&view),
        None => known.all.remove(&name).is_some(),
    }
}

/// What exists for the node's pod CIDR.
struct Network {
    pod_cidr: Cidr,
    dns_stop: CancellationToken,
    proxy: ProxyConfig,
}

/// The node's own part: bridge, DNS listener, CNI configuration, routes.
struct Local<'a> {
    config: &'a NetworkConfig,
    links: Links,
    zone: SharedZone,
    upstreams: SharedUpstreams,
    changes: mpsc::Sender<Change>,
    policies: mpsc::Sender<PolicyChange>,
    stop: CancellationToken,
    network: Option<Network>,
}

impl Local<'_> {
    async fn follow(&mut self, mut nodes: watch::Receiver<Nodes>) {
        let mut first = true;
        loop {
            let seen = nodes.borrow_and_update().clone();
            let result = if seen.synced { self.apply(&seen, first).await } else { Ok(()) };
            let wait = match &result {
                Ok(()) => RESYNC_PERIOD,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "cannot set the pod network up, trying again");
                    RETRY
                }
            };
            first &= !seen.synced || result.is_err();
            tokio::select! {
                changed = nodes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => self.links.forget_applied(),
            }
        }
    }

    async fn apply(&mut self, nodes: &Nodes, first: bool) -> anyhow::Result<()> {
        let own = nodes.all.get(&self.config.node_name);
        let uplink = self.links.uplink().await?;
        let pod_cidr = own.and_then(|node| node.pod_cidr);
        if let Some(cidr) = pod_cidr
            && self.network.as_ref().is_none_or(|network| network.pod_cidr != cidr)
        {
            let mtu = if self.config.mtu == 0 { uplink.pod_mtu } else { self.config.mtu };
            self.start(cidr, mtu).await?;
        }
        if pod_cidr.is_none() && first {
            // Nobody has given this node a pod network yet, but its own processes use services already.
            let _ = self.changes.send(Change::Config(Box::new(proxy_config(self.config, None, None)))).await;
        }
        if let Some(network) = &mut self.network {
            let zone = own.and_then(|node| node.zone.clone());
            if network.proxy.node.zone != zone {
                network.proxy.node.zone = zone;
                let _ = self.changes.send(Change::Config(Box::new(network.proxy.clone()))).await;
            }
        }
        let on_link = if self.config.backend == Backend::Vxlan { vec![] } else { uplink.on_link };
        let place = Place { name: self.config.node_name.clone(), on_link };
        self.links.routes(&plan(&place, &nodes.all), pod_cidr, first).await?;
        Ok(())
    }

    /// Makes everything that depends on the pod CIDR; the CNI file comes last, since it declares the network ready.
    async fn start(&mut self, pod_cidr: Cidr, mtu: u32) -> anyhow::Result<()> {
        if let Some(old) = self.network.take() {
            old.dns_stop.cancel();
        }
        let gateway = self.links.bridge(pod_cidr, mtu).await?;
        let address = SocketAddr::from((gateway, self.config.dns_port));
        let listener = match Listener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                // Someone serves port 53 on every address. Pods do not care: their queries are redirected to any port.
                tracing::warn!(%address, "DNS port in use, taking another one");
                Listener::bind(SocketAddr::from((gateway, 0))).await
            }
            other => other,
        };
        let listener = listener.with_context(|| format!("cannot serve DNS on {address}"))?;
        let port = listener.address()?.port();
        let redirect = DnsRedirect {
            service_ip: self.config.dns_service_ip,
            port: 53,
            listener: SocketAddrV4::new(gateway, port),
        };
        let own = vec![gateway.into(), self.config.dns_service_ip.into()];
        let forwarder = Forwarder::new(self.config.resolv_conf.clone(), own, self.upstreams.clone());
        let dns_stop = self.stop.child_token();
        tokio::spawn(Server::new(self.zone.clone(), forwarder).run(listener, dns_stop.clone()));
        let proxy = proxy_config(self.config, Some(pod_cidr), Some(redirect));
        let _ = self.changes.send(Change::Config(Box::new(proxy.clone()))).await;
        let policy = policy_config(self.config, Some(redirect.listener));
        let _ = self.policies.send(PolicyChange::Config(policy)).await;
        let text = cni::conflist(self.config, pod_cidr, mtu);
        cni::write(&self.config.cni_config_dir, &text).context("cannot write the CNI configuration")?;
        self.network = Some(Network { pod_cidr, dns_stop, proxy });
        Ok(())
    }
}

fn proxy_config(config: &NetworkConfig, own: Option<Cidr>, dns: Option<DnsRedirect>) -> ProxyConfig {
    ProxyConfig {
        table: config.table.clone(),
        node: NodeIdentity { name: config.node_name.clone(), zone: None },
        node_ips: std::iter::once(config.node_ip).chain(config.node_port_ips.iter().copied()).collect(),
        pod_cidrs: vec![config.cluster_cidr],
        own_pod_cidrs: own.into_iter().collect(),
        service_cidrs: vec![config.service_cidr],
        dns,
    }
}

/// The policies' tables are beside the services' one: either is replaced without the other.
fn policy_config(config: &NetworkConfig, dns: Option<SocketAddrV4>) -> PolicyConfig {
    PolicyConfig {
        table: format!("{}_policy", config.table),
        node: config.node_name.clone(),
        bridge: config.bridge.clone(),
        dns,
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
