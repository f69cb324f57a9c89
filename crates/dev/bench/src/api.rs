//! Requests a second through a client: create, get, list, and one write that many watchers see.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use testkit::TestServer;

const NAMESPACE: &str = "tug-bench";
const CLIENTS: [usize; 3] = [1, 16, 64];
const DATA_BYTES: usize = 1024;
const LISTS: usize = 5;

pub async fn run(kubeconfig: Option<PathBuf>, objects: usize, watchers: usize) -> Result<()> {
    let Some(path) = kubeconfig else {
        println!("in process, over a store in memory");
        let test = TestServer::start().await;
        return measure(test.client.clone(), objects, watchers).await;
    };
    let file = Kubeconfig::read_from(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    measure(Client::try_from(config)?, objects, watchers).await
}

async fn measure(client: Client, objects: usize, watchers: usize) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    namespaces.create(&PostParams::default(), &namespace).await.context("cannot make the namespace tug-bench")?;
    let outcome = all(&Api::namespaced(client, NAMESPACE), objects, watchers).await;
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
    outcome
}

async fn all(api: &Api<ConfigMap>, objects: usize, watchers: usize) -> Result<()> {
    for clients in CLIENTS {
        let create = rate(clients, objects, |index| async move {
            api.create(&PostParams::default(), &config_map(&format!("c{clients}-{index}"))?).await?;
            Ok(())
        });
        let create = create.await?;
        let get = rate(clients, objects, |index| async move {
            api.get(&format!("c{clients}-{index}")).await?;
            Ok(())
        });
        println!("{clients:3} clients: create {create:.0}/s, get {:.0}/s", get.await?);
    }
    let started = Instant::now();
    let mut length = 0;
    for _ in 0..LISTS {
        length = api.list(&ListParams::default()).await?.items.len();
    }
    println!("list of {length}: {:.1} ms", started.elapsed().as_secs_f64() * 1000.0 / LISTS as f64);
    watch(api, watchers).await
}

/// Does `one` for 0..`count`, shared among clients that each wait for their own.
async fn rate<F: Future<Output = Result<()>>>(clients: usize, count: usize, one: impl Fn(usize) -> F) -> Result<f64> {
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    let client = || async {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            one(index).await?;
        }
    };
    join_all((0..clients).map(|_| client())).await.into_iter().collect::<Result<()>>()?;
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// From one write until the last of all watchers has seen it.
async fn watch(api: &Api<ConfigMap>, watchers: usize) -> Result<()> {
    let version = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let open = (0..watchers).map(|_| async { api.watch(&WatchParams::default(), &version).await });
    let mut streams: Vec<_> = try_join_all(open).await?.into_iter().map(StreamExt::boxed).collect();
    let started = Instant::now();
    api.create(&PostParams::default(), &config_map("seen")?).await?;
    try_join_all(streams.iter_mut().map(|stream| stream.try_next())).await?;
    println!("one write to {watchers} watchers: {:.1} ms", started.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}

fn config_map(name: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": "x".repeat(DATA_BYTES)}}))?)
}
