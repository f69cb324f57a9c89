//! The features of Services beyond a plain cluster IP, from pods on every node and from the machine.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Cluster, Scope, eventually};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const PODS: &str = "
---
apiVersion: v1
kind: Pod
metadata: {name: web-INDEX, labels: {app: web, number: 'INDEX'}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 1
  containers:
  - {name: demo, image: 'tug.local/demo:latest', imagePullPolicy: IfNotPresent, ports: [{name: http, containerPort: 8080}]}
";
const SERVICES: &str = "
---
{apiVersion: v1, kind: Service, metadata: {name: sticky}, spec: {selector: {app: web}, sessionAffinity: ClientIP,
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}, ports: [{port: 80, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: internal}, spec: {selector: {app: web}, internalTrafficPolicy: Local,
  ports: [{port: 80, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: outside}, spec: {selector: {number: '2'}, type: LoadBalancer,
  externalTrafficPolicy: Local, ports: [{port: 7080, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: balanced}, spec: {selector: {app: web}, type: LoadBalancer,
  externalIPs: [192.0.2.80], ports: [{port: 7081, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: second}, spec: {selector: {app: web}, type: LoadBalancer,
  ports: [{port: 7081, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: single}, spec: {selector: {number: '1'}, ports: [{port: 80, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: returned}, spec: {selector: {number: '2'}, type: NodePort,
  ports: [{port: 80, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: near}, spec: {selector: {app: web}, trafficDistribution: PreferSameNode,
  ports: [{port: 80, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: made}, spec: {ports: [{name: http, port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: mirrored}, spec: {ports: [{port: 80, targetPort: 8080}]}}
";

pub fn features(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "services")?;
    let pod = |index: u16| PODS.replace("INDEX", &index.to_string()).replace("NODE", &cluster.node(index));
    scope.apply(&format!("{}{SERVICES}", (1..=3).map(pod).collect::<String>()))?;
    scope.run("wait pods --all --for=condition=Ready --timeout=60s")?;
    let address = scope.field("pod web-2", "{.status.podIP}")?;
    scope.apply(&format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: made-1, labels: {{kubernetes.io/service-name: made}}}},
           addressType: IPv4, ports: [{{name: http, port: 8080}}], endpoints: [{{addresses: [{address}]}}]}}
---
{{apiVersion: v1, kind: Endpoints, metadata: {{name: mirrored}}, subsets: [{{addresses: [{{ip: {address}}}], ports: [{{port: 8080}}]}}]}}"
    ))?;
    inside(&scope)?;
    outside(&scope)?;
    zones(&scope)?;
    further_range(&scope)?;
    scope.delete()
}

/// With a zone for each node, every zone keeps its own endpoint.
fn zones(scope: &Scope<'_>) -> Result<()> {
    let nodes: Vec<String> = (1..=3).map(|index| scope.cluster.node(index)).collect();
    for (index, node) in nodes.iter().enumerate() {
        scope.run(&format!("label node {node} topology.kubernetes.io/zone=z{index}"))?;
    }
    scope.run("create service clusterip spread --tcp=80:8080")?;
    scope.run("annotate service spread service.kubernetes.io/topology-mode=Auto")?;
    scope.run("set selector service spread app=web")?;
    for pod in ["web-1", "web-2", "web-3"] {
        expect(scope, pod, "http://spread/", &|found| found == [pod.to_owned()])?;
    }
    scope.run(&format!("label node {} topology.kubernetes.io/zone-", nodes.join(" "))).map(drop)
}

/// A range beside the cluster's own serves, and stays as long as a Service needs it.
fn further_range(scope: &Scope<'_>) -> Result<()> {
    scope.field_becomes("servicecidr kubernetes", "{.status.conditions[?(@.type=='Ready')].status}", "True")?;
    scope.apply(
        "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: more}, spec: {cidrs: [10.251.7.0/24]}}",
    )?;
    scope.field_becomes("servicecidr more", "{.status.conditions[?(@.type=='Ready')].status}", "True")?;
    scope.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: there}, spec: {clusterIP: 10.251.7.9, selector: {number: '3'},
          ports: [{port: 80, targetPort: http}]}}",
    )?;
    expect(scope, "web-1", "http://there/", &|found| found == ["web-3"])?;
    scope.run("delete servicecidr more --wait=false")?;
    scope.field_becomes("servicecidr more", "{.status.conditions[?(@.type=='Ready')].reason}", "Terminating")?;
    scope.run("delete service there")?;
    scope.run("wait servicecidr/more --for=delete --timeout=30s").map(drop)
}

/// Which pods answer in eight requests.
fn answers(scope: &Scope<'_>, from: &str, url: &str) -> Result<Vec<String>> {
    let mut all = vec![];
    for _ in 0..8 {
        let text = scope.exec(from, &format!("/demo get {url}"))?;
        all.extend(text.split_whitespace().next().map(str::to_owned));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

fn expect(scope: &Scope<'_>, from: &str, url: &str, wanted: &dyn Fn(&[String]) -> bool) -> Result<()> {
    eventually(SOON, &format!("{url} from {from}"), || {
        let found = answers(scope, from, url)?;
        ensure!(wanted(&found), "answered by {found:?}");
        Ok(())
    })
}

fn inside(scope: &Scope<'_>) -> Result<()> {
    for index in 1..=3 {
        let pod = format!("web-{index}");
        let only = |name: &str| {
            let name = name.to_owned();
            move |found: &[String]| found == [name.clone()]
        };
        expect(scope, &pod, "http://sticky/", &|found| found.len() == 1)?;
        expect(scope, &pod, "http://internal/", &only(&pod))?;
        expect(scope, &pod, "http://near/", &only(&pod))?;
        expect(scope, &pod, "http://single/", &only("web-1"))?;
        expect(scope, &pod, "http://made/", &only("web-2"))?;
        expect(scope, &pod, "http://mirrored/", &only("web-2"))?;
        // Eight requests leave one of three pods out with a chance of one in eight: the wait tries again.
        expect(scope, &pod, "http://192.0.2.80:7081/", &|found| found.len() == 3)?;
    }
    Ok(())
}

fn outside(scope: &Scope<'_>) -> Result<()> {
    let ips = |name: &str| -> Result<Vec<String>> {
        let service: Value = scope.get(&format!("service {name}"))?;
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        Ok(ingress.iter().filter_map(|one| one["ip"].as_str().map(str::to_owned)).collect())
    };
    let becomes = |name: &str, count: usize| {
        eventually(SOON, &format!("addresses of {name}"), || {
            let found = ips(name)?;
            ensure!(found.len() == count, "{found:?}");
            Ok(found)
        })
    };
    // All nodes, and the one with the endpoint where traffic may not travel on.
    let (all, one) = (becomes("balanced", 3)?, becomes("outside", 1)?);
    let curl =
        |url: &str| machine::programs::run("curl", &["-sS", "--max-time", "2", url]).map_err(anyhow::Error::from);
    for ip in &all {
        eventually(SOON, &format!("balanced at {ip}"), || curl(&format!("http://{ip}:7081/")).map(drop))?;
    }
    // To a pod that asks, by way of any node.
    let port = scope.field("service returned", "{.spec.ports[0].nodePort}")?;
    for ip in &all {
        let text = scope.exec("web-2", &format!("/demo get http://{ip}:{port}/"))?;
        ensure!(text.starts_with("web-2 "), "by way of {ip}: {text}");
    }
    eventually(SOON, "outside", || {
        let text = curl(&format!("http://{}:7080/", one[0]))?;
        ensure!(text.starts_with("web-2 "), "{text}");
        Ok(())
    })?;
    let port = scope.field("service outside", "{.spec.healthCheckNodePort}")?;
    for ip in &all {
        let wanted = usize::from(*ip == one[0]);
        eventually(SOON, &format!("health of {ip}"), || {
            let answer: Value = serde_json::from_str(&curl(&format!("http://{ip}:{port}/healthz"))?)?;
            ensure!(answer["localEndpoints"] == wanted, "{answer}");
            Ok(())
        })?;
    }
    // The port is the first Service's as long as it lives.
    eventually(SOON, "the second Service's complaint", || {
        let events =
            scope.run("get events --field-selector involvedObject.name=second -o jsonpath={.items[*].message}")?;
        ensure!(events.contains("belongs to service services/balanced"), "{events}");
        Ok(())
    })?;
    scope
        .run("patch service balanced --type=merge -p {\"spec\":{\"loadBalancerSourceRanges\":[\"203.0.113.0/24\"]}}")?;
    eventually(SOON, "a client out of range", || {
        ensure!(curl(&format!("http://{}:7081/", all[0])).is_err(), "served all the same");
        Ok(())
    })?;
    scope.run("delete service balanced")?;
    becomes("second", 3).map(drop)
}
