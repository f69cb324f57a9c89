//! What breaks comes back: a container, a pod, a node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Load, Scope, eventually};
use machine::processes;
use nix::sys::signal::Signal;

/// A node is missed after its grace of 40 s; its pods have to leave a little later.
pub const NODE_WITHIN: Duration = Duration::from_secs(90);

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
    kill_node(&scope, 3, &pods)?;
    let outcome = without_node(&scope, &lost);
    // Also after a failure: the scenarios that follow need three nodes.
    cluster.up(3).context("tug up brings the node back")?;
    outcome?;
    scope.cluster.kubectl(&["wait", &format!("node/{lost}"), "--for=condition=Ready", "--timeout=30s"])?;
    eventually(Duration::from_secs(60), "the pods that were lost are gone", || {
        let now = pod_names(&scope, None)?;
        ensure!(now.len() == 6 && pods.iter().all(|pod| !now.contains(pod)), "{now:?}");
        Ok(())
    })?;
    scope.delete()
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

fn without_node(scope: &Scope<'_>, lost: &str) -> Result<()> {
    eventually(NODE_WITHIN, "the node is missed", || {
        let path = "{.status.conditions[?(@.type==\"Ready\")].status}";
        let is = scope.field(&format!("node {lost}"), path)?;
        ensure!(is == "Unknown", "Ready is {is:?}");
        Ok(())
    })?;
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
