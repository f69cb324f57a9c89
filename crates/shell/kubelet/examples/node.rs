//! Runs one kubelet against a kubeconfig: `node KUBECONFIG NAME IP DIR`.

use kubelet::containerd::ContainerdConfig;
use kubelet::{KubeletConfig, RuntimeSource};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter("info").init();
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kubeconfig, name, ip, dir] = arguments.as_slice() else { anyhow::bail!("node KUBECONFIG NAME IP DIR") };
    let options = kube::config::KubeConfigOptions::default();
    let file = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let client = kube::Client::try_from(kube::Config::from_custom_kubeconfig(file, &options).await?)?;
    let dir = std::path::PathBuf::from(dir);
    let containerd = ContainerdConfig::new(dir.join("containerd"));
    let mut config = KubeletConfig::new(name, ip.parse()?, dir.join("kubelet"), RuntimeSource::Private(containerd));
    config.cgroup_parent = format!("/kube-{name}");
    config.cluster_dns = vec!["10.96.0.10".parse()?];
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        token.cancel();
    });
    kubelet::run(config, client, stop).await
}
