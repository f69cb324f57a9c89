//! The service proxy with real traffic in network namespaces.

use super::*;
use crate::lab::{Lab, eventually, sh};
use crate::watch::Change;
use netplan::proxy::{DnsRedirect, ProxyConfig};
use netplan::select::NodeIdentity;
use netplan::view::{Key, ServiceView, SliceView};
use std::time::Instant;

const TABLE: &str = "labproxy";

/// One node with two pods, a client outside, and the proxy running in the node's namespace.
struct Node {
    lab: Lab,
    config: ProxyConfig,
    changes: mpsc::Sender<Change>,
    applied: Applied,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    fn start() -> Option<Self> {
        let mut lab = Lab::new()?;
        lab.fabric("10.10.0.254");
        lab.node("n1", "10.10.0.1", "10.10.0.254");
        let (node, fabric) = (lab.name("n1"), lab.name("fab"));
        sh(&format!(
            "ip -n {node} link add cni0 type bridge; ip -n {node} link set cni0 up; ip -n {node} addr add 10.200.1.1/24 dev cni0
             ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1
             ip -n {fabric} route add 1.2.3.0/24 via 10.10.0.1"
        ));
        for (pod, ip) in [("p1", "10.200.1.11"), ("p2", "10.200.1.12")] {
            lab.pod("n1", "cni0", pod, ip, "10.200.1.1");
            lab.serve(pod, 8080);
        }
        let (changes, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
        let (applied, stop) = (Applied::default(), CancellationToken::new());
        let config = ProxyConfig {
            table: TABLE.to_owned(),
            node: NodeIdentity { name: "n1".to_owned(), zone: None },
            node_ips: vec![[10, 10, 0, 1].into()],
            pod_cidrs: vec![([10, 200, 0, 0].into(), 16)],
            own_pod_cidrs: vec![([10, 200, 1, 0].into(), 24)],
            service_cidrs: vec![([10, 96, 0, 0].into(), 16)],
            dns: Some(DnsRedirect {
                service_ip: [10, 96, 0, 10].into(),
                port: 53,
                listener: "10.200.1.1:5353".parse().unwrap(),
            }),
        };
        let state = ProxyState::new(config.clone());
        let (handle, token) = (applied.clone(), stop.clone());
        let thread = lab.spawn("n1", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(state, receiver, handle, watch::Sender::new(Checks::new()), Guards::default(), token));
        });
        let node = Self { lab, config: config.clone(), changes, applied, stop, thread: Some(thread) };
        node.send(Change::Config(Box::new(config)));
        node.send(Change::ServicesSynced);
        node.send(Change::SlicesSynced);
        eventually(1, || node.applied.generation());
        Some(node)
    }

    fn send(&self, change: Change) {
        self.changes.blocking_send(change).unwrap();
    }

    /// Sends the objects, each of which changes something, and waits until the kernel has them all.
    fn apply(&self, objects: &[serde_json::Value]) {
        for object in objects {
            // Of several that wait together it could not be told which of them were in the last transaction.
            let before = self.applied.generation();
            self.send(change(object));
            eventually(true, || self.applied.generation() > before);
        }
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

fn change(object: &serde_json::Value) -> Change {
    let key = Key::new("default", object["metadata"]["name"].as_str().unwrap());
    match object["kind"].as_str() {
        Some("Service") => {
            Change::Service(key, Some(ServiceView::from(&serde_json::from_value(object.clone()).unwrap())))
        }
        _ => Change::Slice(key, SliceView::from_object(&serde_json::from_value(object.clone()).unwrap())),
    }
}

fn service(spec: serde_json::Value) -> serde_json::Value {
    let mut all = serde_json::json!({"clusterIP": "10.96.0.20", "ports": [
        {"name": "t", "port": 80, "nodePort": 30080, "protocol": "TCP"}, {"name": "u", "port": 80, "nodePort": 30080, "protocol": "UDP"}]});
    for (name, value) in spec.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::json!({"kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": all})
}

fn slice(endpoints: &[(&str, &str)]) -> serde_json::Value {
    let endpoints: Vec<_> =
        endpoints.iter().map(|(ip, node)| serde_json::json!({"addresses": [ip], "nodeName": node})).collect();
    serde_json::json!({"kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "t", "port": 8080, "protocol": "TCP"}, {"name": "u", "port": 8080, "protocol": "UDP"}]})
}

const BOTH: [(&str, &str); 2] = [("10.200.1.11", "n1"), ("10.200.1.12", "n1")];

#[test]
fn traffic_reaches_services_as_the_objects_say() {
    let Some(node) = Node::start() else { return };
    let lab = &node.lab;

    node.apply(&[service(serde_json::json!({}))]);
    assert_eq!(lab.ask("p1", "10.96.0.20:80"), "refused", "no endpoints");
    assert_eq!(lab.ask("fab", "10.10.0.1:30080"), "refused", "no endpoints, node port");
    assert_eq!(lab.ask("n1", "10.96.0.20:80"), "refused", "no endpoints, from the node");
    assert_eq!(lab.ask("p1", "10.96.0.20:81"), "refused", "no such port");
    assert_eq!(lab.ask("p1", "10.96.0.21:80"), "silent", "no such service");

    node.apply(&[slice(&BOTH)]);
    for (client, target) in
        [("p1", "10.96.0.20:80"), ("n1", "10.96.0.20:80"), ("fab", "10.10.0.1:30080"), ("n1", "10.10.0.1:30080")]
    {
        assert_eq!(lab.answers(client, target, 20), ["p1", "p2"], "{client} -> {target}");
    }
    node.apply(&[slice(&BOTH[..1])]);
    assert_eq!(lab.ask("p2", "10.96.0.20:80"), "p1 10.200.1.12", "pods keep their address");
    assert_eq!(lab.ask("p1", "10.96.0.20:80"), "p1 10.200.1.1", "hairpin");
    assert_eq!(lab.ask("fab", "10.10.0.1:30080"), "p1 10.200.1.1", "node ports are masqueraded");

    node.apply(&[service(serde_json::json!({"externalTrafficPolicy": "Local", "externalIPs": ["1.2.3.4"]}))]);
    assert_eq!(lab.ask("fab", "10.10.0.1:30080"), "p1 10.10.0.254", "policy Local keeps the client's address");
    assert_eq!(lab.ask("fab", "1.2.3.4:80"), "p1 10.10.0.254");
    node.apply(&[slice(&[("10.200.1.11", "n2")])]);
    assert_eq!(lab.ask("fab", "10.10.0.1:30080"), "silent", "policy Local without a local endpoint");
    assert_eq!(lab.ask("p2", "1.2.3.4:80"), "p1 10.200.1.12", "pods are not bound by the external policy");

    let sticky = serde_json::json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}});
    node.apply(&[service(sticky), slice(&BOTH)]);
    let chosen = lab.answers("fab", "10.10.0.1:30080", 8);
    assert_eq!(chosen.len(), 1, "affinity");
    let stays = BOTH.iter().find(|(ip, _)| ip.ends_with(if chosen[0] == "p1" { "11" } else { "12" })).copied().unwrap();
    node.apply(&[slice(&[stays])]);
    assert_eq!(lab.answers("fab", "10.10.0.1:30080", 2), chosen);
    node.apply(&[slice(&BOTH)]);
    assert_eq!(
        lab.answers("fab", "10.10.0.1:30080", 8),
        chosen,
        "the client follows its endpoint through slot changes"
    );
    let other = BOTH.iter().find(|endpoint| **endpoint != stays).copied().unwrap();
    node.apply(&[slice(&[other])]);
    assert_ne!(lab.answers("fab", "10.10.0.1:30080", 2), chosen, "its endpoint is gone");
}

#[test]
fn udp_flows_move_when_their_endpoint_goes_and_the_table_heals() {
    let Some(node) = Node::start() else { return };
    node.apply(&[service(serde_json::json!({})), slice(&BOTH[..1])]);
    let socket = node.lab.inside("p2", || std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    let ask = || {
        let mut buffer = [0; 64];
        let _ = socket.send_to(b"?", "10.96.0.20:80");
        socket
            .recv(&mut buffer)
            .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
            .unwrap_or_default()
    };
    assert_eq!(ask(), "p1 10.200.1.12");
    node.apply(&[slice(&BOTH[1..])]);
    eventually("p2 10.200.1.1".to_owned(), ask);

    let name = node.lab.name("n1");
    sh(&format!("nsenter --net=/run/netns/{name} nft delete table ip {TABLE}"));
    eventually(true, || node.lab.ask("p1", "10.96.0.20:80").starts_with("p2"));
}

#[test]
fn a_large_table_heals_as_often_as_it_is_lost() {
    let Some(node) = Node::start() else { return };
    let many = (0..2_500).flat_map(|n| {
        let address = format!("10.96.{}.{}", 1 + n / 250, 1 + n % 250);
        let ports = serde_json::json!([{"name": "t", "port": 80, "protocol": "TCP"}]);
        let mut service = service(serde_json::json!({"clusterIP": address, "ports": ports}));
        let mut slice = slice(&BOTH);
        service["metadata"]["name"] = format!("web-{n}").into();
        slice["metadata"]["name"] = format!("web-{n}-1").into();
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = format!("web-{n}").into();
        [service, slice]
    });
    let many: Vec<_> = many.collect();
    let mut state = ProxyState::new(node.config.clone());
    for object in &many {
        match change(object) {
            Change::Service(key, view) => state.set_service(key, view),
            Change::Slice(key, view) => state.set_slice(key, view),
            _ => unreachable!(),
        }
    }
    let bytes = state.full().script.len();
    assert!(bytes > HUSHED_BYTES_MIN, "the table is one that is written in silence: {bytes} bytes");

    many.iter().for_each(|object| node.send(change(object)));
    let answers = || node.lab.ask("p1", "10.96.10.250:80").starts_with('p');
    eventually(true, answers);
    let name = node.lab.name("n1");
    for _ in 0..2 {
        sh(&format!("nsenter --net=/run/netns/{name} nft delete table ip {TABLE}"));
        eventually(true, answers);
    }
}

#[test]
fn an_unanswered_attempt_finds_another_endpoint_when_its_own_goes() {
    let Some(node) = Node::start() else { return };
    // Packets to this neighbour leave and nobody gets them, as those to a dead machine.
    let name = node.lab.name("n1");
    sh(&format!("ip -n {name} neigh replace 10.200.1.13 lladdr 02:00:00:00:00:13 dev cni0 nud permanent"));
    node.apply(&[service(serde_json::json!({})), slice(&[("10.200.1.13", "n1")])]);
    let address = "10.96.0.20:80".parse().unwrap();
    let attempt =
        node.lab.spawn("p2", move || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(10)).is_ok());
    let waits = format!("nsenter --net=/run/netns/{name} conntrack -L -p tcp --state SYN_SENT 2>/dev/null");
    eventually(true, || sh(&waits).contains("src=10.200.1.13"));
    node.apply(&[slice(&BOTH[..1])]);
    assert!(attempt.join().unwrap(), "the client's next packet goes to the endpoint that is left");
}

#[test]
fn an_endpoint_leaves_the_kernel_soon_after_its_change() {
    let Some(node) = Node::start() else { return };
    node.apply(&[service(serde_json::json!({})), slice(&BOTH)]);
    let mut times = vec![];
    for round in 0..10 {
        let begin = Instant::now();
        let wanted = if round % 2 == 0 { &BOTH[..1] } else { &BOTH };
        node.apply(&[slice(wanted)]);
        times.push(begin.elapsed());
    }
    times.sort();
    println!("change to kernel: median {:?}, most {:?} (conntrack and 10 ms polling included)", times[5], times[9]);
    assert!(!node.applied.serves([10, 200, 1, 13].into()) && node.applied.serves([10, 200, 1, 12].into()));
}
