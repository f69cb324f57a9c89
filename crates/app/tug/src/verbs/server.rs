//! `tug server`: the control plane, and by default this machine's node, in the foreground.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use access::admission::service::Ranges;
use anyhow::{Context, Result, bail};
use apiserver::ApiServer;
use apiserver::auth::{Keys, Security};
use apiserver::kubelets::{Kubelets, NodeMetrics, PodMetrics};
use machine::processes::Process;
use pki::cluster::{ClusterPki, Names};
use pki::tls::{ClientAuthority, ServingCertificate};
use store::{Embedded, Etcd, EtcdConfig, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, DEFAULT_NAME, NodePaths};
use crate::node::{self, CLUSTER_DOMAIN, NodeSpec};
use crate::{control_plane, footprint, logging, notify};

/// The ports that Services of type NodePort are given.
const NODE_PORTS: (u16, u16) = (30000, 32767);

#[derive(clap::Args)]
pub struct Options {
    /// Name of the cluster.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Where the cluster keeps its data (default: /var/lib/tug/NAME).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Port of the API server.
    #[arg(long)]
    port: Option<u16>,
    /// `embedded`, or `etcd=URL,URL`.
    #[arg(long)]
    datastore: Option<String>,
    /// Address under which other machines and pods reach this one.
    #[arg(long)]
    node_ip: Option<Ipv4Addr>,
    /// Run no pods on this machine.
    #[arg(long)]
    no_node: bool,
    /// Log lines as JSON.
    #[arg(long)]
    log_json: bool,
}

pub fn run(options: Options) -> Result<()> {
    super::need_root("server")?;
    logging::start(options.log_json);
    let dir = options.data_dir.clone().unwrap_or_else(|| Cluster::default_dir(&options.name));
    let dir = std::path::absolute(&dir).with_context(|| format!("{} is no path", dir.display()))?;
    let mut cluster = Cluster::read_or_new(&options.name, &dir, options.port)?;
    cluster.nodes = cluster.nodes.max(1);
    if let Some(datastore) = &options.datastore {
        cluster.datastore.clone_from(datastore);
    }
    cluster.write()?;
    if let Some(running) = Process::read(&cluster.pid_file()) {
        bail!(
            "cluster {:?} is served by process {}; stop it with: tug down --name {}",
            cluster.name,
            running.pid,
            cluster.name
        );
    }
    let paths = NodePaths::new(&cluster.node(1).dir);
    if !options.no_node {
        machine::programs::check()?;
        // Before any thread exists: a namespace is entered by the whole process.
        machine::namespaces::own_hostname(&cluster.node(1).name)?;
        if !machine::namespaces::root_is_shared() {
            machine::namespaces::enter_mounts(&paths.mounts(), false)?;
        }
    }
    if let Some(me) = Process::of(i32::try_from(std::process::id())?) {
        me.write(&cluster.pid_file())?;
    }
    let address = own_address(&cluster, options.node_ip)?;
    node::runtime()?.block_on(serve(cluster, paths, address, !options.no_node))
}

/// The address of the first node: as told, or that of the machine, or of the fabric where nodes are namespaces of it.
fn own_address(cluster: &Cluster, told: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    if let Some(address) = told {
        return Ok(address);
    }
    let fabric = cluster.fabric();
    match machine::fabric::primary_address().filter(|_| cluster.nodes == 1) {
        Some(address) => Ok(address),
        None => {
            fabric.ensure()?;
            Ok(fabric.gateway)
        }
    }
}

async fn serve(cluster: Cluster, paths: NodePaths, address: Ipv4Addr, with_node: bool) -> Result<()> {
    let stop = node::stop_on_signal()?;
    let listener = listen(cluster.port).await?;
    // containerd starts while the API does.
    let preparing = with_node.then(|| tokio::spawn(node::prepare(paths.clone())));
    let now = jiff::Timestamp::now().as_second();
    let pki = ClusterPki::load_or_create(&cluster.dir.join("pki"), &names(&cluster, address), now);
    let pki = Arc::new(pki.context("the cluster's keys")?);
    notify::status("open the store");
    let store = open_store(&cluster).await?;
    notify::status("start the API");
    let server = start_api(&cluster, &pki, address, store, &stop).await?;
    node::write_admin_kubeconfig(&cluster, &pki, now)?;
    let clients = ClientAuthority::new(pki.ca.certificate_pem())?;
    let tls = Arc::new(pki::tls::server_config(ServingCertificate::new(&pki.serving)?, &clients)?);
    let api = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener, tls).await }
    });
    control_plane::start(&cluster, &pki, address, &server, &stop)?;
    notify::ready();
    footprint::trim_after_start();
    tracing::info!(port = cluster.port, %address, "the API is served");
    if let Some(preparing) = preparing {
        preparing.await.context("preparing the node panicked")??;
        let spec = NodeSpec::first(&cluster, paths, address);
        let request = pki::CertificateRequest::kubelet_serving(&spec.name, vec![IpAddr::V4(address)]);
        let (keys, believed) = (pki.clone(), clients.clone());
        let serving: node::Serving = Arc::new(move || {
            let issued = keys.ca.issue(&request, jiff::Timestamp::now().as_second());
            let tls = issued.and_then(|c| pki::tls::server_config(ServingCertificate::new(&c)?, &believed));
            Box::pin(async move { Ok(tls?) })
        });
        let user = node::user(&spec.name);
        let peers = pki::tls::client_config(
            pki.ca.certificate_pem(),
            Some(&pki.ca.issue(&pki::CertificateRequest::kubelet(&spec.name), now)?),
        )?;
        let identity = node::Identity { serving, clients, peers };
        node::run(spec, server.client_as(user), identity, stop.clone()).await?;
    }
    stop.cancelled().await;
    api.await.context("serving ended badly")??;
    Ok(())
}

async fn listen(port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let tell = || format!("port {port} cannot be used; stop what uses it, or choose another with --port");
    TcpListener::bind(address).await.with_context(tell)
}

fn names(cluster: &Cluster, address: Ipv4Addr) -> Names {
    let mut ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(address), IpAddr::V4(cluster.fabric().gateway)];
    ips.extend(machine::fabric::primary_address().map(IpAddr::V4));
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let dns_names = host.into_iter().chain(["localhost".to_owned()]).collect();
    Names {
        service_ip: IpAddr::V4(cluster.kubernetes_address()),
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        ips,
        dns_names,
    }
}

async fn open_store(cluster: &Cluster) -> Result<Arc<dyn Store>> {
    match cluster.datastore.split_once('=') {
        None if cluster.datastore == "embedded" => {
            let dir = cluster.dir.join("store");
            let store = Embedded::open(&dir, store::embedded::Options::default());
            Ok(Arc::new(store.with_context(|| format!("cannot open the store in {}", dir.display()))?))
        }
        Some(("etcd", urls)) => {
            let endpoints: Vec<String> = urls.split(',').map(str::to_owned).collect();
            let store = Etcd::connect(EtcdConfig { endpoints, prefix: format!("/tug/{}/", cluster.name) }).await;
            Ok(Arc::new(store.with_context(|| format!("cannot use etcd at {urls}"))?))
        }
        _ => bail!("--datastore {:?}: use `embedded`, or `etcd=URL,URL`", cluster.datastore),
    }
}

/// How API servers behind this one learn whom to believe about users.
fn extension_authentication(pki: &ClusterPki) -> serde_json::Value {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
    "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
    "data": {
        "client-ca-file": pki.ca.certificate_pem(),
        "requestheader-allowed-names": r#"["front-proxy-client"]"#,
        "requestheader-client-ca-file": pki.front_proxy_ca.certificate_pem(),
        "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
        "requestheader-group-headers": r#"["X-Remote-Group"]"#,
        "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
        "requestheader-username-headers": r#"["X-Remote-User"]"#,
    }})
}

async fn start_api(
    cluster: &Cluster,
    pki: &ClusterPki,
    address: Ipv4Addr,
    store: Arc<dyn Store>,
    stop: &CancellationToken,
) -> Result<ApiServer> {
    let security = Security::new(Keys {
        client_ca_pem: pki.ca.certificate_pem().to_owned(),
        tokens: pki.tokens.clone(),
        public_url: format!("https://{address}:{}", cluster.port),
    })?;
    let mut config = security.config();
    config.advertise = Some(SocketAddr::from((address, cluster.port)));
    config.service_ip = Some(IpAddr::V4(cluster.kubernetes_address()));
    let kubelet_tls = pki::tls::client_config(pki.ca.certificate_pem(), Some(&pki.kubelet_client))?;
    let kubelets = Arc::new(Kubelets::new(kubelet_tls)?);
    config.computed = vec![Arc::new(NodeMetrics(kubelets.clone())), Arc::new(PodMetrics(kubelets.clone()))];
    config.connector = Some(kubelets);
    config.front_proxy = Some(pki.front_proxy_client.clone());
    config.bootstrap.push(extension_authentication(pki));
    config.bootstrap.extend(node::bootstrap_objects(cluster));
    config.bootstrap.extend(control_plane::bootstrap_objects());
    config.bootstrap.extend(ingress::definitions());
    config.bootstrap.push(serde_json::json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": [cluster.service_cidr()]}}));
    let ranges = Ranges { addresses: vec![cluster.service_cidr().parse()?], node_ports: NODE_PORTS };
    // What fills in comes before what judges.
    config.admission.splice(0..0, apiserver::admission::builtin(ranges));
    config.admission.push(Arc::new(apiserver::admission::quota::ResourceQuota::default()));
    let server = ApiServer::start(config, store, stop.clone()).await?;
    security.attach(server.engine()).await.map_err(|status| anyhow::anyhow!("default roles: {status}"))?;
    Ok(server)
}
