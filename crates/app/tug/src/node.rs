//! One node: its containerd, network and kubelet, wired from what identifies it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use access::User;
use anyhow::{Context, Result};
use client::{ApiErrorExt, Backoff};
use futures::future::BoxFuture;
use ingress::{IngressConfig, Serving as IngressServing};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use kubelet::containerd::ContainerdConfig;
use kubelet::server::{Caller, NodeView};
use kubelet::withdrawal::{Rules, Withdrawal};
use kubelet::{KubeletConfig, LocalView, RuntimeSource};
use machine::programs;
use network::{Applied, Guarded, NetworkConfig};
use pki::Kubeconfig;
use pki::cluster::ClusterPki;
use pki::tls::ClientAuthority;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, NodePaths};
use crate::verbs::image::IMAGE_NAMESPACE;

pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Where agents read what is the same for the whole cluster.
const FACTS_NAMESPACE: &str = "kube-system";
const FACTS_NAME: &str = "tug-cluster";
const FACTS_RETRY_MIN: Duration = Duration::from_millis(100);
const FACTS_RETRY_MAX: Duration = Duration::from_secs(10);
const DNS_PORT: u16 = 53;
const VXLAN_ID: u32 = 7000;
const VXLAN_PORT: u16 = 4789;
/// Threads of a node or server: work is short, and waiting needs none.
const WORKER_THREADS: usize = 2;
/// A component that ended by itself is started again after this.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// The network takes the uplink's, less what VXLAN adds.
const MTU_AUTOMATIC: u32 = 0;

/// What every node of a cluster must know and agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    pub pod_cidr: String,
    pub service_cidr: String,
    pub dns_address: Ipv4Addr,
    pub vxlan_id: u32,
    pub vxlan_port: u16,
}

impl Facts {
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            pod_cidr: cluster.pod_cidr(),
            service_cidr: cluster.service_cidr(),
            dns_address: cluster.dns_address(),
            vxlan_id: VXLAN_ID + u32::from(cluster.slot),
            vxlan_port: VXLAN_PORT + u16::from(cluster.slot),
        }
    }

    /// Reads them from the cluster, as soon as it answers: a machine may be back before its network or its control plane.
    ///
    /// # Errors
    /// The server refuses for good, the ConfigMap lacks something, or `stop` came first.
    pub async fn read(client: &Client, stop: &CancellationToken) -> Result<Self> {
        let map = stop.run_until_cancelled(Self::published(client)).await.context("stopped before it joined")??;
        let text =
            map.data.as_ref().and_then(|data| data.get("facts.json")).context("the cluster's facts are missing")?;
        serde_json::from_str(text).context("the cluster's facts are damaged")
    }

    async fn published(client: &Client) -> Result<ConfigMap> {
        let api = Api::<ConfigMap>::namespaced(client.clone(), FACTS_NAMESPACE);
        let mut backoff = Backoff::new(FACTS_RETRY_MIN, FACTS_RETRY_MAX);
        loop {
            match api.get(FACTS_NAME).await {
                Ok(map) => return Ok(map),
                Err(error) if error.is_retryable() || error.is_not_found() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot read ConfigMap {FACTS_NAMESPACE}/{FACTS_NAME}; trying again");
                }
                Err(error) => {
                    return Err(error).context(format!("cannot read ConfigMap {FACTS_NAMESPACE}/{FACTS_NAME}"));
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

/// The ConfigMap with the facts, and the right of nodes to read it.
pub fn bootstrap_objects(cluster: &Cluster) -> Vec<Value> {
    let facts = serde_json::to_string(&Facts::of(cluster)).unwrap_or_default();
    let meta = |name: &str| json!({"name": name, "namespace": FACTS_NAMESPACE});
    let api = "rbac.authorization.k8s.io";
    vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(FACTS_NAME), "data": {"facts.json": facts}}),
        json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": meta(FACTS_NAME),
               "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [FACTS_NAME], "verbs": ["get"]}]}),
        json!({"apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": meta(FACTS_NAME),
               "roleRef": {"apiGroup": api, "kind": "Role", "name": FACTS_NAME},
               "subjects": [{"apiGroup": api, "kind": "Group", "name": "system:nodes"}]}),
    ]
}

/// A node to run.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub name: String,
    pub address: Ipv4Addr,
    pub paths: NodePaths,
    pub kubelet_port: u16,
    /// Of the service proxy: health and status.
    pub proxy_ports: (u16, u16),
    pub facts: Facts,
}

impl NodeSpec {
    /// The machine that also runs the control plane.
    pub fn first(cluster: &Cluster, paths: NodePaths, address: Ipv4Addr) -> Self {
        Self {
            name: cluster.node(1).name,
            address,
            paths,
            kubelet_port: cluster.kubelet_port(),
            proxy_ports: cluster.proxy_ports(),
            facts: Facts::of(cluster),
        }
    }

    fn network(&self, rules: &LocalRules) -> Result<NetworkConfig> {
        Ok(NetworkConfig {
            node_name: self.name.clone(),
            node_ip: self.address,
            node_port_ips: Vec::new(),
            cluster_cidr: cidr(&self.facts.pod_cidr)?,
            service_cidr: cidr(&self.facts.service_cidr)?,
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            dns_service_ip: self.facts.dns_address,
            dns_port: DNS_PORT,
            resolv_conf: "/etc/resolv.conf".into(),
            proxy_health_port: self.proxy_ports.0,
            proxy_status_port: self.proxy_ports.1,
            table: self.paths.table(),
            bridge: self.paths.bridge(),
            vxlan_device: self.paths.vxlan(),
            vxlan_id: self.facts.vxlan_id,
            vxlan_port: self.facts.vxlan_port,
            backend: network::Backend::Auto,
            mtu: MTU_AUTOMATIC,
            cni_config_dir: self.paths.cni_conf(),
            cni_data_dir: self.paths.cni_data(),
            applied: rules.applied.clone(),
            guarded: rules.guarded.clone(),
        })
    }

    fn ingress(&self, serving: IngressServing) -> IngressConfig {
        IngressConfig {
            node_name: self.name.clone(),
            addresses: vec![IpAddr::V4(self.address)],
            access_log: self.paths.dir.join("ingress").join("access.log"),
            serving,
            metrics: Arc::default(),
        }
    }

    fn kubelet(&self) -> Result<KubeletConfig> {
        let runtime = RuntimeSource::Private(containerd(&self.paths)?);
        let mut config = KubeletConfig::new(&self.name, IpAddr::V4(self.address), self.paths.kubelet_dir(), runtime);
        config.cgroup_parent = self.paths.cgroup();
        config.cluster_dns = vec![IpAddr::V4(self.facts.dns_address)];
        config.cluster_domain = CLUSTER_DOMAIN.to_owned();
        config.port = self.kubelet_port;
        config.manifests_dir = Some(self.paths.dir.join("manifests"));
        Ok(config)
    }
}

fn cidr(text: &str) -> Result<(Ipv4Addr, u8)> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
    parsed.with_context(|| format!("{text:?} is no IPv4 network"))
}

/// The node's own containerd.
///
/// # Errors
/// The CNI plugins are not installed.
pub fn containerd(paths: &NodePaths) -> Result<ContainerdConfig> {
    let mut config = ContainerdConfig::new(paths.containerd_dir());
    config.cni_bin_dir = programs::cni_dir()?;
    config.cni_conf_dir = paths.cni_conf();
    config.sandbox_image = images::PAUSE.to_owned();
    Ok(config)
}

/// Starts (or adopts) the node's containerd and brings the built-in images into it.
///
/// # Errors
/// containerd did not start, or refused the images.
pub async fn prepare(paths: NodePaths) -> Result<()> {
    for dir in [paths.cni_conf(), paths.cni_data(), paths.kubelet_dir(), paths.dir.join("manifests")] {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    containerd(&paths)?.ensure().await?;
    tokio::task::spawn_blocking(move || import_builtin(&paths)).await.context("importing images panicked")?
}

fn import_builtin(paths: &NodePaths) -> Result<()> {
    let socket = paths.containerd_socket().display().to_string();
    let listed = programs::run("ctr", &["-a", &socket, "-n", IMAGE_NAMESPACE, "images", "ls", "-q"])?;
    if [images::PAUSE, images::DEMO].iter().all(|name| listed.lines().any(|line| line == *name)) {
        return Ok(());
    }
    let archive = tempfile::NamedTempFile::new_in(&paths.dir).context("cannot write the built-in images")?;
    std::fs::write(archive.path(), images::builtin()?).context("cannot write the built-in images")?;
    let file = archive.path().display().to_string();
    programs::run("ctr", &["-a", &socket, "-n", IMAGE_NAMESPACE, "images", "import", &file])
        .context("cannot import the built-in images")?;
    Ok(())
}

/// Where the certificate of the kubelet's server comes from.
pub type Serving = Arc<dyn Fn() -> BoxFuture<'static, Result<rustls::ServerConfig>> + Send + Sync>;

/// What a node proves itself with.
pub struct Identity {
    /// The certificate of the kubelet's server, which a node asks for once it is registered.
    pub serving: Serving,
    /// Whose client certificates the kubelet believes.
    pub clients: ClientAuthority,
    /// How it calls other kubelets.
    pub peers: rustls::ClientConfig,
}

/// The user that a node is.
pub fn user(node: &str) -> User {
    let groups = ["system:nodes", "system:authenticated"].map(str::to_owned).to_vec();
    User { name: format!("system:node:{node}"), groups, ..User::default() }
}

/// Runs network and kubelet until `stop`. Each is started again should it end: the node must outlive any one error.
///
/// # Errors
/// The configuration is unusable, or the container runtime does not start.
pub async fn run(spec: NodeSpec, client: Client, identity: Identity, stop: CancellationToken) -> Result<()> {
    let rules = LocalRules::default();
    let ingress = spec.ingress(rules.routes.clone());
    let (network, kubelet) = (spec.network(&rules)?, spec.kubelet()?);
    let node = kubelet::prepare(kubelet, client.clone(), stop.clone()).await?;
    let Identity { serving, clients, peers } = identity;
    let withdrawal = Withdrawal::new(&spec.name, client.clone(), Arc::new(rules), peers, stop.clone());
    let _ = node.withdrawal.set(withdrawal);
    let metrics = ingress.metrics.clone();
    let _ = node.more_metrics.set(Box::new(move || metrics.render()));
    let address = SocketAddr::from((spec.address, spec.kubelet_port));
    let view: Arc<dyn NodeView> = Arc::new(LocalView::new(node.clone()));
    let network = keep("network", &stop, {
        let (client, stop) = (client.clone(), stop.clone());
        move || network::run(network.clone(), client.clone(), stop.clone())
    });
    let ingress = keep("ingress", &stop, {
        let stop = stop.clone();
        move || ingress::run(ingress.clone(), client.clone(), stop.clone())
    });
    let server = keep("kubelet server", &stop, {
        let (stop, identify) = (stop.clone(), identify(clients));
        move || {
            let (serving, identify, view, stop) = (serving.clone(), identify.clone(), view.clone(), stop.clone());
            async move {
                let tls = serving().await.context("the kubelet's certificate")?;
                kubelet::server::run(address, Arc::new(tls), identify, view, stop).await
            }
        }
    });
    let pods = keep("kubelet", &stop, {
        let stop = stop.clone();
        move || {
            let run = kubelet::run_prepared(node.clone(), stop.clone());
            async move {
                run.await;
                Ok(())
            }
        }
    });
    futures::join!(network, ingress, server, pods);
    Ok(())
}

/// What leads to pods from this node, as the kubelet waits for it: service rules, policies, and routes of the ingress.
#[derive(Default)]
struct LocalRules {
    applied: Applied,
    guarded: Guarded,
    routes: IngressServing,
}

#[async_trait::async_trait]
impl Rules for LocalRules {
    async fn withdrawn(&self, addresses: &[IpAddr], at_most: Duration) -> bool {
        // Both at the same time: whoever is slower decides.
        let (rules, routes) =
            futures::join!(self.applied.withdrawn(addresses, at_most), self.routes.withdrawn(addresses, at_most));
        rules && routes
    }

    fn lead_to(&self, addresses: &[IpAddr]) -> bool {
        addresses.iter().any(|address| self.applied.served_lately(*address)) || self.routes.serves(addresses)
    }

    async fn guarded(&self, namespace: &str, name: &str, addresses: &[IpAddr], at_most: Duration) -> bool {
        self.guarded.wait(namespace, name, addresses, at_most).await
    }
}

/// Who a client certificate belongs to, where the cluster's authority signed it and it is in force.
fn identify(clients: ClientAuthority) -> kubelet::server::Identify {
    Arc::new(move |chain| {
        let view = clients.verify(chain, jiff::Timestamp::now().as_second()).ok()?;
        Some(Caller { name: view.common_name, groups: view.organizations })
    })
}

/// Keeps a component running.
async fn keep<F>(name: &'static str, stop: &CancellationToken, start: impl Fn() -> F)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    while !stop.is_cancelled() {
        match tokio::spawn(start()).await {
            Ok(Ok(())) if stop.is_cancelled() => return,
            Ok(Ok(())) => tracing::warn!(name, "ended by itself; starting it again"),
            Ok(Err(error)) => tracing::error!(name, error = format!("{error:#}"), "failed; starting it again"),
            Err(error) => tracing::error!(name, %error, "panicked; starting it again"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(RESTART_PAUSE) => {}
        }
    }
}

/// Cancelled by SIGTERM or SIGINT.
///
/// # Errors
/// Signals cannot be listened to.
pub fn stop_on_signal() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKER_THREADS).enable_all().build().context("cannot start the runtime")
}

/// Writes the administrator's kubeconfig into the cluster's directory.
///
/// # Errors
/// The certificate cannot be made or the file not written.
pub fn write_admin_kubeconfig(cluster: &Cluster, pki: &ClusterPki, now: i64) -> Result<()> {
    let server = format!("https://127.0.0.1:{}", cluster.port);
    let config = Kubeconfig::with_certificate(&cluster.context(), &server, pki.ca.certificate_pem(), &pki.admin(now)?);
    config.write(&cluster.admin_kubeconfig()).context("the administrator's kubeconfig")
}

/// Removes what the first node put into the machine's own network namespace.
pub fn remove_network(cluster: &Cluster, paths: &NodePaths) {
    let spec = NodeSpec::first(cluster, paths.clone(), Ipv4Addr::LOCALHOST);
    if let Ok(config) = spec.network(&LocalRules::default()) {
        let _ = crate::verbs::block_on(async { network::cleanup(&config).await });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    /// A client whose n-th call gets the n-th of these answers, and the last one from then on; none is a lost connection.
    fn answering(answers: Vec<Option<(u16, Value)>>) -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            let at = count.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
            let answer = answers[at].clone();
            async move {
                let (code, body) = answer.ok_or("no route to host")?;
                let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(response)
            }
        });
        (Client::new(service, "default"), asked)
    }

    fn refusal(code: u16, reason: &str) -> Option<(u16, Value)> {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
            "reason": reason, "code": code});
        Some((code, status))
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_waits_for_a_control_plane_that_does_not_answer_yet() {
        let facts = json!({"podCidr": "10.0.0.0/16", "serviceCidr": "10.1.0.0/16", "dnsAddress": "10.1.0.10",
            "vxlanId": 7000, "vxlanPort": 4789});
        let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": FACTS_NAME},
            "data": {"facts.json": facts.to_string()}});
        let late = [None, refusal(503, "ServiceUnavailable"), refusal(404, "NotFound"), Some((200, map))];
        let (client, asked) = answering(late.to_vec());
        let read = Facts::read(&client, &CancellationToken::new()).await.unwrap();
        assert_eq!((read.vxlan_port, asked.load(Ordering::Relaxed)), (4789, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_refused_or_stopped_does_not_wait() {
        let (client, asked) = answering(vec![refusal(403, "Forbidden")]);
        assert!(Facts::read(&client, &CancellationToken::new()).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1);

        let (client, _) = answering(vec![None]);
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(Facts::read(&client, &stop).await.is_err());
    }
}
