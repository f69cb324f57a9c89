//! Network policies between pods of one node and of several, while connections are open.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::{Cluster, Scope, contains, eventually};

/// How long a change of policy may take to show.
const SOON: Duration = Duration::from_secs(15);
const POD: &str = "
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 1
  containers:
  - name: demo
    image: 'tug.local/demo:latest'
    imagePullPolicy: IfNotPresent
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1, failureThreshold: 2}
";

fn pod(cluster: &Cluster, name: &str, node: u16) -> String {
    POD.replace("NAME", name).replace("NODE", &cluster.node(node))
}

fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, spec: {{podSelector: {{matchLabels: {{app: server}}}}, {spec}}}}}"
    )
}

struct Clients<'a> {
    own: Scope<'a>,
    other: Scope<'a>,
    server: String,
}

impl Clients<'_> {
    fn get(&self, client: &str, path: &str) -> Result<String> {
        let scope = if client == "other" { &self.other } else { &self.own };
        scope.exec(client, &format!("/demo get http://{}:8080{path}", self.server))
    }

    /// Waits until exactly these clients reach the server.
    fn reached_by(&self, what: &str, wanted: &[&str]) -> Result<()> {
        for client in ["near", "far", "other"] {
            eventually(SOON, &format!("{what}: {client}"), || {
                let reached = self.get(client, "/").is_ok();
                ensure!(reached == wanted.contains(&client), "{client} reaches the server: {reached}");
                Ok(())
            })?;
        }
        Ok(())
    }

    fn apply(&self, what: &str, spec: &str, wanted: &[&str]) -> Result<()> {
        self.own.apply(&policy(spec))?;
        self.reached_by(what, wanted)
    }
}

pub fn guards_pods(cluster: &Cluster) -> Result<()> {
    let (own, other) = (Scope::new(cluster, "policy")?, Scope::new(cluster, "policy-other")?);
    own.apply(&[pod(cluster, "server", 1), pod(cluster, "near", 1), pod(cluster, "far", 2)].concat())?;
    other.apply(&pod(cluster, "other", 3))?;
    own.run("wait pods --all --for=condition=Ready --timeout=60s")?;
    other.run("wait pods --all --for=condition=Ready --timeout=60s")?;
    let server = own.field("pod server", "{.status.podIP}")?;
    let clients = Clients { own, other, server };
    ingress(&clients)?;
    egress(&clients)?;
    open_connections(&clients)?;
    // Probes came through all the time: the server was never restarted, and it is ready.
    clients.own.field_becomes("pod server", "{.status.conditions[?(@.type==\"Ready\")].status}", "True")?;
    clients.other.delete()?;
    clients.own.delete()
}

fn ingress(clients: &Clients<'_>) -> Result<()> {
    clients.reached_by("no policy", &["near", "far", "other"])?;
    clients.apply("default deny", "policyTypes: [Ingress]", &[])?;
    clients.apply("by pod", "ingress: [{from: [{podSelector: {matchLabels: {app: far}}}]}]", &["far"])?;
    let namespace = "kubernetes.io/metadata.name: policy-other";
    clients.apply(
        "by namespace",
        &format!("ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{{namespace}}}}}}}]}}]"),
        &["other"],
    )?;
    clients.apply(
        "by namespace and pod",
        &format!(
            "ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{{namespace}}}}}, podSelector: {{matchLabels: {{app: near}}}}}}]}}]"
        ),
        &[],
    )?;
    let near = clients.own.field("pod near", "{.status.podIP}")?;
    clients.apply(
        "by block, with an exception",
        &format!("ingress: [{{from: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [{near}/32]}}}}]}}]"),
        &["far", "other"],
    )?;
    clients.apply("by a port's name", "ingress: [{ports: [{port: http}]}]", &["near", "far", "other"])?;
    clients.apply("by another port", "ingress: [{ports: [{port: 8081}]}]", &[])?;
    clients.apply("by a range", "ingress: [{ports: [{port: 8000, endPort: 8100}]}]", &["near", "far", "other"])?;
    clients.apply("by another protocol", "ingress: [{ports: [{port: 8080, protocol: UDP}]}]", &[])?;
    clients.own.run("delete networkpolicy p").map(drop)?;
    clients.reached_by("the policy is gone", &["near", "far", "other"])
}

fn egress(clients: &Clients<'_>) -> Result<()> {
    let from_near = |spec: &str| policy(spec).replacen("app: server", "app: near", 1);
    let resolves = |wanted: bool| {
        eventually(SOON, "names", || {
            let found = clients.own.exec("near", "/demo lookup kubernetes.default").is_ok();
            ensure!(found == wanted, "names resolve: {found}");
            Ok(())
        })
    };
    clients.own.apply(&from_near("policyTypes: [Egress]"))?;
    clients.reached_by("nothing may leave", &["far", "other"])?;
    resolves(false)?;
    let dns = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}";
    clients.own.apply(&from_near(&format!("policyTypes: [Egress], egress: [{dns}]")))?;
    resolves(true)?;
    clients.reached_by("only names", &["far", "other"])?;
    let server = "{to: [{podSelector: {matchLabels: {app: server}}}], ports: [{port: http}]}";
    clients.own.apply(&from_near(&format!("policyTypes: [Egress], egress: [{dns}, {server}]")))?;
    clients.reached_by("names and the server", &["near", "far", "other"])?;
    clients.own.run("delete networkpolicy p").map(drop)
}

/// A request that waits for its answer does not get it when a policy comes between.
fn open_connections(clients: &Clients<'_>) -> Result<()> {
    let mut waiting =
        clients.own.command(&format!("exec near -- /demo get http://{}:8080/delay?ms=20000", clients.server));
    let mut waiting = waiting.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
    eventually(SOON, "an open connection", || {
        let open = clients.own.processes("near")?.len();
        ensure!(open > 1, "{open} processes");
        Ok(())
    })?;
    // The request itself must be on its way: one that is sent later would be a new connection.
    contains(&clients.get("near", "/")?, &["Tug"])?;
    let begin = Instant::now();
    clients.own.apply(&policy("policyTypes: [Ingress]"))?;
    clients.reached_by("default deny", &[])?;
    // The server learns of the end when it answers; the client hears nothing more.
    let mut ended = None;
    while ended.is_none() && begin.elapsed() < Duration::from_secs(25) {
        ended = waiting.try_wait()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    waiting.kill()?;
    waiting.wait()?;
    ensure!(!ended.is_some_and(|code| code.success()), "the answer came through a policy that forbids it");
    clients.own.run("delete networkpolicy p").map(drop)
}
