//! Network policies in the kernel: random packets against the plain reading, connections that end, rules that heal.

use super::*;
use crate::lab::{Lab, STATE_MAX, eventually, sh};
use crate::probe::Probes;
use meta::labels::Selector;
use netplan::policy::judge::{Connection, World};
use netplan::policy::view::{Direction, Peer, Port, PortNumber, Rule};
use netplan::view::{Protocol, parse_cidr};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;

const TABLE: &str = "labpolicy";
/// Pods of the node, of another node, and addresses outside; the last two live on the fabric.
const HERE: [(&str, [u8; 4]); 3] = [("p1", [10, 200, 1, 11]), ("p2", [10, 200, 1, 12]), ("p3", [10, 200, 1, 13])];
const THERE: [[u8; 4]; 2] = [[10, 200, 2, 11], [10, 200, 2, 12]];
const OUTSIDE: [[u8; 4]; 2] = [[172, 16, 0, 1], [172, 16, 1, 1]];

fn lab() -> Option<Lab> {
    let mut lab = Lab::new()?;
    lab.fabric("10.10.0.254");
    lab.node("n1", "10.10.0.1", "10.10.0.254");
    let (node, fabric) = (lab.name("n1"), lab.name("fab"));
    sh(&format!(
        "ip -n {node} link add cni0 type bridge; ip -n {node} link set cni0 up; ip -n {node} addr add 10.200.1.1/24 dev cni0
         ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1
         ip -n {fabric} route add 10.200.1.0/24 via 10.10.0.1"
    ));
    // The service rules, which every node has, make the kernel track connections from the start.
    sh(&format!(
        "nsenter --net=/run/netns/{node} nft 'table ip track {{ chain c {{ type filter hook forward priority 0; ct state new accept; }}; }}'"
    ));
    for ip in THERE.iter().chain(&OUTSIDE) {
        sh(&format!("ip -n {fabric} addr add {}/32 dev lo", Ipv4Addr::from(*ip)));
    }
    for (pod, ip) in HERE {
        lab.pod("n1", "cni0", pod, &Ipv4Addr::from(ip).to_string(), "10.200.1.1");
    }
    Some(lab)
}

fn config() -> PolicyConfig {
    PolicyConfig { table: TABLE.to_owned(), node: "n1".to_owned(), bridge: "cni0".to_owned(), dns: None }
}

fn labels(text: &str) -> Labels {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn pod(ip: [u8; 4], node: &str, of: &str, web: u16) -> PodView {
    let ports = vec![("web".to_owned(), Protocol::Tcp, web), ("dns".to_owned(), Protocol::Udp, 53)];
    PodView { labels: Arc::new(labels(of)), ips: vec![ip.into()], node: node.to_owned(), ports }
}

fn pick<T: Clone>(random: &mut StdRng, all: &[T]) -> T {
    all[random.random_range(0..all.len())].clone()
}

fn some<T>(random: &mut StdRng, most: usize, mut one: impl FnMut(&mut StdRng) -> T) -> Vec<T> {
    (0..random.random_range(0..=most)).map(|_| one(random)).collect()
}

fn maybe<T>(random: &mut StdRng, likely: f64, one: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    random.random_bool(likely).then(|| one(random))
}

fn random_rule(random: &mut StdRng) -> Rule {
    let selector = |random: &mut StdRng| {
        let text = pick(random, &["", "app=web", "app in (web,db)", "!app", "team=x", "team!=x", "app"]);
        Selector::parse(text).unwrap()
    };
    let cidr = |random: &mut StdRng| {
        let all = ["0.0.0.0/0", "10.200.0.0/16", "10.200.1.8/30", "10.200.2.11/32", "172.16.0.0/16", "172.16.0.1/32"];
        parse_cidr(pick(random, &all)).unwrap()
    };
    let peer = |random: &mut StdRng| match random.random_bool(0.6) {
        true => Peer::Pods { namespaces: maybe(random, 0.5, selector), pods: selector(random) },
        false => Peer::Block { cidr: cidr(random), except: some(random, 2, cidr) },
    };
    let port = |random: &mut StdRng| {
        let numbers = [
            PortNumber::Range(0, u16::MAX),
            PortNumber::Range(80, 80),
            PortNumber::Range(53, 80),
            PortNumber::Named("web".to_owned()),
            PortNumber::Named("dns".to_owned()),
        ];
        Port { protocol: pick(random, &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]), number: pick(random, &numbers) }
    };
    Rule {
        peers: maybe(random, 0.8, |random| some(random, 3, peer)),
        ports: maybe(random, 0.7, |random| some(random, 3, port)),
    }
}

fn random_world(random: &mut StdRng) -> World {
    let mut world = World::default();
    for name in ["ns0", "ns1"] {
        let of = pick(random, &["", "team=x", "team=y"]);
        world.namespaces.insert(name.to_owned(), Arc::new(labels(of)));
    }
    let all = HERE.map(|(_, ip)| (ip, "n1")).into_iter().chain(THERE.map(|ip| (ip, "n2")));
    for (number, (ip, node)) in all.enumerate() {
        let of = pick(random, &["", "app=web", "app=db"]);
        let key = Key::new(pick(random, &["ns0", "ns1"]), format!("p{number}"));
        world.pods.insert(key, pod(ip, node, of, pick(random, &[80, 81])));
    }
    for number in 0..random.random_range(1..6) {
        let pods = Selector::parse(pick(random, &["", "app=web", "app"])).unwrap();
        let rules = |random: &mut StdRng| maybe(random, 0.6, |random| some(random, 2, random_rule));
        let (egress, ingress) = (rules(random), rules(random));
        let key = Key::new(pick(random, &["ns0", "ns1"]), format!("q{number}"));
        world.policies.insert(key, PolicyView { pods, egress, ingress });
    }
    world
}

/// Brings the state to a world, whatever it held.
fn feed(state: &mut PolicyState, old: &World, new: &World) {
    for key in old.policies.keys().chain(new.policies.keys()) {
        state.set_policy(key.clone(), new.policies.get(key).cloned());
    }
    for key in old.pods.keys().filter(|key| !new.pods.contains_key(key)) {
        state.set_pod(key.clone(), None);
    }
    for (key, pod) in &new.pods {
        state.set_pod(key.clone(), Some(pod.clone()));
    }
    for (name, labels) in &new.namespaces {
        state.set_namespace(name.clone(), Some((**labels).clone()));
    }
}

/// Each node guards its own pods; the other end is the other node's business.
fn passes(world: &World, connection: Connection) -> bool {
    let is_here = |ip: Ipv4Addr| HERE.iter().any(|(_, own)| Ipv4Addr::from(*own) == ip);
    let open = |direction, end| !is_here(end) || world.closed_by(direction, connection).is_none();
    open(Direction::Egress, connection.source) && open(Direction::Ingress, connection.destination)
}

fn all_connections() -> Vec<Connection> {
    let here = HERE.map(|(_, ip)| Ipv4Addr::from(ip));
    let all: Vec<Ipv4Addr> =
        here.into_iter().chain(THERE.iter().chain(&OUTSIDE).map(|ip| Ipv4Addr::from(*ip))).collect();
    let ports =
        [(Protocol::Tcp, 80), (Protocol::Tcp, 81), (Protocol::Udp, 53), (Protocol::Udp, 9), (Protocol::Sctp, 80)];
    let mut connections = vec![];
    for source in &all {
        for destination in all.iter().filter(|to| *to != source && (here.contains(to) || here.contains(source))) {
            let of = |(protocol, port)| Connection { source: *source, destination: *destination, protocol, port };
            connections.extend(ports.map(of));
        }
    }
    connections
}

#[test]
fn random_packets_fare_as_the_policies_say() {
    let Some(lab) = lab() else { return };
    let places: Vec<(&str, Ipv4Addr)> = HERE
        .iter()
        .map(|(pod, ip)| (*pod, Ipv4Addr::from(*ip)))
        .chain(THERE.iter().chain(&OUTSIDE).map(|ip| ("fab", Ipv4Addr::from(*ip))))
        .collect();
    let probes = Probes::open(&lab, &places);
    let connections = all_connections();
    let (mut state, mut world, mut passed, mut stopped) = (PolicyState::new(config()), World::default(), 0, 0);
    for seed in 0..12 {
        let next = random_world(&mut StdRng::seed_from_u64(seed));
        feed(&mut state, &world, &next);
        world = next;
        if let Some(script) = if seed == 0 { Some(state.full()) } else { state.transaction() } {
            let node = lab.name("n1");
            std::fs::write(format!("/tmp/{node}.nft"), &script).unwrap();
            sh(&format!("nsenter --net=/run/netns/{node} nft -f /tmp/{node}.nft; rm /tmp/{node}.nft"));
        }
        let wanted: std::collections::BTreeSet<usize> = connections
            .iter()
            .enumerate()
            .filter(|(_, connection)| passes(&world, **connection))
            .map(|(index, _)| index)
            .collect();
        let arrived = probes.arrivals(&connections, wanted.len());
        let wrong: Vec<_> =
            arrived.symmetric_difference(&wanted).map(|i| (wanted.contains(i), connections[*i])).collect();
        assert!(wrong.is_empty(), "seed {seed}: (should pass, connection) {wrong:?} in {world:#?}");
        passed += arrived.len();
        stopped += connections.len() - arrived.len();
    }
    assert!(passed > 300 && stopped > 300, "a test of both: {passed} passed, {stopped} did not");
}

/// The loop in a node's namespace.
struct Node {
    lab: Lab,
    changes: mpsc::Sender<PolicyChange>,
    guarded: Guarded,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    fn start() -> Option<Self> {
        let lab = lab()?;
        let (changes, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
        let (guarded, stop) = (Guarded::default(), CancellationToken::new());
        let (handle, token) = (guarded.clone(), stop.clone());
        let thread = lab.spawn("n1", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(PolicyState::new(config()), receiver, handle, Guards::default(), token));
        });
        let node = Self { lab, changes, guarded, stop, thread: Some(thread) };
        for (name, ip) in HERE {
            node.send(PolicyChange::Pod(Key::new("a", name), Some(pod(ip, "n1", &format!("app={name}"), 8080))));
        }
        node.send(PolicyChange::PodsSynced);
        node.send(PolicyChange::NamespacesSynced);
        node.send(PolicyChange::PoliciesSynced);
        Some(node)
    }

    fn send(&self, change: PolicyChange) {
        self.changes.blocking_send(change).unwrap();
    }

    fn has_table(&self) -> bool {
        sh(&format!("nsenter --net=/run/netns/{} nft list tables", self.lab.name("n1"))).contains(TABLE)
    }

    /// A policy for the ingress of `app`.
    fn close(&self, app: &str, ingress: Option<Vec<Rule>>) {
        let policy = PolicyView { pods: Selector::parse(app).unwrap(), egress: None, ingress };
        self.send(PolicyChange::Policy(Key::new("a", "p"), Some(policy)));
    }

    fn wait(&self, pod: &str, ip: [u8; 4]) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.guarded.wait("a", pod, &[std::net::IpAddr::from(ip)], STATE_MAX))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn connections_end_when_their_policy_goes_and_the_rules_heal() {
    let Some(node) = Node::start() else { return };
    let listener = node.lab.inside("p2", || TcpListener::bind("0.0.0.0:8080").unwrap());
    let echo = node.lab.inside("p2", || UdpSocket::bind("0.0.0.0:8080").unwrap());
    let mut client = node.lab.inside("p1", || TcpStream::connect("10.200.1.12:8080").unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let datagrams = node.lab.inside("p1", || UdpSocket::bind("0.0.0.0:0").unwrap());
    datagrams.connect("10.200.1.12:8080").unwrap();
    datagrams.send(b"x").unwrap();
    let mut buffer = [0; 8];
    let (_, peer) = echo.recv_from(&mut buffer).unwrap();
    datagrams.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let answered = |text: &[u8]| {
        echo.send_to(text, peer).unwrap();
        datagrams.recv(&mut [0; 8]).is_ok()
    };
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut buffer[..5]).unwrap();
    assert!(answered(b"1"));

    node.close("app=p2", Some(vec![]));
    eventually(false, || answered(b"2"));
    client.set_read_timeout(Some(STATE_MAX)).unwrap();
    server.set_read_timeout(Some(STATE_MAX)).unwrap();
    server.write_all(b"still there?").unwrap();
    let reset = |result: std::io::Result<usize>| result.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
    assert!(reset(server.read(&mut buffer)), "the server learns at once that its client is out of reach");
    assert_eq!(client.write(b"hello").unwrap(), 5);
    assert!(reset(client.read(&mut buffer)), "and so does the client");
    let connect = |from: &'static str| {
        let target = "10.200.1.12:8080".parse().unwrap();
        node.lab.inside(from, move || TcpStream::connect_timeout(&target, crate::lab::CONNECT_MAX).is_ok())
    };
    assert!(!connect("p1") && !connect("fab"));
    assert!(connect("n1"), "the node reaches its own pods");
    assert!(connect("p2"), "a pod reaches itself");

    let name = node.lab.name("n1");
    sh(&format!("nsenter --net=/run/netns/{name} nft delete table ip {TABLE}"));
    eventually(false, || connect("p1"));
    let client = Peer::Pods { namespaces: None, pods: Selector::parse("app=p1").unwrap() };
    node.close("app=p2", Some(vec![Rule { peers: Some(vec![client]), ports: None }]));
    eventually(true, || connect("p1"));
    assert!(!connect("p3"));
    node.send(PolicyChange::Policy(Key::new("a", "p"), None));
    eventually(true, || connect("p3"));
    assert!(!node.has_table(), "no policy, no table");
}

#[test]
fn a_pod_is_guarded_before_its_containers_start() {
    let Some(node) = Node::start() else { return };
    assert!(node.wait("new", [10, 200, 1, 13]), "no policies, nothing to wait for");
    node.close("", Some(vec![]));
    eventually(true, || node.has_table());
    assert!(node.wait("p1", HERE[0].1));
    let mut unborn = pod(HERE[2].1, "n1", "app=new", 80);
    unborn.ips.clear();
    node.send(PolicyChange::Pod(Key::new("a", "p3"), None));
    node.send(PolicyChange::Pod(Key::new("a", "new"), Some(unborn)));
    let _listener = node.lab.inside("p3", || TcpListener::bind("0.0.0.0:8080").unwrap());
    assert!(node.wait("new", HERE[2].1));
    assert_eq!(node.lab.ask("p1", "10.200.1.13:8080"), "silent", "the API knows no address yet, the rules do");
}
