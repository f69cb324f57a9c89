//! `tug kubeconfig`: prints the administrator's kubeconfig, or where it lies.

use anyhow::{Context, Result};

use crate::connect::Target;

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// Print the file's path instead of its content.
    #[arg(long)]
    path: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let cluster = options.target.cluster()?;
    let path = cluster.admin_kubeconfig();
    if options.path {
        println!("{}", path.display());
        return Ok(());
    }
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("cannot read {}; start the cluster: tug up --name {}", path.display(), cluster.name)
    })?;
    print!("{text}");
    Ok(())
}
