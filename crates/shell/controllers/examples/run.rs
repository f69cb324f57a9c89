//! Runs the controllers against the API server of a kubeconfig: `cargo run -p controllers --example run -- FILE`.

use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let path = std::env::args().nth(1).ok_or("usage: run KUBECONFIG")?;
    let client = client::remote_client(std::path::Path::new(&path)).await?;
    let config = controllers::Config {
        root_ca_pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        cluster_cidrs: vec!["10.42.0.0/16".to_owned()],
        node_monitor_grace: std::time::Duration::from_secs(10),
        ..controllers::Config::default()
    };
    let stop = CancellationToken::new();
    tokio::spawn(controllers::run(config, client, stop.clone()));
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    Ok(())
}
