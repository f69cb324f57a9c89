//! The example of three tiers: updated under load, it fails no request; through all that breaks, it loses no note.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, Scope, eventually};
use images::Image;
use machine::processes::Process;
use nix::sys::signal::Signal;

use crate::heal::{is_missed, kill_node};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../examples/notes.yaml");
const REDIS: &str = "tug.local/redis:example";
const HOST: &str = "notes.example";
const WRITERS: usize = 4;
const ERRORS_KEPT: usize = 10;

pub fn three_tiers(cluster: &Cluster) -> Result<()> {
    let files = images::with_libraries(&[Path::new("/usr/bin/redis-server"), Path::new("/usr/bin/redis-cli")])?;
    e2e::import(cluster, &Image { tag: REDIS, files, user: "10001:10001", port: Some(6379) })?;
    cluster.kubectl(&["apply", "-f", MANIFEST])?;
    let scope = Scope { cluster, namespace: "notes" };
    for tier in ["statefulset/redis", "deployment/api", "deployment/web"] {
        scope.run(&format!("rollout status {tier} --timeout=120s"))?;
    }
    let site = Site::of(&scope)?;
    eventually(Duration::from_secs(30), "the web tier answers over HTTPS", || {
        let text = site.ask("GET", "/", "")?;
        ensure!(text.starts_with("web-"), "{text}");
        Ok(())
    })?;
    eventually(Duration::from_secs(30), "the API answers over HTTPS", || site.ask("GET", "/notes", "").map(drop))?;
    only_what_is_needed(&scope)?;

    let writers = Writers::start(&site, "update");
    for tier in ["deployment/web", "deployment/api", "statefulset/redis"] {
        scope.run(&format!("rollout restart {tier}"))?;
        scope.run(&format!("rollout status {tier} --timeout=120s"))?;
    }
    let (updated, errors) = writers.stop();
    ensure!(errors.is_empty() && updated.len() > WRITERS, "{} notes, failures: {errors:#?}", updated.len());
    println!("three tiers updated: {} notes written, none failed", updated.len());

    let writers = Writers::start(&site, "loss");
    restart_control_plane(cluster)?;
    lose_a_node(&scope, &site)?;
    let (mut written, errors) = writers.stop();
    println!("control plane killed and a node lost: {} notes written, {} refused", written.len(), errors.len());
    written.extend(updated);
    let kept: BTreeSet<String> = site.ask("GET", "/notes", "")?.lines().map(str::to_owned).collect();
    let lost: Vec<_> = written.difference(&kept).collect();
    ensure!(lost.is_empty(), "{} of {} notes are lost: {lost:?}", lost.len(), written.len());

    scope.run("create job now --from=cronjob/backup")?;
    scope.run("wait job/now --for=condition=Complete --timeout=60s")?;
    eventually(Duration::from_secs(60), "the autoscaler knows the API's load", || {
        let metric = scope.field("hpa api", "{.status.currentMetrics[0].resource.current.averageUtilization}")?;
        ensure!(metric.parse::<u32>().is_ok(), "{metric:?}");
        Ok(())
    })?;
    scope.delete()
}

/// A pod without a tier does not reach the store.
fn only_what_is_needed(scope: &Scope<'_>) -> Result<()> {
    let stranger = "run stranger --image=tug.local/demo:latest --image-pull-policy=IfNotPresent --restart=Never \
                    --command -- /demo get http://redis:6379/";
    scope.run(stranger)?;
    scope.field_becomes("pod stranger", "{.status.phase}", "Failed")?;
    let said = scope.run("logs stranger")?;
    ensure!(said.contains("timed out"), "the store answered a stranger: {said}");
    scope.run("delete pod stranger").map(drop)
}

fn restart_control_plane(cluster: &Cluster) -> Result<()> {
    let server = Process::read(&cluster.dir().join("server.pid")).context("no control plane runs")?;
    server.signal(Signal::SIGKILL);
    eventually(Duration::from_secs(5), "it is dead", || {
        ensure!(!server.is_running());
        Ok(())
    })?;
    cluster.up(3).context("tug up after a crash").map(drop)
}

/// One of the nodes that does not hold the store, whose disk is its node's, is gone and comes back.
fn lose_a_node(scope: &Scope<'_>, site: &Site) -> Result<()> {
    let cluster = scope.cluster;
    let store = scope.field("pod redis-0", "{.spec.nodeName}")?;
    let index = if store == cluster.node(3) { 2 } else { 3 };
    let lost = cluster.node(index);
    let on_it = scope.field(&format!("pods --field-selector spec.nodeName={lost}"), "{.items[*].metadata.name}")?;
    let pods: Vec<String> = on_it.split_whitespace().map(str::to_owned).collect();
    ensure!(!pods.is_empty(), "tiers are spread over all nodes");
    kill_node(scope, index, &pods)?;
    let outcome = is_missed(scope, &lost).and_then(|()| {
        eventually(Duration::from_secs(30), "the site answers without it", || site.ask("GET", "/notes", "").map(drop))
    });
    cluster.up(3).context("tug up brings the node back")?;
    outcome?;
    cluster.kubectl(&["wait", &format!("node/{lost}"), "--for=condition=Ready", "--timeout=60s"])?;
    for tier in ["deployment/api", "deployment/web"] {
        scope.run(&format!("rollout status {tier} --timeout=120s"))?;
    }
    Ok(())
}

/// The site behind the Ingress, asked by curl, which checks the certificate against the one of the manifest.
#[derive(Clone)]
struct Site {
    address: String,
    certificate: String,
}

impl Site {
    fn of(scope: &Scope<'_>) -> Result<Self> {
        let certificate = scope.args(&[
            "get",
            "secret",
            "notes-tls",
            "-o",
            "go-template={{index .data \"tls.crt\" | base64decode}}",
        ])?;
        let file = scope.cluster.dir().join("notes.pem");
        std::fs::write(&file, certificate)?;
        let mut address = String::new();
        eventually(Duration::from_secs(30), "the Ingress has an address", || {
            address = scope.field("ingress notes", "{.status.loadBalancer.ingress[0].ip}")?;
            ensure!(!address.is_empty());
            Ok(())
        })?;
        Ok(Self { address, certificate: file.display().to_string() })
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--fail",
                "--cacert",
                &self.certificate,
                "--max-time",
                "30",
                "-X",
                method,
                "--data-binary",
                body,
            ])
            .args(["--resolve", &format!("{HOST}:443:{}", self.address), &format!("https://{HOST}{path}")])
            .output()?;
        if !output.status.success() {
            bail!("{method} {path}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Write notes one after the other until told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    written: Arc<Mutex<(BTreeSet<String>, Vec<String>)>>,
}

impl Writers {
    fn start(site: &Site, round: &'static str) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<(BTreeSet<_>, Vec<_>)>>::default());
        let writer = |worker: usize| {
            let (site, stop, written) = (site.clone(), stop.clone(), written.clone());
            std::thread::spawn(move || {
                for number in 0.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    let id = format!("{round}-{worker}-{number}");
                    let both = site.ask("PUT", &format!("/notes/{id}"), "text").and_then(|_| site.ask("GET", "/", ""));
                    let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                    match both {
                        Ok(_) => drop(written.0.insert(id)),
                        Err(error) if written.1.len() < ERRORS_KEPT => written.1.push(format!("{error:#}")),
                        Err(_) => {}
                    }
                }
            })
        };
        let threads = (0..WRITERS).map(writer).collect();
        Self { stop, threads, written }
    }

    /// The notes that were answered for, and the first failures.
    fn stop(self) -> (BTreeSet<String>, Vec<String>) {
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
