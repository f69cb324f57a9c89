//! A node that joins gets what every node has to have, and takes its part of the work.

use anyhow::{Result, ensure};
use e2e::{Cluster, Scope};

const AGENT: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: demo, image: 'tug.local/demo:latest', imagePullPolicy: IfNotPresent}]
";

/// Comes last: a cluster that has grown does not shrink.
pub fn daemon_set_follows(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "join")?;
    scope.apply(AGENT)?;
    scope.run("rollout status daemonset/agent --timeout=60s")?;
    ensure!(scope.field("daemonset agent", "{.status.numberAvailable}")? == "3");
    cluster.up(4)?;
    let node = cluster.node(4);
    scope.field_becomes("daemonset agent", "{.status.desiredNumberScheduled} {.status.numberAvailable}", "4 4")?;
    let pod = scope
        .field(&format!("pods -l app=agent --field-selector spec.nodeName={node}"), "{.items[*].metadata.name}")?;
    scope.says(&format!("logs {pod}"), &[])?;
    scope.exec(&pod, "/demo get http://127.0.0.1:8080/")?;
    // a node that is taken out of the cluster takes its pod along
    cluster.kubectl(&["cordon", &node])?;
    scope.field_becomes("daemonset agent", "{.status.numberAvailable}", "4")?;
    cluster.kubectl(&["uncordon", &node])?;
    scope.run("delete daemonset agent")?;
    scope.delete()
}
