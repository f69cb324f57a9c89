//! Rolling updates, scaling and drains under load lose no request, whatever way the requests come.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Cluster, Load, Outcome, Scope, eventually};

const DEMO: &str = include_str!("../../../../../examples/demo.yaml");
/// What makes the demo application's Service reachable through node ports and every node's port 80.
const DOORS: &str = "
apiVersion: v1
kind: Service
metadata: {name: demo}
spec: {type: NodePort, selector: {app: demo}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: demo}
spec: {defaultBackend: {service: {name: demo, port: {name: http}}}}
";
/// Longest wait for one answer, connection included.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Requests a second, a third of them each way; the acceptance run asks for 2,000 (`TUG_E2E_REQUESTS=2000`).
const PER_SECOND: u32 = 600;
/// Enough to meet the races; the acceptance run does twenty (`TUG_E2E_ROLLOUTS=20`), and a drain after every fourth.
const ROLLOUTS: u32 = 4;
const ROLLOUTS_PER_DRAIN: u32 = 4;

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The ways to a Service from outside of the pods; node ports and the ingress of each of `nodes`.
pub fn ways(scope: &Scope<'_>, nodes: &[String]) -> Result<[(&'static str, Vec<SocketAddr>); 3]> {
    let port: u16 = scope.field("service demo", "{.spec.ports[0].nodePort}")?.parse().context("no node port")?;
    let on_nodes = |port: u16| -> Result<Vec<SocketAddr>> {
        nodes.iter().map(|node| Ok(SocketAddr::new(node.parse()?, port))).collect()
    };
    let cluster_ip = scope.cluster.service(scope.namespace, "demo")?.parse()?;
    Ok([("cluster IP", vec![cluster_ip]), ("node ports", on_nodes(port)?), ("ingress", on_nodes(80)?)])
}

/// Makes the demo application and its doors, and waits until all of them are open.
pub fn open_doors(scope: &Scope<'_>, nodes: &[String]) -> Result<[(&'static str, Vec<SocketAddr>); 3]> {
    scope.apply(DOORS)?;
    let ways = ways(scope, nodes)?;
    for address in ways.iter().flat_map(|(_, addresses)| addresses) {
        eventually(Duration::from_secs(20), &format!("{address} answers"), || {
            Load::once(*address, Duration::from_secs(1)).context("no answer")
        })?;
    }
    Ok(ways)
}

pub fn loses_no_request(cluster: &Cluster) -> Result<()> {
    let (rollouts, per_second) = (number("TUG_E2E_ROLLOUTS", ROLLOUTS), number("TUG_E2E_REQUESTS", PER_SECOND) / 3);
    let scope = Scope::new(cluster, "rollout")?;
    scope.apply(DEMO)?;
    scope.rolled_out("demo")?;
    let nodes = scope.field("nodes", "{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}")?;
    let ways = open_doors(&scope, &nodes.split_whitespace().map(str::to_owned).collect::<Vec<_>>())?;
    let loads = ways.map(|(way, addresses)| (way, Load::start_over(addresses, per_second, ANSWER_WITHIN)));
    let changed = changes(&scope, rollouts);
    let outcomes = loads.map(|(way, load)| (way, load.stop()));
    let drains = changed?;
    println!("{rollouts} rollouts and {drains} drains");
    for (way, outcome) in &outcomes {
        println!("  {way}: {outcome}");
    }
    // A machine may carry less than is asked of it, and says so above.
    let at_least = per_second.min(PER_SECOND / 3);
    let check = |(way, outcome): &(&str, Outcome)| outcome.lost_nothing(at_least).with_context(|| (*way).to_owned());
    outcomes.iter().try_for_each(check)?;
    // It answers whatever host is asked for, which the scenarios that follow do not expect.
    scope.run("delete ingress demo")?;
    scope.delete()
}

/// Rollouts, drains and scaling; answers how many drains there were.
fn changes(scope: &Scope<'_>, rollouts: u32) -> Result<u32> {
    let mut drains = 0;
    for round in 1..=rollouts {
        scope.run(&format!("set env deployment/demo ROUND={round}"))?;
        scope.rolled_out("demo")?;
        if round % ROLLOUTS_PER_DRAIN == 0 {
            drain(scope)?;
            drains += 1;
        }
    }
    for replicas in [6, 2] {
        scope.run(&format!("scale deployment/demo --replicas={replicas}"))?;
        scope.rolled_out("demo")?;
    }
    Ok(drains)
}

fn drain(scope: &Scope<'_>) -> Result<()> {
    let node = scope.field("pods -l app=demo", "{.items[0].spec.nodeName}")?;
    let words = format!("drain {node} --ignore-daemonsets --force --delete-emptydir-data --timeout=60s");
    let drained = scope.run(&words).and_then(|_| scope.rolled_out("demo"));
    scope.run(&format!("uncordon {node}"))?;
    drained.map(drop)
}
