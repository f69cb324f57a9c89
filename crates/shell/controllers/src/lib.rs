//! Controllers: each watches, maps changes to keys, asks core/reconcile for a plan and applies it. Nothing else.

mod apply;
mod clock;
mod cronjob;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod garbage;
mod horizontal;
mod job;
mod job_ttl;
mod kind_paths;
mod load_balancer;
mod namespace;
mod namespaces;
mod node_lifecycle;
mod pod_cidr;
mod pods_of;
mod replicaset;
mod resource_quota;
mod revisions;
mod runner;
mod service_address;
mod service_cidr;
mod sources;
mod statefulset;
pub mod trust;
mod volumes;

use std::time::Duration;

use client::Hub;
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use runner::{Context, Metrics};

/// What the controllers of one cluster are told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The CA bundle published as `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// Pod networks, for example `10.42.0.0/16`; empty: nodes bring their own pod CIDR.
    pub cluster_cidrs: Vec<String>,
    /// The prefix length of each node's pod CIDR.
    pub node_cidr_mask: u8,
    /// How long a node may be silent before it is NotReady (upstream: 40 s).
    pub node_monitor_grace: Duration,
    /// Finished pods kept before the oldest are collected (upstream: 12500).
    pub finished_pods_max: usize,
    /// Keys of one controller worked on at the same time.
    pub workers_max: usize,
    /// TCP ports of the nodes that belong to the cluster's own servers: no LoadBalancer Service gets them.
    pub node_ports_reserved: Vec<u16>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root_ca_pem: String::new(),
            cluster_cidrs: Vec::new(),
            node_cidr_mask: 24,
            node_monitor_grace: Duration::from_secs(40),
            finished_pods_max: 12_500,
            workers_max: 5,
            node_ports_reserved: Vec::new(),
        }
    }
}

/// The registry: one line per controller.
const CONTROLLERS: &[(&str, fn(&Context))] = &[
    ("serviceaccount-controller", namespaces::start_service_accounts),
    ("root-ca-certificate-publisher-controller", namespaces::start_root_ca),
    ("replicaset-controller", replicaset::start_replica_sets),
    ("replicationcontroller-controller", replicaset::start_replication_controllers),
    ("deployment-controller", deployment::start),
    ("job-controller", job::start),
    ("cronjob-controller", cronjob::start),
    ("disruption-controller", disruption::start),
    ("horizontal-pod-autoscaler-controller", horizontal::start),
    ("ttl-after-finished-controller", job_ttl::start),
    ("statefulset-controller", statefulset::start),
    ("daemon-set-controller", daemonset::start),
    ("namespace-controller", namespace::start),
    ("garbage-collector-controller", garbage::start),
    ("endpointslice-controller", endpoints::start_slices),
    ("endpoints-controller", endpoints::start_endpoints),
    ("endpointslice-mirroring-controller", endpoints::start_mirror),
    ("service-lb-controller", load_balancer::start),
    ("service-cidr-controller", service_cidr::start),
    ("service-ip-address-controller", service_address::start),
    ("resourcequota-controller", resource_quota::start),
    ("persistentvolume-binder-controller", volumes::start_binder),
    ("persistentvolumeclaim-protection-controller", volumes::start_claim_protection),
    ("persistentvolume-protection-controller", volumes::start_volume_protection),
    ("ephemeral-volume-controller", volumes::start_ephemeral),
    ("disk-provisioner-controller", volumes::start_disks),
    ("node-ipam-controller", pod_cidr::start),
    ("node-lifecycle-controller", node_lifecycle::start),
    ("pod-garbage-collector-controller", node_lifecycle::start_collector),
];

/// Runs every controller until `stop`.
pub async fn run(config: Config, client: Client, stop: CancellationToken) {
    let hub = Hub::new(client, stop.clone());
    run_on(config, hub, stop).await;
}

/// As [`run`], sharing the informers of a process.
pub async fn run_on(config: Config, hub: Hub, stop: CancellationToken) {
    let context = Context::new(config, hub, stop.clone());
    for (name, start) in CONTROLLERS {
        tracing::debug!(controller = name, "starting");
        start(&context);
    }
    stop.cancelled().await;
    context.finished().await;
}
