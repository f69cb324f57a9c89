//! A StatefulSet of three keeps its names, one pod each, through a rollout, the loss of a node, and its own recreation.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Scope, eventually};

use crate::heal;

/// One pod on each node, and the third node is the one that goes.
const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: web}, ports: [{port: 8080}]}
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
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {matchLabels: {app: web}}
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      containers:
      - name: demo
        image: tug.local/demo:latest
        imagePullPolicy: IfNotPresent
        env: [{name: ROUND, value: '1'}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";

const PODS: &str = "pods -l app=web --sort-by=.metadata.name";
const NAMES: &str = "{.items[*].metadata.name}";
const UIDS: &str = "{.items[*].metadata.uid}";

/// All three are there under their names, and each answers to its own.
fn whole(scope: &Scope<'_>) -> Result<()> {
    scope.run("rollout status statefulset/web --timeout=90s")?;
    ensure!(scope.field(PODS, NAMES)? == "web-0 web-1 web-2");
    for name in ["web-0", "web-1", "web-2"] {
        eventually(Duration::from_secs(20), "it answers to its name", || {
            let said = scope.exec("web-0", &format!("/demo get http://{name}.web:8080/"))?;
            ensure!(said.contains(name), "{name} is answered by {said}");
            Ok(())
        })?;
        let hostname = scope.field(&format!("pod {name}"), "{.spec.hostname}.{.spec.subdomain}")?;
        ensure!(hostname == format!("{name}.web"), "{hostname}");
        let index = scope.field(&format!("pod {name}"), "{.metadata.labels.apps\\.kubernetes\\.io/pod-index}")?;
        ensure!(name.ends_with(&index) && !index.is_empty(), "{name} has index {index:?}");
    }
    Ok(())
}

pub fn of_a_stateful_set(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "identity")?;
    scope.apply(WEB)?;
    whole(&scope)?;
    scope.run("set env statefulset/web ROUND=2")?;
    whole(&scope).context("after a rollout")?;
    scope.run("rollout undo statefulset/web")?;
    whole(&scope).context("after the rollout was undone")?;
    recreation(&scope)?;

    let lost = cluster.node(3);
    let name = scope.field(&format!("{PODS} --field-selector spec.nodeName={lost}"), NAMES)?;
    ensure!(name.starts_with("web-") && !name.contains(' '), "one pod is on {lost}: {name:?}");
    heal::kill_node(&scope, 3, std::slice::from_ref(&name))?;
    let outcome = loss(&scope, &lost, &name);
    // Also after a failure: the scenarios that follow need three nodes.
    cluster.up(3).context("tug up brings the node back")?;
    outcome?;
    cluster.kubectl(&["wait", &format!("node/{lost}"), "--for=condition=Ready", "--timeout=60s"])?;
    let uid = scope.field(&format!("pod {name}"), "{.metadata.uid}")?;
    whole(&scope).context("after the node returned")?;
    ensure!(scope.field(&format!("pod {name}"), "{.metadata.uid}")? == uid, "the pod's successor is left alone");
    scope.delete()
}

/// A set that is deleted without its pods finds them again; deleted with them, it makes new ones of the old names.
fn recreation(scope: &Scope<'_>) -> Result<()> {
    let uids = scope.field(PODS, UIDS)?;
    scope.run("delete statefulset web --cascade=orphan")?;
    scope.field_becomes(PODS, "{.items[*].metadata.ownerReferences}", "")?;
    ensure!(scope.field(PODS, UIDS)? == uids, "orphans live on");
    scope.apply(WEB)?;
    whole(scope).context("after orphaning")?;
    ensure!(scope.field(PODS, UIDS)? == uids, "orphans are adopted as they are");
    scope.run("delete statefulset web")?;
    scope.field_becomes(PODS, NAMES, "")?;
    scope.apply(WEB)?;
    whole(scope).context("after recreation")?;
    let new = scope.field(PODS, UIDS)?;
    ensure!(!new.split(' ').any(|uid| uids.contains(uid)), "new pods: {uids} became {new}");
    Ok(())
}

/// Nobody takes the name of a pod that may still run; once somebody vouches for its end, its successor does.
fn loss(scope: &Scope<'_>, node: &str, name: &str) -> Result<()> {
    let uid = scope.field(&format!("pod {name}"), "{.metadata.uid}")?;
    eventually(heal::NODE_WITHIN, "the pod is evicted", || {
        let deleted = scope.field(&format!("pod {name}"), "{.metadata.deletionTimestamp}")?;
        ensure!(!deleted.is_empty(), "it is not deleted");
        Ok(())
    })?;
    scope.run("scale statefulset/web --replicas=3")?;
    ensure!(scope.field(PODS, NAMES)? == "web-0 web-1 web-2", "no name is taken twice");
    ensure!(scope.field(&format!("pod {name}"), "{.metadata.uid}")? == uid, "it may still run on {node}");
    scope.run(&format!("delete pod {name} --force --grace-period=0"))?;
    eventually(Duration::from_secs(60), "its successor runs elsewhere", || {
        let is = scope.field(&format!("pod {name}"), "{.metadata.uid} {.spec.nodeName} {.status.phase}")?;
        ensure!(!is.contains(&uid) && !is.contains(node) && is.ends_with("Running"), "{is}");
        Ok(())
    })?;
    scope.run("rollout status statefulset/web --timeout=60s").map(|_| ())
}
