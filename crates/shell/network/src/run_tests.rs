//! Pod networks of several namespace nodes, with real packets.

use super::*;
use crate::applied::Applied;
use crate::lab::{Lab, eventually, sh};
use std::net::Ipv4Addr;

fn config(number: u8, backend: Backend, directory: &std::path::Path) -> NetworkConfig {
    NetworkConfig {
        node_name: format!("n{number}"),
        node_ip: Ipv4Addr::new(10, 10, 0, number),
        node_port_ips: vec![],
        cluster_cidr: ([10, 200, 0, 0].into(), 16),
        service_cidr: ([10, 96, 0, 0].into(), 16),
        cluster_domain: "cluster.local".to_owned(),
        dns_service_ip: [10, 96, 0, 10].into(),
        dns_port: 53,
        resolv_conf: directory.join("resolv.conf"),
        proxy_health_port: 10256,
        proxy_status_port: 10249,
        table: "labrun".to_owned(),
        bridge: "lab0".to_owned(),
        vxlan_device: "labvx".to_owned(),
        vxlan_id: 77,
        vxlan_port: 4_790,
        backend,
        mtu: 0,
        cni_config_dir: directory.join("cni"),
        cni_data_dir: directory.join("ipam"),
        applied: Applied::default(),
        guarded: crate::guarded::Guarded::default(),
    }
}

fn nodes(count: u8) -> Nodes {
    let view =
        |n: u8| NodeView { ip: Some([10, 10, 0, n].into()), pod_cidr: Some(([10, 200, n, 0].into(), 24)), zone: None };
    Nodes { synced: true, all: (1..=count).map(|n| (format!("n{n}"), view(n))).collect() }
}

/// Runs a node's own part and its proxy in its namespace, with the nodes given by the receiver.
fn start(
    lab: &Lab,
    config: NetworkConfig,
    nodes: watch::Receiver<Nodes>,
    stop: CancellationToken,
) -> std::thread::JoinHandle<()> {
    let short = config.node_name.clone();
    lab.spawn(&short, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            cni::kernel_switches().unwrap();
            let links = Links::open(config.clone()).unwrap();
            let zone = Arc::new(RwLock::new(Zone::new("cluster.local", config.dns_service_ip)));
            let (changes, receiver) = mpsc::channel(16);
            changes.send(Change::ServicesSynced).await.unwrap();
            changes.send(Change::SlicesSynced).await.unwrap();
            let state = ProxyState::new(proxy_config(&config, None, None));
            let (policies, _kept) = mpsc::channel(16);
            let mut node = Local { config: &config, links, zone, upstreams: SharedUpstreams::default(), changes, policies, stop: stop.clone(), network: None };
            tokio::select! {
                () = stop.cancelled() => {}
                () = proxy::run(state, receiver, config.applied.clone(), watch::Sender::new(BTreeMap::new()), Guards::default(), stop.clone()) => {}
                () = node.follow(nodes) => {}
            }
            cleanup(&config).await.unwrap();
        });
    })
}

/// Who answers for `ns.dns.cluster.local`, and with which address.
fn ask_dns() -> (String, Vec<u8>) {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let query =
        b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02ns\x03dns\x07cluster\x05local\x00\x00\x01\x00\x01";
    socket.send_to(query, "10.96.0.10:53").unwrap();
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (from.to_string(), buffer[length - 4..length].to_vec())
}

fn pods_reach_each_other(backend: Backend, device: &str) {
    let Some(mut lab) = Lab::new() else { return };
    lab.fabric("10.10.0.254");
    let (stop, directory) = (CancellationToken::new(), tempfile::tempdir().unwrap());
    let (sender, receiver) = watch::channel(nodes(2));
    let mut threads = vec![];
    for number in 1..=2 {
        lab.node(&format!("n{number}"), &format!("10.10.0.{number}"), "10.10.0.254");
        let path = directory.path().join(number.to_string());
        let config = config(number, backend, &path);
        let applied = config.applied.clone();
        threads.push(start(&lab, config, receiver.clone(), stop.clone()));
        eventually(true, || path.join("cni").join(cni::CONFIG_FILE).exists() && applied.generation() >= 1);
        lab.pod(
            &format!("n{number}"),
            "lab0",
            &format!("p{number}"),
            &format!("10.200.{number}.5"),
            &format!("10.200.{number}.1"),
        );
        lab.serve(&format!("p{number}"), 8080);
    }
    eventually("p2 10.200.1.5".to_owned(), || lab.ask("p1", "10.200.2.5:8080"));
    assert_eq!(lab.ask("p2", "10.200.1.5:8080"), "p1 10.200.2.5");
    assert!(lab.ask("n1", "10.200.2.5:8080").starts_with("p2 "), "node to a remote pod");
    lab.serve("fab", 9090);
    eventually("fab 10.10.0.1".to_owned(), || lab.ask("p1", "10.10.0.254:9090"));
    let node = lab.name("n1");
    assert!(sh(&format!("ip -n {node} route get 10.200.2.5")).contains(&format!("dev {device}")));
    // Cluster DNS is on the node itself, by its service address.
    // The node's own processes reach it too, even on a machine without a default route.
    sh(&format!("ip -n {node} route del default"));
    for client in ["p1", "n1"] {
        assert_eq!(lab.inside(client, ask_dns), ("10.96.0.10:53".to_owned(), vec![10, 96, 0, 10]), "from {client}");
    }
    sender.send(nodes(1)).unwrap();
    eventually(false, || sh(&format!("ip -n {node} route")).contains("10.200.2.0"));
    stop.cancel();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(
        !sh(&format!("ip -n {node} link; nsenter --net=/run/netns/{node} nft list tables")).contains("lab"),
        "cleaned up"
    );
}

#[test]
fn pods_reach_each_other_by_plain_routes() {
    pods_reach_each_other(Backend::Auto, "eth0");
}

#[test]
fn pods_reach_each_other_through_the_tunnel() {
    pods_reach_each_other(Backend::Vxlan, "labvx");
}
