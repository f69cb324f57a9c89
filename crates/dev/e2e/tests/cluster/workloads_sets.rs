//! StatefulSets and DaemonSets on real containers: identity, order, updates, rollbacks, and following the nodes.

use anyhow::{Result, ensure};
use e2e::{Cluster, Scope};

const STATEFUL_SET: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: 3
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: demo
        image: tug.local/demo:latest
        imagePullPolicy: IfNotPresent
        env: [{name: ROUND, value: '1'}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";

const DAEMON_SET: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {e2e-agent: 'yes'}
      containers:
      - name: demo
        image: tug.local/demo:latest
        imagePullPolicy: IfNotPresent
        env: [{name: ROUND, value: '1'}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";

const NAMES: &str = "{.items[*].metadata.name}";
const ROUNDS: &str = "{.items[*].spec.containers[0].env[0].value}";

pub fn stateful_set(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "stateful")?;
    scope.apply(STATEFUL_SET)?;
    let done = |round: &str| -> Result<()> {
        scope.run("rollout status statefulset/web --timeout=90s")?;
        let rounds = scope.field("pods -l app=web", ROUNDS)?;
        ensure!(rounds.split_whitespace().all(|value| value == round), "not all of round {round}: {rounds}");
        Ok(())
    };
    done("1")?;
    ensure!(scope.field("pods -l app=web --sort-by=.metadata.name", NAMES)? == "web-0 web-1 web-2");
    let answer = scope.exec("web-0", "/demo get http://web-2.web:8080/")?;
    ensure!(answer.contains("web-2"), "web-2 answers to its name: {answer}");

    let uid = scope.field("pod web-1", "{.metadata.uid}")?;
    scope.run("delete pod web-1")?;
    done("1")?;
    ensure!(scope.field("pod web-1", "{.metadata.uid}")? != uid, "web-1 is a new pod of the old name");
    ensure!(scope.field("pod web-1", "{.spec.hostname}")? == "web-1");

    scope.run("set env statefulset/web ROUND=2")?;
    done("2")?;
    let current = scope.field("statefulset web", "{.status.currentRevision}")?;
    scope.says("rollout history statefulset/web", &["1", "2"])?;
    scope.run("rollout undo statefulset/web")?;
    done("1")?;
    ensure!(scope.field("statefulset web", "{.status.currentRevision}")? != current);
    scope.says("rollout history statefulset/web", &["2", "3"])?;
    scope.run("rollout restart statefulset/web")?;
    done("1")?;

    scope.run("scale statefulset/web --replicas=1")?;
    scope.field_becomes("statefulset web", "{.status.replicas}", "1")?;
    ensure!(scope.field("pods -l app=web", NAMES)? == "web-0");
    scope.run("delete statefulset/web")?;
    scope.field_becomes("pods -l app=web", NAMES, "")?;
    scope.delete()
}

pub fn daemon_set(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "daemon")?;
    let label = |node: u16, label: &str| cluster.kubectl(&["label", "node", &cluster.node(node), label, "--overwrite"]);
    label(1, "e2e-agent=yes")?;
    label(2, "e2e-agent=yes")?;
    let outcome = follow(&scope, label);
    // Also after a failure: no label stays on the nodes of others.
    for node in 1..=3 {
        label(node, "e2e-agent-")?;
    }
    outcome?;
    scope.delete()
}

fn follow(scope: &Scope<'_>, label: impl Fn(u16, &str) -> Result<String>) -> Result<()> {
    scope.apply(DAEMON_SET)?;
    let nodes = |expected: &[u16]| -> Result<()> {
        scope.field_becomes("daemonset agent", "{.status.numberAvailable}", &expected.len().to_string())?;
        let mut wanted: Vec<String> = expected.iter().map(|node| scope.cluster.node(*node)).collect();
        wanted.sort();
        scope.field_becomes(
            "pods -l app=agent --sort-by=.spec.nodeName",
            "{.items[*].spec.nodeName}",
            &wanted.join(" "),
        )
    };
    nodes(&[1, 2])?;
    label(3, "e2e-agent=yes")?;
    nodes(&[1, 2, 3])?;
    label(1, "e2e-agent-")?;
    nodes(&[2, 3])?;

    let rolled = |round: &str| -> Result<()> {
        scope.run("rollout status daemonset/agent --timeout=90s")?;
        scope.field_becomes("pods -l app=agent", ROUNDS, &format!("{round} {round}"))
    };
    scope.run("set env daemonset/agent ROUND=2")?;
    rolled("2")?;
    scope.says("rollout history daemonset/agent", &["1", "2"])?;
    scope.run("rollout undo daemonset/agent")?;
    rolled("1")?;
    scope.run("rollout restart daemonset/agent")?;
    rolled("1")?;
    scope.run("delete daemonset/agent")?;
    scope.field_becomes("pods -l app=agent", NAMES, "")
}
