//! Services and names, from pods on every node and from the machine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Scope, contains, eventually};

const DEMO: &str = include_str!("../../../../../examples/demo.yaml");
const ACCESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: NodePort, selector: {app: demo}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {role: client}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: kubernetes.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
";
const CLIENT: &str = "
---
apiVersion: v1
kind: Pod
metadata: {name: client-INDEX, labels: {role: client}}
spec:
  nodeName: NODE
  hostname: host-INDEX
  subdomain: headless
  containers: [{name: demo, image: 'tug.local/demo:latest', imagePullPolicy: IfNotPresent}]
";

pub fn services_and_names(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "network")?;
    let client = |index: u16| CLIENT.replace("INDEX", &index.to_string()).replace("NODE", &cluster.node(index));
    scope.apply(&format!("{DEMO}---{ACCESS}{}", (1..=3).map(client).collect::<String>()))?;
    scope.rolled_out("demo")?;
    scope.run("wait pods -l role=client --for=condition=Ready --timeout=60s")?;
    names(&scope)?;
    services(&scope)?;
    scope.delete()
}

fn lookup(scope: &Scope<'_>, pod: &str, name: &str) -> Result<Vec<String>> {
    let text = scope.exec(pod, &format!("/demo lookup {name}"))?;
    let mut addresses: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn names(scope: &Scope<'_>) -> Result<()> {
    let address = scope.field("service demo", "{.spec.clusterIP}")?;
    let kubernetes = scope.field("service kubernetes --namespace default", "{.spec.clusterIP}")?;
    let mut clients: Vec<String> =
        (1..=3).map(|index| scope.field(&format!("pod client-{index}"), "{.status.podIP}")).collect::<Result<_>>()?;
    let second = clients[1].clone();
    clients.sort();
    for index in 1..=3 {
        let pod = format!("client-{index}");
        let expect = |name: &str, wanted: &[String]| {
            eventually(Duration::from_secs(10), &format!("{name} from {pod}"), || {
                let found = lookup(scope, &pod, name)?;
                ensure!(found == wanted, "{found:?} instead of {wanted:?}");
                Ok(())
            })
        };
        for name in ["demo", "demo.network", "demo.network.svc", "demo.network.svc.cluster.local."] {
            expect(name, std::slice::from_ref(&address))?;
        }
        expect("kubernetes.default", std::slice::from_ref(&kubernetes))?;
        expect("headless", &clients)?;
        expect("host-2.headless", std::slice::from_ref(&second))?;
        expect("alias", std::slice::from_ref(&kubernetes))?;
        expect(&format!("{}.network.pod.cluster.local", second.replace('.', "-")), std::slice::from_ref(&second))?;
        ensure!(
            lookup(scope, &pod, "nobody.network.svc.cluster.local").is_err(),
            "a name that is not there is an error"
        );
    }
    Ok(())
}

fn services(scope: &Scope<'_>) -> Result<()> {
    let port = scope.field("service outside", "{.spec.ports[0].nodePort}")?;
    let nodes = scope.field("nodes", "{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}")?;
    let mut urls: Vec<String> = nodes.split_whitespace().map(|node| format!("http://{node}:{port}/")).collect();
    ensure!(urls.len() == 3, "{nodes:?}");
    urls.push("http://demo/".to_owned());
    urls.push(format!("http://{}/", scope.cluster.service("network", "demo")?));
    urls.push(format!("http://{}:8080/", scope.field("pod client-2", "{.status.podIP}")?));
    for index in 1..=3 {
        for url in &urls {
            let pod = format!("client-{index}");
            eventually(Duration::from_secs(10), &format!("{url} from {pod}"), || {
                contains(&scope.exec(&pod, &format!("/demo get {url}"))?, &["says hello from Tug"])
            })?;
        }
    }
    for url in urls.iter().filter(|url| !url.contains("//demo/")) {
        eventually(Duration::from_secs(10), &format!("{url} from the machine"), || {
            let answer = machine::programs::run("curl", &["-sS", "--max-time", "2", url])
                .with_context(|| format!("asking {url}"))?;
            contains(&answer, &["says hello from Tug"])
        })?;
    }
    let refused = scope.exec("client-1", "/demo get http://empty/");
    ensure!(refused.is_err(), "a Service without endpoints refuses");
    Ok(())
}
