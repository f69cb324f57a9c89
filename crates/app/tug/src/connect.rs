//! How verbs find and reach a cluster: a kubeconfig by flag, by cluster name, or where kubectl would look.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::cluster::{Cluster, DEFAULT_NAME};

/// Flags of every verb that talks to a cluster.
#[derive(clap::Args, Clone, Debug)]
pub struct Target {
    /// Kubeconfig to use.
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// A cluster that `tug up` made on this machine.
    #[arg(long, global = true)]
    pub name: Option<String>,
    /// Directory of that cluster, where it is not the usual one.
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

impl Target {
    /// The local cluster that is meant.
    ///
    /// # Errors
    /// There is none of this name here.
    pub fn cluster(&self) -> Result<Cluster> {
        let name = self.name.as_deref().unwrap_or(DEFAULT_NAME);
        let dir = self.data_dir.clone().unwrap_or_else(|| Cluster::default_dir(name));
        Cluster::read(&dir)?
            .with_context(|| format!("no cluster {name:?} in {}; make one with: tug up --name {name}", dir.display()))
    }

    /// The kubeconfig file that is meant: the flag, the named cluster's, `$KUBECONFIG` or the user's, the default cluster's.
    fn file(&self) -> Result<Option<PathBuf>> {
        if let Some(file) = &self.kubeconfig {
            return Ok(Some(file.clone()));
        }
        if self.name.is_some() || self.data_dir.is_some() {
            return Ok(Some(self.cluster()?.admin_kubeconfig()));
        }
        let local = Cluster::default_dir(DEFAULT_NAME).join("admin.kubeconfig");
        Ok((std::env::var_os("KUBECONFIG").is_none() && local.is_file()).then_some(local))
    }

    /// A client for the cluster that is meant.
    ///
    /// # Errors
    /// No kubeconfig, or one that cannot be used.
    pub async fn client(&self) -> Result<Client> {
        match self.file()? {
            Some(file) => client(&file).await,
            None => {
                let config = Kubeconfig::read()
                    .context("no kubeconfig; name a cluster with --name or a file with --kubeconfig")?;
                from(config).await
            }
        }
    }
}

/// A client by kubeconfig file.
///
/// # Errors
/// The file cannot be read or its credentials cannot be used.
pub async fn client(file: &Path) -> Result<Client> {
    if !file.is_file() {
        bail!("no kubeconfig at {}; is the cluster made? tug up", file.display());
    }
    let config = Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display()))?;
    from(config).await
}

async fn from(kubeconfig: Kubeconfig) -> Result<Client> {
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The kubeconfig that kubectl would write to: the first file of `$KUBECONFIG`, else `~/.kube/config`.
pub fn user_kubeconfig() -> Option<PathBuf> {
    if let Some(paths) = std::env::var_os("KUBECONFIG") {
        return std::env::split_paths(&paths).find(|path| !path.as_os_str().is_empty());
    }
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube").join("config"))
}
