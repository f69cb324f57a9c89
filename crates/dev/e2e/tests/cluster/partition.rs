//! A node that is cut off and comes back leaves nothing stale: routes, rules, flows and addresses are those of the pods that live.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Load, Scope, eventually};
use machine::processes::Process;
use machine::programs::run;
use serde_json::Value;

use crate::heal::{DEMO, is_missed, pod_names};

const NODES: u16 = 3;
const CUT: u16 = 3;
/// Within which a node that is back is as if it had never been away.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// Enough flows that some lead to the node that is cut off.
const FLOWS: usize = 12;
const DATAGRAMS: &str = "
apiVersion: v1
kind: Service
metadata: {name: datagrams}
spec: {selector: {app: demo}, ports: [{port: 9, targetPort: 9, protocol: UDP}]}
";

pub fn heals(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "partition")?;
    scope.apply(&format!("{DEMO}---{DATAGRAMS}"))?;
    scope.rolled_out("demo")?;
    let nodes = (1..=NODES).map(|index| Node::of(cluster, index)).collect::<Result<Vec<_>>>()?;
    let before = nodes.iter().map(Node::routes).collect::<Result<Vec<_>>>()?;
    let flows = Flows::to(&cluster.service(scope.namespace, "datagrams")?)?;
    let (lost, on_it) = (cluster.node(CUT), pod_names(&scope, Some(&cluster.node(CUT)))?);
    ensure!(!on_it.is_empty(), "pods are spread over all nodes");
    let gone: BTreeSet<Ipv4Addr> = addresses(&scope, &lost)?;
    eventually(Duration::from_secs(10), "flows lead to every node", || {
        flows.send()?;
        let text = nodes[0].flows()?;
        ensure!(gone.iter().any(|address| mentions(&text, *address)), "none leads to {gone:?}");
        Ok(())
    })?;

    let cut = Cut::off(cluster)?;
    let outcome = while_cut(&scope, &lost);
    drop(cut);
    outcome?;

    cluster.kubectl(&["wait", &format!("node/{lost}"), "--for=condition=Ready", "--timeout=60s"])?;
    eventually(HEALED_WITHIN, "the pods that were replaced are gone", || {
        let now = pod_names(&scope, None)?;
        ensure!(now.len() == 6 && on_it.iter().all(|pod| !now.contains(pod)), "{now:?}");
        Ok(())
    })?;
    eventually(HEALED_WITHIN, "nothing stale is left", || {
        flows.send()?;
        let live = addresses(&scope, "")?;
        let dead: Vec<_> = gone.difference(&live).collect();
        for (node, before) in nodes.iter().zip(&before) {
            node.is_clean(before, &live, &dead)?;
        }
        Ok(())
    })?;
    let load = Load::start(cluster.service(scope.namespace, "demo")?.parse()?, 100);
    scope.run("scale deployment demo --replicas=9")?;
    scope.rolled_out("demo")?;
    let outcome = load.stop();
    ensure!(outcome.failed == 0 && outcome.answered > 0, "the healed cluster answers: {outcome:?}");
    scope.delete()
}

fn while_cut(scope: &Scope<'_>, lost: &str) -> Result<()> {
    is_missed(scope, lost)?;
    scope.field_becomes("deployment demo", "{.status.readyReplicas}", "6")?;
    let load = Load::start(scope.cluster.service(scope.namespace, "demo")?.parse()?, 100);
    std::thread::sleep(Duration::from_secs(2));
    let outcome = load.stop();
    ensure!(outcome.failed == 0 && outcome.answered > 0, "the Service answers on this side: {outcome:?}");
    Ok(())
}

/// Addresses of the demo's pods, of one node where it is named.
fn addresses(scope: &Scope<'_>, node: &str) -> Result<BTreeSet<Ipv4Addr>> {
    let pods = scope.get("pods -l app=demo")?;
    let pods = pods["items"].as_array().context("no list")?.iter();
    let there = pods.filter(|pod| node.is_empty() || pod["spec"]["nodeName"] == node);
    Ok(there.filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok()).collect())
}

/// Whether a text has this address as a word.
fn mentions(text: &str, address: Ipv4Addr) -> bool {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').any(|word| word == address.to_string())
}

/// A node's view of the network.
struct Node {
    name: String,
    /// A process in its network namespace.
    pid: String,
}

impl Node {
    fn of(cluster: &Cluster, index: u16) -> Result<Self> {
        let pid = match index {
            1 => std::process::id().to_string(),
            _ => agent(cluster, index)?.pid.to_string(),
        };
        Ok(Self { name: cluster.node(index), pid })
    }

    fn run(&self, words: &str) -> Result<String> {
        let command = ["-t", &self.pid, "-n"].into_iter().chain(words.split_whitespace()).collect::<Vec<_>>();
        run("nsenter", &command).with_context(|| self.name.clone())
    }

    /// A bridge without pods is `linkdown`, which says nothing about routes.
    fn routes(&self) -> Result<BTreeSet<String>> {
        let text = self.run("ip -4 route")?;
        Ok(text.lines().map(|line| line.replace("linkdown", "").trim().to_owned()).collect())
    }

    fn flows(&self) -> Result<String> {
        self.run("conntrack -L -p udp")
    }

    /// Routes as before; rules that know all pods that live and none that do not; no flow to one that does not.
    fn is_clean(&self, before: &BTreeSet<String>, live: &BTreeSet<Ipv4Addr>, dead: &[&Ipv4Addr]) -> Result<()> {
        let routes = self.routes()?;
        ensure!(routes == *before, "routes of {} were {before:#?} and are {routes:#?}", self.name);
        let rules = self.run("nft list ruleset")?;
        for address in live {
            ensure!(mentions(&rules, *address), "the rules of {} do not know {address}", self.name);
        }
        let flows = self.flows()?;
        for address in dead {
            ensure!(!mentions(&rules, **address), "the rules of {} still know {address}", self.name);
            ensure!(!mentions(&flows, **address), "a flow of {} still leads to {address}", self.name);
        }
        Ok(())
    }
}

fn agent(cluster: &Cluster, index: u16) -> Result<Process> {
    let file = cluster.node_dir(index).join("agent.pid");
    Process::read(&file).with_context(|| format!("node {index} has no agent"))
}

/// A switch port that carries nothing until it is dropped; neither end's link goes down.
struct Cut {
    port: String,
    bridge: String,
}

impl Cut {
    fn off(cluster: &Cluster) -> Result<Self> {
        let pid = agent(cluster, CUT)?.pid.to_string();
        let text = run("nsenter", &["-t", &pid, "-n", "ip", "-j", "link", "show", "eth0"])?;
        let inside: Value = serde_json::from_str(&text)?;
        let text = run("ip", &["-j", "link"])?;
        let links: Value = serde_json::from_str(&text)?;
        let port = links.as_array().into_iter().flatten().find(|link| link["ifindex"] == inside[0]["link_index"]);
        let port = port.context("the node's link has no other end here")?;
        let name = |key: &str| port[key].as_str().map(str::to_owned).with_context(|| format!("{key} of {port}"));
        let cut = Self { port: name("ifname")?, bridge: name("master")? };
        run("ip", &["link", "set", &cut.port, "nomaster"])?;
        Ok(cut)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["link", "set", &self.port, "master", &self.bridge]) {
            println!("the node stays cut off: {error:#}");
        }
    }
}

/// Clients that send datagrams to a Service from ports that stay the same.
struct Flows(Vec<UdpSocket>);

impl Flows {
    fn to(service: &str) -> Result<Self> {
        let socket = |_| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(service)?;
            Ok(socket)
        };
        (0..FLOWS).map(socket).collect::<Result<_>>().map(Self)
    }

    /// Nobody listens behind the Service: what counts is where the kernel sends the datagrams.
    fn send(&self) -> Result<()> {
        for socket in &self.0 {
            match socket.send(b"x") {
                Err(error) if error.kind() != std::io::ErrorKind::ConnectionRefused => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}
