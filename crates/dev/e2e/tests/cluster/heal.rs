//! What breaks comes back: a container, a pod, a node.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Load, Outcome, Scope, eventually};
use machine::processes;
use nix::sys::signal::Signal;

use crate::rollout;

/// A node is missed after its grace of 40 s; its pods have to leave a little later.
pub const NODE_WITHIN: Duration = Duration::from_secs(90);
/// Requests a second, each way.
const PER_SECOND: u32 = 100;
/// A client waits this long for an answer, connection included.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);
const ERRORS_END_WITHIN: Duration = Duration::from_secs(70);
const ADDRESS: &str = "{.status.addresses[?(@.type==\"InternalIP\")].address}";

/// Six pods that leave a lost node after two seconds, and their Service.
pub const DEMO: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: demo}
spec:
  replicas: 6
  selector: {matchLabels: {app: demo}}
  template:
    metadata: {labels: {app: demo}}
    spec:
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      containers:
      - name: demo
        image: tug.local/demo:latest
        imagePullPolicy: IfNotPresent
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: demo}
spec: {selector: {app: demo}, ports: [{port: 80, targetPort: http}]}
";

/// The demo's pods, on one node where it is named.
pub fn pod_names(scope: &Scope<'_>, node: Option<&str>) -> Result<Vec<String>> {
    let only = node.map(|node| format!("--field-selector spec.nodeName={node}")).unwrap_or_default();
    let text = scope.field(&format!("pods -l app=demo {only}"), "{.items[*].metadata.name}")?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

pub fn container_and_pod(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "heal")?;
    scope.apply(DEMO)?;
    scope.rolled_out("demo")?;
    let pods = pod_names(&scope, None)?;
    let first = pods.first().context("no pods")?;
    for process in scope.processes(first)? {
        process.signal(Signal::SIGKILL);
    }
    scope.field_becomes(&format!("pod {first}"), "{.status.containerStatuses[0].restartCount}", "1")?;
    scope.run(&format!("wait pod/{first} --for=condition=Ready --timeout=30s"))?;
    let last = "{.status.containerStatuses[0].lastState.terminated.exitCode}";
    ensure!(scope.field(&format!("pod {first}"), last)? == "137");
    scope.run(&format!("logs {first} --previous"))?;

    let second = pods.get(1).context("one pod only")?;
    scope.run(&format!("delete pod {second}"))?;
    scope.rolled_out("demo")?;
    let now = pod_names(&scope, None)?;
    ensure!(now.len() == 6 && !now.contains(second) && now.contains(first), "{second} was replaced: {now:?}");
    scope.delete()
}

pub fn node(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "heal-node")?;
    scope.apply(DEMO)?;
    scope.rolled_out("demo")?;
    let lost = cluster.node(3);
    let pods = pod_names(&scope, Some(&lost))?;
    ensure!(!pods.is_empty(), "pods are spread over all nodes");
    let others = [1, 2].map(|index| scope.field(&format!("node {}", cluster.node(index)), ADDRESS));
    let others = others.into_iter().collect::<Result<Vec<String>>>()?;
    let ways = rollout::open_doors(&scope, &others)?;
    let loads = ways.map(|(way, addresses)| (way, Load::start_over(addresses, PER_SECOND, GIVE_UP_AFTER)));
    let port = port_of(3)?;
    let off = Instant::now();
    machine::programs::run("ip", &["link", "set", &port, "down"])?;
    let outcome = kill_node(&scope, 3, &pods).and_then(|()| without_node(&scope, &lost));
    let errors_ended = loads.map(|(way, load)| last_error(way, &load.stop(), off));
    // Also after a failure: the scenarios that follow need three nodes.
    machine::programs::run("ip", &["link", "set", &port, "up"])?;
    cluster.up(3).context("tug up brings the node back")?;
    outcome?;
    errors_ended.into_iter().collect::<Result<()>>()?;
    scope.run("delete ingress demo")?;
    scope.cluster.kubectl(&["wait", &format!("node/{lost}"), "--for=condition=Ready", "--timeout=30s"])?;
    eventually(Duration::from_secs(60), "the pods that were lost are gone", || {
        let now = pod_names(&scope, None)?;
        ensure!(now.len() == 6 && pods.iter().all(|pod| !now.contains(pod)), "{now:?}");
        Ok(())
    })?;
    scope.delete()
}

/// The machine's end of a node's cable.
fn port_of(index: u16) -> Result<String> {
    let links = machine::programs::run("ip", &["-o", "link", "show", "type", "veth"])?;
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    let end = format!("p{index}");
    let port = names.into_iter().find(|name| name.starts_with("tug") && name.ends_with(&end));
    Ok(port.with_context(|| format!("node {index} has no cable:\n{links}"))?.to_owned())
}

/// Tells how long requests failed after the node was off; they must not do so for ever.
fn last_error(way: &str, outcome: &Outcome, off: Instant) -> Result<()> {
    let last = outcome.last_error.map_or(Duration::ZERO, |at| at.saturating_duration_since(off));
    println!("  {way}: {outcome}, the last {:.1} s after the node was off", last.as_secs_f64());
    ensure!(last < ERRORS_END_WITHIN, "{way}: requests failed until {last:?} after the node was off: {outcome:?}");
    Ok(())
}

/// As when its machine loses power: agent, containerd, shims and containers end at once. `pods` are some on that node.
pub fn kill_node(scope: &Scope<'_>, index: u16, pods: &[String]) -> Result<()> {
    let dir = scope.cluster.node_dir(index);
    let agent =
        processes::Process::read(&dir.join("agent.pid")).with_context(|| format!("node {index} has no agent"))?;
    let mut victims = vec![agent];
    for process in scope.processes(pods.first().context("no pods")?)? {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid))?;
        let path = groups.lines().find_map(|line| line.rsplit(':').next().filter(|path| path.len() > 1));
        let parent = path.and_then(|path| path.split('/').nth(1)).context("the container has no cgroup")?;
        victims.extend(processes::in_cgroup(parent));
    }
    victims.extend(processes::given(&dir));
    for process in victims {
        process.signal(Signal::SIGKILL);
    }
    Ok(())
}

/// Waits until the control plane knows that it hears nothing of a node.
pub fn is_missed(scope: &Scope<'_>, lost: &str) -> Result<()> {
    eventually(NODE_WITHIN, "the node is missed", || {
        let is = scope.field(&format!("node {lost}"), "{.status.conditions[?(@.type==\"Ready\")].status}")?;
        ensure!(is == "Unknown", "Ready is {is:?}");
        Ok(())
    })
}

fn without_node(scope: &Scope<'_>, lost: &str) -> Result<()> {
    is_missed(scope, lost)?;
    let why = scope.cluster.tug_command(&["why", "node", lost]).output()?;
    let why = String::from_utf8_lossy(&why.stdout);
    ensure!(why.contains("  1. nothing is heard of it for "), "{why}");
    eventually(Duration::from_secs(30), "its endpoints are gone", || {
        let ready = scope.get("endpointslices")?;
        let slices = ready["items"].as_array().context("no list")?.iter();
        let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let left = endpoints.filter(|e| e["nodeName"] == *lost && e["conditions"]["ready"] == true).count();
        ensure!(left == 0, "{left} are ready");
        Ok(())
    })?;
    let load = Load::start(scope.cluster.service(scope.namespace, "demo")?.parse()?, 100);
    scope.field_becomes("deployment demo", "{.status.readyReplicas}", "6")?;
    let outcome = load.stop();
    ensure!(outcome.failed == 0 && outcome.answered > 0, "the Service answers without the node: {outcome:?}");
    Ok(())
}
