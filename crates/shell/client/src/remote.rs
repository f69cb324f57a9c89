//! A client for an API server in another process, from a kubeconfig.

use std::path::Path;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use crate::StatusError;

/// Connects by the current context of a kubeconfig file.
///
/// # Errors
/// When the file is missing or broken, or its certificates cannot be used.
pub async fn remote_client(kubeconfig: &Path) -> Result<Client, StatusError> {
    let path = kubeconfig.display().to_string();
    let parsed =
        Kubeconfig::read_from(kubeconfig).map_err(|source| StatusError::Kubeconfig { path: path.clone(), source })?;
    from_kubeconfig(parsed, path).await
}

/// Connects by the current context of a kubeconfig held in memory.
///
/// # Errors
/// As [`remote_client`].
pub async fn remote_client_from_yaml(yaml: &str) -> Result<Client, StatusError> {
    let path = "(in memory)".to_owned();
    let parsed =
        Kubeconfig::from_yaml(yaml).map_err(|source| StatusError::Kubeconfig { path: path.clone(), source })?;
    from_kubeconfig(parsed, path).await
}

async fn from_kubeconfig(kubeconfig: Kubeconfig, path: String) -> Result<Client, StatusError> {
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|source| StatusError::Kubeconfig { path: path.clone(), source })?;
    // Watches outlive any fixed read timeout; they end by their own timeoutSeconds.
    config.read_timeout = None;
    Client::try_from(config).map_err(|source| StatusError::Client { path, source })
}
