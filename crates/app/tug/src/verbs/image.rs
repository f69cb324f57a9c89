//! `tug image import FILE…`: images from archives into every local node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use machine::programs;

use crate::cluster::NodePaths;
use crate::connect::Target;

/// The containerd namespace of everything Kubernetes.
pub const IMAGE_NAMESPACE: &str = "k8s.io";

#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Import OCI or docker archives into every local node of the cluster.
    Import {
        #[command(flatten)]
        target: Target,
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

pub fn run(options: Options) -> Result<()> {
    let Verb::Import { target, files } = options.verb;
    super::need_root("image import")?;
    let cluster = target.cluster()?;
    for file in &files {
        if !file.is_file() {
            bail!("{} is no file", file.display());
        }
    }
    for node in cluster.local_nodes() {
        let socket = NodePaths::new(&node.dir).containerd_socket();
        for file in &files {
            let names = import(&socket, &file.display().to_string())
                .with_context(|| format!("cannot import {} into {}", file.display(), node.name))?;
            for name in names {
                println!("{}: {name}", node.name);
            }
        }
    }
    Ok(())
}

/// Imports one archive; answers the names of the images in it.
fn import(socket: &Path, file: &str) -> Result<Vec<String>> {
    if !socket.exists() {
        bail!("containerd does not run there; start the cluster: tug up");
    }
    let output =
        programs::run("ctr", &["-a", &socket.display().to_string(), "-n", IMAGE_NAMESPACE, "images", "import", file])?;
    Ok(output
        .lines()
        .filter_map(|line| Some(line.strip_prefix("unpacking ")?.split(" (").next()?.to_owned()))
        .collect())
}
