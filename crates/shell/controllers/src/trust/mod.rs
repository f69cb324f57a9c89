//! The controllers that trust rests on: certificate requests, bootstrap tokens with `cluster-info`, aggregated roles.

mod aggregation;
mod bootstrap;
mod certificates;

use std::sync::Arc;

use client::Hub;
use pki::Authority;
use tokio_util::sync::CancellationToken;

/// What these controllers need besides a client.
#[derive(Clone)]
pub struct TrustConfig {
    /// Signs client and kubelet certificates.
    pub ca: Arc<Authority>,
    /// The URL that joining machines reach the API server under, as `cluster-info` tells them.
    pub server: String,
}

/// Runs until `stop`.
pub async fn run(config: TrustConfig, hub: Hub, stop: CancellationToken) {
    let certificates = certificates::run(config.ca.clone(), &hub, stop.clone());
    let bootstrap = bootstrap::run(&config, &hub, stop.clone());
    let aggregation = aggregation::run(&hub, stop.clone());
    tokio::join!(certificates, bootstrap, aggregation);
}

/// Seconds since the epoch.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
