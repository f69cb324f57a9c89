//! `tug up`: makes or starts a cluster in the background and waits until every node is Ready.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client};
use machine::processes::Process;

use crate::cluster::{Cluster, DEFAULT_NAME, LOCAL_NODES_MAX, LocalNode};
use crate::connect;
use crate::notify::Listener;
use crate::progress::Progress;
use crate::verbs::token;

const SERVER_WITHIN: Duration = Duration::from_secs(180);
const AGENT_WITHIN: Duration = Duration::from_secs(180);
const NODES_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);
const JOIN_TOKEN_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);
/// Lines of a log that are shown when a process ended.
const LOG_TAIL: usize = 12;

#[derive(clap::Args)]
pub struct Options {
    /// Nodes on this machine; those beyond the first live in network namespaces. Default: as before, or 1.
    #[arg(long)]
    nodes: Option<u16>,
    /// Name of the cluster.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Where the cluster keeps its data (default: /var/lib/tug/NAME).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Port of the API server (default: 6443, and the next free ones for further clusters).
    #[arg(long)]
    port: Option<u16>,
    /// Where state is kept: `embedded`, or `etcd=URL,URL`. Chosen when the cluster is made.
    #[arg(long)]
    datastore: Option<String>,
}

pub fn run(options: Options) -> Result<()> {
    super::need_root("up")?;
    machine::programs::check()?;
    let mut progress = Progress::new();
    let cluster = prepare(&options)?;
    progress.step("start the control plane");
    let server = start_server(&cluster, &progress)?;
    progress.step("join nodes");
    super::block_on(async {
        let client = connect::client(&cluster.admin_kubeconfig()).await?;
        let agents = start_agents(&cluster, &client).await?;
        progress.step("wait for nodes to be Ready");
        wait_ready(&cluster, &client, &progress).await.with_context(|| hint(&cluster, server, agents))
    })?;
    let context = add_context(&cluster)?;
    let took = progress.finish();
    report(&cluster, context.as_deref(), took);
    Ok(())
}

/// Decides what the cluster is to be, once; later calls may only add nodes.
fn prepare(options: &Options) -> Result<Cluster> {
    let dir = options.data_dir.clone().unwrap_or_else(|| Cluster::default_dir(&options.name));
    let dir = std::path::absolute(&dir).with_context(|| format!("{} is no path", dir.display()))?;
    let mut cluster = Cluster::read_or_new(&options.name, &dir, options.port)?;
    let nodes = options.nodes.unwrap_or(cluster.nodes.max(1));
    if nodes == 0 || nodes > LOCAL_NODES_MAX {
        bail!("--nodes {nodes}: a machine carries 1 to {LOCAL_NODES_MAX} nodes");
    }
    if nodes < cluster.nodes {
        bail!(
            "cluster {:?} has {} nodes; drain and delete nodes with kubectl, or start over: tug down --delete",
            cluster.name,
            cluster.nodes
        );
    }
    if let Some(datastore) = &options.datastore {
        if cluster.nodes > 0 && *datastore != cluster.datastore {
            bail!(
                "cluster {:?} keeps its state in {}; delete it to choose another: tug down --delete",
                cluster.name,
                cluster.datastore
            );
        }
        cluster.datastore.clone_from(datastore);
    }
    let fresh = cluster.nodes == 0;
    if fresh && let Err(error) = std::net::TcpListener::bind(("0.0.0.0", cluster.port)) {
        crate::cluster::release_slot(cluster.slot);
        bail!("port {} cannot be used ({error}); choose another with --port", cluster.port);
    }
    cluster.nodes = nodes;
    if let Err(error) = cluster.write() {
        if fresh {
            crate::cluster::release_slot(cluster.slot);
        }
        return Err(error);
    }
    Ok(cluster)
}

/// Starts the control plane where it does not run; answers whether it was started now.
fn start_server(cluster: &Cluster, progress: &Progress) -> Result<bool> {
    if Process::read(&cluster.pid_file()).is_some() {
        return Ok(false);
    }
    let mut command = tug()?;
    command.args(["server", "--name", &cluster.name, "--data-dir"]).arg(&cluster.dir);
    let socket = cluster.dir.join("notify.sock");
    start(command, &cluster.log(), &socket, SERVER_WITHIN, |text| progress.detail(text))
        .context("the control plane did not start")?;
    Ok(true)
}

/// Starts the agents of further local nodes that do not run; answers how many.
async fn start_agents(cluster: &Cluster, client: &Client) -> Result<usize> {
    let missing: Vec<LocalNode> =
        cluster.local_nodes().skip(1).filter(|node| Process::read(&node.pid_file()).is_none()).collect();
    if missing.is_empty() {
        return Ok(0);
    }
    let fabric = cluster.fabric();
    let expires = jiff::Timestamp::now().checked_add(JOIN_TOKEN_LIFE).context("the clock is off")?;
    let token = token::create(client, "local nodes of tug up", Some(expires)).await?.to_string();
    std::thread::scope(|scope| {
        let starts: Vec<_> = missing
            .iter()
            .map(|node| {
                let (fabric, token) = (&fabric, &token);
                scope.spawn(move || {
                    start_agent(cluster, node, fabric, token).with_context(|| format!("{} did not start", node.name))
                })
            })
            .collect();
        starts.into_iter().try_for_each(|start| start.join().unwrap_or_else(|_| bail!("starting a node panicked")))
    })?;
    Ok(missing.len())
}

fn start_agent(cluster: &Cluster, node: &LocalNode, fabric: &machine::fabric::Fabric, token: &str) -> Result<()> {
    let place = node.place().context("the first node has no agent of its own")?;
    std::fs::create_dir_all(&node.dir).with_context(|| format!("cannot create {}", node.dir.display()))?;
    fabric.place(&place)?;
    let server = format!("https://{}:{}", fabric.gateway, cluster.port);
    let mut command = tug()?;
    command
        .args(["agent", "--server", &server, "--node-name", &node.name, "--node-ip", &place.address.to_string()])
        .arg("--data-dir")
        .arg(&node.dir)
        .arg("--network-namespace")
        .arg(place.path())
        // By environment: a command line is readable by everyone on the machine.
        .env("TUG_TOKEN", token);
    start(command, &node.log(), &node.dir.join("notify.sock"), AGENT_WITHIN, |_| {})
}

fn tug() -> Result<Command> {
    Ok(Command::new(std::env::current_exe().context("cannot find this program")?))
}

/// Starts a process in a session of its own and waits until it says that it is ready.
fn start(mut command: Command, log: &Path, socket: &Path, within: Duration, tell: impl FnMut(&str)) -> Result<()> {
    let listener = Listener::new(socket)?;
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let begin = output.metadata().map(|m| m.len()).unwrap_or(0);
    command
        .env(Listener::variable(), listener.path())
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("cannot share the log")?)
        .stderr(output)
        .current_dir("/");
    // SAFETY: setsid is async-signal-safe, and nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(Into::into));
    }
    let mut child: Child = command.spawn().context("cannot start it")?;
    listener.wait(&mut child, within, tell).with_context(|| tail(log, begin))
}

/// The last lines that a process logged, from where it began.
fn tail(log: &Path, begin: u64) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(begin as usize..).unwrap_or_default());
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_TAIL)..];
    format!("{}\nlog: {}", last.join("\n"), log.display())
}

async fn wait_ready(cluster: &Cluster, client: &Client, progress: &Progress) -> Result<()> {
    let wanted: Vec<String> = cluster.local_nodes().map(|node| node.name).collect();
    let watch = async {
        let nodes: Api<Node> = Api::all(client.clone());
        let mut ready = BTreeSet::new();
        loop {
            match look(&nodes, &wanted, &mut ready, progress).await {
                Ok(true) => return anyhow::Ok(()),
                Ok(false) => {}
                // an answer is final; a connection may break while everything starts at once
                Err(error @ kube::Error::Api(_)) => return Err(error.into()),
                Err(_) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
            }
        }
    };
    tokio::time::timeout(NODES_WITHIN, watch).await.context("nodes are not Ready in time")?
}

/// Follows the nodes until all are ready; `false` when the watch ended before.
async fn look(
    nodes: &Api<Node>,
    wanted: &[String],
    ready: &mut BTreeSet<String>,
    progress: &Progress,
) -> kube::Result<bool> {
    let mut events = nodes.watch(&WatchParams::default(), "0").await?.boxed();
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Added(node) | WatchEvent::Modified(node) = event {
            let name = node.metadata.name.clone().unwrap_or_default();
            if is_ready(&node) {
                ready.insert(name)
            } else {
                ready.remove(&name)
            };
        }
        let done = wanted.iter().filter(|name| ready.contains(*name)).count();
        progress.detail(&format!("{done} of {}", wanted.len()));
        if done == wanted.len() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

fn hint(cluster: &Cluster, server: bool, agents: usize) -> String {
    let started = if server || agents > 0 { "what was started goes on; " } else { "" };
    format!("{started}look at `tug status --name {}` and {}", cluster.name, cluster.log().display())
}

/// Adds the cluster to the user's kubeconfig; answers the file. A user without a home keeps the cluster's own file only.
fn add_context(cluster: &Cluster) -> Result<Option<PathBuf>> {
    let Some(file) = connect::user_kubeconfig() else { return Ok(None) };
    let own = cluster.admin_kubeconfig();
    let config = pki::Kubeconfig::read(&own)?.with_context(|| format!("{} is missing", own.display()))?;
    config.merge_into(&file).with_context(|| format!("cannot add a context to {}", file.display()))?;
    Ok(Some(file))
}

fn report(cluster: &Cluster, file: Option<&Path>, took: Duration) {
    println!("cluster {:?} is up: {} node(s) Ready in {:.2} s", cluster.name, cluster.nodes, took.as_secs_f64());
    match file {
        Some(file) => println!("context {:?} is current in {}", cluster.context(), file.display()),
        None => println!("kubeconfig: {}", cluster.admin_kubeconfig().display()),
    }
    println!("try:      kubectl get nodes");
    println!("          kubectl create deployment hello --image tug.local/demo:latest --replicas 2");
    println!("add one:  tug token create --name {}", cluster.name);
    println!("stop:     tug down --name {}      (--delete removes everything)", cluster.name);
}
