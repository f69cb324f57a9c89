//! Starts the parts of one kubelet and keeps them until cancelled.

use crate::config::{KubeletConfig, RuntimeSource};
use crate::images::Images;
use crate::machine::Machine;
use crate::node::{Node, PARALLEL_STARTS_MAX, Registry};
use crate::objects::Objects;
use crate::runtime::Runtime;
use crate::tokens::Tokens;
use crate::usage::{self, Counters, Meter};
use crate::volumes::disk::{self, Disks};
use crate::{image_gc, logs, pods, pressure, register, static_pods};
use anyhow::{Context, Result};
use client::{Informer, InformerConfig, Recorder};
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

/// Makes sure that the runtime is there and builds the shared state; the server may be given the result.
///
/// # Errors
/// When containerd is missing or does not start, or a directory cannot be made; the text says what to do.
pub async fn prepare(config: KubeletConfig, client: Client, stop: CancellationToken) -> Result<Arc<Node>> {
    for dir in [&config.root_dir, &config.log_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let socket = match &config.runtime {
        RuntimeSource::Socket(path) => path.clone(),
        RuntimeSource::Private(containerd) => {
            containerd.ensure().await?;
            tokio::spawn(containerd.clone().supervise(stop.clone()));
            containerd.socket()
        }
    };
    let runtime = Runtime::new(&socket);
    let version = runtime.version().await;
    let (name, version) = version.with_context(|| format!("no container runtime answers on {}", socket.display()))?;
    tracing::info!(%name, %version, socket = %socket.display(), "container runtime");
    let registry = Arc::new(Registry::default());
    let woken = registry.clone();
    let changed = Arc::new(move |uid: &str| {
        if let Some(handle) = woken.get(uid) {
            handle.objects_news.store(true, Ordering::Release);
            handle.wake.notify_one();
        }
    });
    let services = InformerConfig::all("/api/v1/services");
    Ok(Arc::new(Node {
        machine: Machine::read(&config),
        objects: Objects::new(client.clone(), stop.child_token(), changed),
        services: Informer::start(client.clone(), services, |service: Service| service, &[], stop.child_token()),
        recorder: Recorder::new(client.clone(), "kubelet", Some(&config.node_name)),
        images: Images::default(),
        tokens: Tokens::default(),
        start_slots: Arc::new(Semaphore::new(PARALLEL_STARTS_MAX)),
        cgroup_tree: std::sync::Mutex::default(),
        pressures: std::sync::Mutex::default(),
        image_ages: std::sync::Mutex::default(),
        admission: std::sync::Mutex::default(),
        status_news: Notify::new(),
        started: jiff::Timestamp::now(),
        static_pods: tokio::sync::watch::Sender::default(),
        meter: Meter::default(),
        counters: Counters::default(),
        withdrawal: std::sync::OnceLock::new(),
        disks: Arc::new(Disks::new(config.root_dir.join("disks"), disk::can_resize_online())),
        more_metrics: std::sync::OnceLock::new(),
        registry,
        runtime,
        client,
        config,
    }))
}

/// Runs a prepared node until `stop`. Containers live on afterwards.
pub async fn run_prepared(node: Arc<Node>, stop: CancellationToken) {
    tokio::join!(
        register::run(node.clone(), stop.clone()),
        static_pods::run(node.clone(), stop.clone()),
        pods::run(node.clone(), stop.clone()),
        usage::run(node.clone(), stop.clone()),
        pressure::run(node.clone(), stop.clone()),
        image_gc::run(node.clone(), stop.clone()),
        logs::rotate(node, stop),
    );
}

/// Runs one node's kubelet until `stop`.
///
/// # Errors
/// As [`prepare`].
pub async fn run(config: KubeletConfig, client: Client, stop: CancellationToken) -> Result<()> {
    let node = prepare(config, client, stop.clone()).await?;
    run_prepared(node, stop).await;
    Ok(())
}
