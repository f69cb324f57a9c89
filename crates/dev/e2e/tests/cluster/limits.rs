//! Who gets what there is too little of: pods of higher priority before others, and no more than a quota allows.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Cluster, Scope, eventually};

const RIVALS: &str = "
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: e2e-urgent}
value: 1000
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: patient}
spec:
  replicas: 2
  selector: {matchLabels: {app: patient}}
  template:
    metadata: {labels: {app: patient}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: demo
        image: tug.local/demo:latest
        imagePullPolicy: IfNotPresent
        resources: {requests: {example.com/seat: 1}, limits: {example.com/seat: 1}}
";

const URGENT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: urgent}
spec:
  priorityClassName: e2e-urgent
  containers:
  - name: demo
    image: tug.local/demo:latest
    imagePullPolicy: IfNotPresent
    resources: {requests: {example.com/seat: 2}, limits: {example.com/seat: 2}}
";

/// Running pods make room for one of higher priority, and their Deployment waits for the room to come back.
pub fn preemption(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "preemption")?;
    let node = cluster.node(1);
    let seats = r#"{"status":{"capacity":{"example.com/seat":"2"},"allocatable":{"example.com/seat":"2"}}}"#;
    cluster.kubectl(&["patch", "node", &node, "--subresource=status", "--type=merge", "-p", seats])?;
    scope.apply(RIVALS)?;
    scope.rolled_out("patient")?;
    scope.apply(URGENT)?;
    scope.run("wait pod/urgent --for=condition=Ready --timeout=60s")?;
    ensure!(scope.field("pod urgent", "{.spec.nodeName}")? == node);
    scope.says("get events", &["Preempted", &format!("on node {node}")])?;
    scope.field_becomes("deployment patient", "{.status.unavailableReplicas}", "2")?;
    scope.says("get events", &["FailedScheduling", "Insufficient example.com/seat"])?;
    scope.run("delete pod urgent --wait=false")?;
    scope.field_becomes("deployment patient", "{.status.readyReplicas}", "2")?;
    cluster.kubectl(&["delete", "priorityclass", "e2e-urgent"])?;
    let none = r#"{"status":{"capacity":{"example.com/seat":null},"allocatable":{"example.com/seat":null}}}"#;
    cluster.kubectl(&["patch", "node", &node, "--subresource=status", "--type=merge", "-p", none])?;
    scope.delete()
}

const QUOTA: &str = "
apiVersion: v1
kind: LimitRange
metadata: {name: usual}
spec: {limits: [{type: Container, defaultRequest: {cpu: 10m}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: small}
spec: {hard: {pods: 2, requests.cpu: 1}}
";

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: demo, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent}]
";

/// What a quota denies is told by the Deployment, and comes as soon as the quota allows it.
pub fn quota(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "quota")?;
    scope.apply(QUOTA)?;
    scope.field_becomes("quota small", "{.status.used.pods}", "0")?;
    scope.apply(WEB)?;
    let failure = "{.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
    eventually(Duration::from_secs(30), "the denial is told", || {
        let message = scope.field("deployment web", failure)?;
        let why = "is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2";
        ensure!(message.contains(why), "{message}");
        Ok(())
    })?;
    scope.field_becomes("deployment web", "{.status.readyReplicas}", "2")?;
    ensure!(scope.field("quota small", "{.status.used.requests\\.cpu}")? == "20m");
    scope.run("patch quota small --type=merge -p {\"spec\":{\"hard\":{\"pods\":\"5\"}}}")?;
    scope.field_becomes("deployment web", "{.status.readyReplicas}", "3")?;
    scope.field_becomes("deployment web", failure, "")?;
    scope.run("scale deployment web --replicas=0")?;
    scope.field_becomes("quota small", "{.status.used.pods}", "0")?;
    scope.delete()
}
