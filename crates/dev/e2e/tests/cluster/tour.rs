//! The first hour of a user: objects, rollouts and nodes with kubectl.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Scope, contains, eventually};
use std::time::Duration;

const DEMO: &str = include_str!("../../../../../examples/demo.yaml");
const SETTINGS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: open sesame}
";

pub fn objects(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "objects")?;
    contains(&scope.apply(DEMO)?, &["deployment.apps/demo created", "service/demo created"])?;
    contains(&scope.apply(SETTINGS)?, &["configmap/settings created", "secret/password created"])?;
    scope.rolled_out("demo")?;
    contains(&scope.apply(DEMO)?, &["deployment.apps/demo unchanged", "service/demo unchanged"])?;

    scope.says("get deployment,replicaset,service,configmap,secret", &["3/3", "service/demo", "password", "Opaque"])?;
    scope.says("get pods -o wide", &["1/1", "Running", &cluster.node(1), "READINESS GATES"])?;
    scope
        .says("describe deployment demo", &["RollingUpdate", "3 available", "ScalingReplicaSet", "MinimumReplicas"])?;
    scope
        .says(
            "describe pods",
            &["Started container demo", "tug.local/demo:latest", "Successfully assigned", "BestEffort"],
        )
        .or_else(|_| scope.says("describe pods", &["Started", "tug.local/demo:latest", "Successfully assigned"]))?;
    scope.says("describe service demo", &["Endpoints:", ":8080", "ClusterIP"])?;
    scope.says("describe secret password", &["password:  11 bytes"])?;
    scope.says("describe node", &["Ready", "Allocated resources", "PodCIDR"])?;
    eventually(Duration::from_secs(10), "events", || {
        scope.says("events", &["ScalingReplicaSet", "Scheduled", "Started"])?;
        scope.says("get events --field-selector reason=Scheduled", &["Successfully assigned"])
    })?;

    scope.run("label pods --all tier=front")?;
    scope.says("get pods -l tier=front,app=demo -o name", &["pod/demo-"])?;
    ensure!(scope.args(&["get", "pods", "-l", "tier in (back), app"])?.is_empty());
    scope.run("annotate configmap settings note=read")?;
    ensure!(scope.field("configmap settings", "{.metadata.annotations.note}")? == "read");
    scope.run("patch configmap settings --type merge -p {\"data\":{\"size\":\"7\"}}")?;
    ensure!(scope.field("configmap settings", "{.data}")? == r#"{"colour":"blue","size":"7"}"#);
    let edited = scope.command("edit configmap settings").env("KUBE_EDITOR", "sed -i s/blue/green/").output()?;
    ensure!(edited.status.success(), "edit: {}", String::from_utf8_lossy(&edited.stderr));
    ensure!(scope.field("configmap settings", "{.data.colour}")? == "green");
    difference(&scope)?;
    questions(&scope)?;

    scope.run("delete service demo")?;
    scope.run("delete deployment demo --wait=false")?;
    scope.run("wait --for=delete pods -l app=demo --timeout=60s")?;
    scope.fails("get deployment demo", &["deployments.apps \"demo\" not found"])?;
    scope.delete()
}

fn difference(scope: &Scope<'_>) -> Result<()> {
    let diff = |manifest: &str| -> Result<(Option<i32>, String)> {
        let mut command = scope.command("diff -f -");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("no input")?, manifest.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let same = diff(DEMO)?;
    ensure!(same == (Some(0), String::new()), "{same:?}");
    let (code, text) = diff(&DEMO.replace("replicas: 3", "replicas: 2"))?;
    ensure!(code == Some(1), "diff ended with {code:?}: {text}");
    contains(&text, &["-  replicas: 3", "+  replicas: 2"])
}

/// What the cluster says about itself and about a user.
fn questions(scope: &Scope<'_>) -> Result<()> {
    scope.says("explain deployment.spec.strategy.rollingUpdate", &["maxSurge", "maxUnavailable", "IntOrString"])?;
    scope.says("api-resources", &["deployments", "deploy", "apps/v1", "networkpolicies"])?;
    scope.says("api-versions", &["batch/v1", "rbac.authorization.k8s.io/v1"])?;
    scope.says("cluster-info", &["control plane"])?;
    scope.says("version", &["Server Version: v1.36"])?;
    scope.says("auth can-i create deployments", &["yes"])?;
    scope.says("auth whoami", &["system:masters"])?;
    let account = format!("system:serviceaccount:{}:default", scope.namespace);
    let refused = scope.command(&format!("auth can-i list secrets --as {account}")).output()?;
    ensure!(refused.status.code() == Some(1) && refused.stdout.starts_with(b"no"), "{refused:?}");
    let token = scope.run("create token default")?;
    let server = scope.args(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let words = format!("--server {server} --insecure-skip-tls-verify --token {}", token.trim());
    let whoami = scope.command(&format!("auth whoami {words}")).env("KUBECONFIG", "/dev/null").output()?;
    contains(&String::from_utf8_lossy(&whoami.stdout), &[&account])?;
    let get = scope.command(&format!("get secrets {words}")).env("KUBECONFIG", "/dev/null").output()?;
    contains(&String::from_utf8_lossy(&get.stderr), &["Forbidden", &account])
}

pub fn rollouts(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "rollouts")?;
    scope.apply(DEMO)?;
    contains(&scope.rolled_out("demo")?, &["successfully rolled out"])?;
    let revision = "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}";

    scope.run("set image deployment/demo demo=tug.local/demo:missing")?;
    scope.run("annotate deployment demo kubernetes.io/change-cause=missing-image")?;
    eventually(Duration::from_secs(30), "the pull fails", || {
        scope.says("get pods", &["Running"])?;
        scope
            .run("get pods")
            .and_then(|text| contains(&text, &["ErrImage"]).or_else(|_| contains(&text, &["ImagePull"])))
    })?;
    ensure!(scope.field("deployment demo", "{.status.availableReplicas}")? == "3", "the old pods go on");
    scope.says("rollout history deployment/demo", &["1 ", "2 ", "missing-image"])?;
    scope.says("rollout history deployment/demo --revision 2", &["tug.local/demo:missing"])?;
    scope.says("rollout undo deployment/demo", &["rolled back"])?;
    scope.rolled_out("demo")?;
    ensure!(scope.field("deployment demo", revision)? == "3");

    scope.run("rollout pause deployment/demo")?;
    scope.run("set env deployment/demo GREETING=hello")?;
    scope.run("set resources deployment/demo --requests=cpu=5m")?;
    scope.fails("rollout restart deployment/demo", &["paused"])?;
    scope.field_becomes(
        "deployment demo",
        "{.status.conditions[?(@.type==\"Progressing\")].reason}",
        "DeploymentPaused",
    )?;
    scope.field_becomes("deployment demo", "{.status.updatedReplicas}", "")?;
    scope.run("rollout resume deployment/demo")?;
    scope.rolled_out("demo")?;
    ensure!(scope.field("deployment demo", revision)? == "4", "both changes are one revision");

    scope.run("rollout restart deployment/demo")?;
    scope.rolled_out("demo")?;
    scope.run("rollout undo deployment/demo --to-revision 4")?;
    scope.rolled_out("demo")?;
    ensure!(scope.field("deployment demo", revision)? == "6");
    scope.run("scale deployment/demo --replicas 5")?;
    scope.run("wait deployment/demo --for jsonpath={.status.readyReplicas}=5 --timeout=60s")?;
    scope.fails("scale deployment/demo --current-replicas 2 --replicas 1", &["5"])?;
    scope.run("scale deployment/demo --replicas 0")?;
    scope.run("wait --for=delete pods -l app=demo --timeout=60s")?;
    scope.delete()
}

pub fn nodes(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "nodes")?;
    let node = cluster.node(3);
    scope.apply(&DEMO.replace("replicas: 3", "replicas: 6"))?;
    scope.rolled_out("demo")?;
    let here = |scope: &Scope<'_>| scope.run(&format!("get pods -o name --field-selector spec.nodeName={node}"));
    ensure!(!here(&scope)?.is_empty(), "pods are spread over all nodes");

    scope.run(&format!("cordon {node}"))?;
    scope.says(&format!("get node {node}"), &["Ready,SchedulingDisabled"])?;
    let drained =
        scope.run(&format!("drain {node} --ignore-daemonsets --delete-emptydir-data --force --timeout=90s"))?;
    contains(&drained, &["evicted", "drained"])?;
    ensure!(here(&scope)?.is_empty(), "a drained node has no pods");
    scope.rolled_out("demo")?;
    ensure!(here(&scope)?.is_empty(), "a cordoned node gets no pods");
    scope.run(&format!("uncordon {node}"))?;
    scope.run("scale deployment/demo --replicas 9")?;
    scope.run("wait deployment/demo --for jsonpath={.status.readyReplicas}=9 --timeout=60s")?;
    ensure!(!here(&scope)?.is_empty(), "an uncordoned node gets pods");

    scope.run(&format!("taint node {node} only=this:NoSchedule"))?;
    scope.run(&format!("label node {node} disk=fast"))?;
    scope.apply(&format!("{WANTS_FAST}{TOLERATES}"))?;
    scope.run("wait pod/tolerates --for=condition=Ready --timeout=30s")?;
    eventually(Duration::from_secs(10), "FailedScheduling", || {
        scope.says("events --for pod/wants-fast", &["FailedScheduling", "0/3 nodes are available", "untolerated taint"])
    })?;
    scope.run(&format!("taint node {node} only-"))?;
    scope.run("wait pod/wants-fast --for=condition=Ready --timeout=30s")?;
    ensure!(scope.field("pod wants-fast", "{.spec.nodeName}")? == node);
    scope.run(&format!("label node {node} disk-"))?;
    scope.delete()
}

const WANTS_FAST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: wants-fast}
spec:
  nodeSelector: {disk: fast}
  containers: [{name: demo, image: 'tug.local/demo:latest', imagePullPolicy: IfNotPresent}]
---";
const TOLERATES: &str = "
apiVersion: v1
kind: Pod
metadata: {name: tolerates}
spec:
  nodeSelector: {disk: fast}
  tolerations: [{key: only, operator: Equal, value: this, effect: NoSchedule}]
  containers: [{name: demo, image: 'tug.local/demo:latest', imagePullPolicy: IfNotPresent}]
";
