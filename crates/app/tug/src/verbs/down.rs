//! `tug down`: stops a cluster, and with `--delete` leaves nothing of it on the machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use machine::processes::{Process, end};
use machine::teardown;

use crate::cluster::{Cluster, LocalNode, NodePaths, release_slot};
use crate::connect::{Target, user_kubeconfig};
use crate::node;
use crate::progress::Progress;

/// The control plane writes out what it holds and ends; this is how long it may take.
const STOP_WITHIN: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// Also remove data, images, networks and the kubeconfig context.
    #[arg(long)]
    delete: bool,
}

pub fn run(options: &Options) -> Result<()> {
    super::need_root("down")?;
    let cluster = match options.target.cluster() {
        Ok(cluster) => cluster,
        Err(error) if options.delete => {
            println!("nothing to delete: {error:#}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut progress = Progress::new();
    progress.step("stop the control plane and agents");
    let nodes: Vec<LocalNode> = cluster.local_nodes().collect();
    let pid_files = nodes.iter().map(LocalNode::pid_file).chain([cluster.pid_file()]);
    let agents: Vec<Process> = pid_files.filter_map(|file| Process::read(&file)).collect();
    end(&agents, STOP_WITHIN);
    progress.step("stop containers");
    std::thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| stop_node(&cluster, node));
        }
    });
    cluster.fabric().remove();
    if options.delete {
        progress.step("remove data");
        remove_data(&cluster.dir).with_context(|| format!("cannot remove {}", cluster.dir.display()))?;
        release_slot(cluster.slot);
        if let Some(file) = user_kubeconfig().filter(|file| file.is_file()) {
            pki::kubeconfig::remove_context(&file, &cluster.context())?;
        }
    }
    let took = progress.finish();
    println!(
        "cluster {:?} is {} ({:.1} s)",
        cluster.name,
        if options.delete { "deleted" } else { "down" },
        took.as_secs_f64()
    );
    Ok(())
}

fn stop_node(cluster: &Cluster, local: &LocalNode) {
    let paths = NodePaths::new(&local.dir);
    teardown::node(&paths.remains());
    match local.place() {
        Some(place) => place.remove(),
        // The machine's own namespace stays, so what the node put into it has to go.
        None => node::remove_network(cluster, &paths),
    }
}

/// A data directory that is a mount point stays, empty.
fn remove_data(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && fs::read_dir(dir)?.next().is_none() => Ok(()),
        removed => removed,
    }
}
