//! ReplicaSets and ReplicationControllers by themselves: scaled, updated, adopting, releasing, deleted.

use anyhow::{Result, ensure};
use e2e::{Cluster, Scope};

const TEMPLATE: &str = "
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: demo
        image: tug.local/demo:latest
        imagePullPolicy: IfNotPresent
        env: [{name: ROUND, value: '1'}]
";

const STRAY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: stray, labels: {app: NAME}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: demo, image: 'tug.local/demo:latest', imagePullPolicy: IfNotPresent}]
";

pub fn replica_set(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "replicaset")?;
    let head = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: plain}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: plain}}";
    lives(&scope, &format!("{head}{TEMPLATE}"), "replicaset")?;
    scope.delete()
}

pub fn replication_controller(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "replicationcontroller")?;
    let head = "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: plain}\nspec:\n  replicas: 2\n  selector: {app: plain}";
    lives(&scope, &format!("{head}{TEMPLATE}"), "replicationcontroller")?;
    scope.delete()
}

fn lives(scope: &Scope<'_>, manifest: &str, kind: &str) -> Result<()> {
    let (manifest, stray) = (manifest.replace("NAME", "plain"), STRAY.replace("NAME", "plain"));
    let set = format!("{kind} plain");
    let names = |label: &str| scope.field(&format!("pods -l {label}"), "{.items[*].metadata.name}");
    let owners = "{.metadata.ownerReferences[*].kind}";
    scope.apply(&stray)?;
    scope.apply(&manifest)?;
    scope.field_becomes(&set, "{.status.readyReplicas}", "2")?;
    let owner = scope.field("pod stray", owners)?;
    ensure!(owner.eq_ignore_ascii_case(kind), "a pod that fits is adopted: {owner:?}");
    ensure!(names("app=plain")?.split(' ').count() == 2, "{}", names("app=plain")?);

    scope.run(&format!("scale {kind}/plain --replicas=4"))?;
    scope.field_becomes(&set, "{.status.readyReplicas}", "4")?;
    scope.run("label pod stray app=gone --overwrite")?;
    scope.field_becomes("pod stray", owners, "")?;
    scope.field_becomes(&set, "{.status.readyReplicas}", "4")?;
    ensure!(!names("app=plain")?.contains("stray"), "a pod that no longer fits is released and replaced");

    // a new template is for new pods only
    let rounds = "{.items[*].spec.containers[0].env[0].value}";
    scope.run(&format!("set env {kind}/plain ROUND=2"))?;
    ensure!(scope.field("pods -l app=plain", rounds)? == "1 1 1 1");
    scope.run(&format!("scale {kind}/plain --replicas=0"))?;
    scope.field_becomes(&set, "{.status.replicas}", "0")?;
    scope.run(&format!("scale {kind}/plain --replicas=1"))?;
    scope.field_becomes(&set, "{.status.readyReplicas}", "1")?;
    scope.field_becomes("pods -l app=plain --field-selector status.phase=Running", rounds, "2")?;

    scope.run(&format!("delete {kind} plain --cascade=orphan"))?;
    ensure!(!names("app=plain")?.is_empty(), "orphans live on");
    scope.apply(&manifest)?;
    scope.field_becomes(&set, "{.status.readyReplicas}", "2")?;
    scope.run(&format!("delete {kind} plain --cascade=foreground"))?;
    ensure!(names("app=plain")?.is_empty(), "deletion in the foreground waits for the pods");
    ensure!(names("app=gone")? == "stray", "who was released is nobody's");
    Ok(())
}
