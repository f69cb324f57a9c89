//! `tug agent`: one more node, in the foreground.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use machine::namespaces;
use machine::processes::Process;
use pki::join::{self, Purpose};
use pki::tls::{ClientAuthority, ServingCertificate};
use pki::{JoinToken, Kubeconfig};
use tokio_util::sync::CancellationToken;

use crate::cluster::{NodePaths, PROXY_PORTS};
use crate::node::{self, Facts, NodeSpec};
use crate::{footprint, logging, notify};

const DEFAULT_DIR: &str = "/var/lib/tug-agent";
const KUBELET_PORT: u16 = 10250;

#[derive(clap::Args)]
pub struct Options {
    /// The cluster's API server: https://ADDRESS:PORT.
    #[arg(long)]
    server: String,
    /// A token from `tug token create`; needed only the first time.
    #[arg(long, env = "TUG_TOKEN", hide_env_values = true)]
    token: Option<JoinToken>,
    /// Name of the node (default: the machine's hostname).
    #[arg(long)]
    node_name: Option<String>,
    /// Address under which the cluster reaches this machine (default: that of its default route).
    #[arg(long)]
    node_ip: Option<Ipv4Addr>,
    /// Where the node keeps its data.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    data_dir: PathBuf,
    /// Port of the kubelet's server.
    #[arg(long, default_value_t = KUBELET_PORT)]
    kubelet_port: u16,
    /// Run in this network namespace: a file such as /run/netns/NAME.
    #[arg(long, value_name = "FILE")]
    network_namespace: Option<PathBuf>,
    /// Log lines as JSON.
    #[arg(long)]
    log_json: bool,
}

pub fn run(options: Options) -> Result<()> {
    super::need_root("agent")?;
    machine::programs::check()?;
    logging::start(options.log_json);
    let dir =
        std::path::absolute(&options.data_dir).with_context(|| format!("{} is no path", options.data_dir.display()))?;
    std::fs::create_dir_all(&dir)
        .with_context(|| format!("cannot create {}; choose another place with --data-dir", dir.display()))?;
    let paths = NodePaths::new(&dir);
    // Before any thread exists: namespaces are entered by the whole process.
    if let Some(namespace) = &options.network_namespace {
        namespaces::enter_network(namespace)?;
    }
    // Before anything is mounted that a refusal would leave behind.
    let name = match &options.node_name {
        Some(name) => name.clone(),
        None => hostname()?,
    };
    let address = options
        .node_ip
        .or_else(machine::fabric::primary_address)
        .context("this machine has no default route; name its address with --node-ip")?;
    namespaces::own_hostname(&name)?;
    if options.network_namespace.is_some() || !namespaces::root_is_shared() {
        namespaces::enter_mounts(&paths.mounts(), options.network_namespace.is_some())?;
    }
    if let Some(me) = Process::of(i32::try_from(std::process::id())?) {
        me.write(&dir.join("agent.pid"))?;
    }
    node::runtime()?.block_on(serve(options, paths, name, address))
}

fn hostname() -> Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the hostname")?;
    let name = name.into_string().ok().map(|name| name.to_lowercase()).filter(|name| !name.is_empty());
    name.context("this machine has no usable hostname; choose a name with --node-name")
}

async fn serve(options: Options, paths: NodePaths, name: String, address: Ipv4Addr) -> Result<()> {
    let stop = node::stop_on_signal()?;
    let preparing = tokio::spawn(node::prepare(paths.clone()));
    let file = paths.dir.join("node.kubeconfig");
    let kubeconfig = join::load_or_join(&file, &options.server, options.token.as_ref(), &name, &stop).await?;
    let client = join::client(&kubeconfig).await?;
    let facts = Facts::read(&client, &stop).await?;
    let spec = NodeSpec {
        name: name.clone(),
        address,
        paths,
        kubelet_port: options.kubelet_port,
        proxy_ports: PROXY_PORTS,
        facts,
    };
    let identity = identity(&spec, &kubeconfig, &client)?;
    preparing.await.context("preparing the node panicked")??;
    renew(file, kubeconfig, name, stop.clone());
    notify::ready();
    footprint::trim_after_start();
    tracing::info!(node = spec.name, %address, "joined");
    node::run(spec, client, identity, stop).await
}

fn identity(spec: &NodeSpec, kubeconfig: &Kubeconfig, client: &kube::Client) -> Result<node::Identity> {
    let clients = ClientAuthority::new(&kubeconfig.ca_pem)?;
    let pki::kubeconfig::UserAuth::Certificate(own) = &kubeconfig.auth else {
        anyhow::bail!("the node's kubeconfig has no certificate")
    };
    let peers = pki::tls::client_config(&kubeconfig.ca_pem, Some(own))?;
    let (client, name, address, believed) = (client.clone(), spec.name.clone(), spec.address, clients.clone());
    let serving = move || -> BoxFuture<'static, Result<rustls::ServerConfig>> {
        let (client, name, believed) = (client.clone(), name.clone(), believed.clone());
        Box::pin(async move {
            let purpose = Purpose::Serving { dns_names: vec![name.clone()], ips: vec![IpAddr::V4(address)] };
            let credential = join::request_certificate(&client, &name, &purpose).await?;
            Ok(pki::tls::server_config(ServingCertificate::new(&credential)?, &believed)?)
        })
    };
    Ok(node::Identity { serving: Arc::new(serving), peers, clients })
}

/// A renewed identity takes effect by starting anew in place: nothing a node runs depends on this process.
fn renew(file: PathBuf, kubeconfig: Kubeconfig, name: String, stop: CancellationToken) {
    tokio::spawn(async move {
        let restart = |_: &Kubeconfig| {
            let mut arguments = std::env::args_os();
            let program = std::env::current_exe().ok().or_else(|| arguments.next().map(Into::into));
            if let Some(program) = program {
                let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).exec();
                tracing::error!(%error, "cannot start anew with the renewed certificate");
            }
        };
        join::keep_renewed(&file, kubeconfig, &name, stop, restart).await;
    });
}
