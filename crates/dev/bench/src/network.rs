//! Service rules in the kernel: programming all of them, changing one, and the first packet of a connection, with few
//! Services and with many. Works in network namespaces of its own and needs root.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netplan::proxy::{ProxyConfig, ProxyState};
use netplan::select::NodeIdentity;
use netplan::view::{EndpointView, Frontend, Key, Protocol, ServicePort, ServiceView, SliceView};

const TABLE: &str = "benchproxy";
const PORT: u16 = 8080;
const PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 200, 1, 11), Ipv4Addr::new(10, 200, 1, 12)];
/// Changes of one endpoint, and connections, per measurement.
const CHANGES: usize = 40;
const CONNECTIONS: usize = 3_000;

/// Prints the figures for ten Services and for `services`.
pub fn run(services: u32) -> Result<()> {
    let place = Place::new()?;
    let mut firsts = vec![];
    for count in [10, services] {
        let (mut state, begin) = (ProxyState::new(config()), Instant::now());
        for number in 0..count {
            state.set_service(key("s", number), Some(service(number)));
            state.set_slice(key("x", number), Some(slice(number, &PODS)));
        }
        let script = state.full().script;
        let planned = begin.elapsed();
        place.nft(&script)?;
        println!("{count} services: planned in {planned:.1?}, in the kernel after {:.1?}", begin.elapsed());
        let address = SocketAddr::from((ip(count / 2), 80));
        let first = place.first_packet(address)?;
        println!("{count} services: a connection's first answer after {first:.1?} (median of {CONNECTIONS})");
        firsts.push(first);
        let change = place.changes(&mut state, count / 2, address)?;
        println!("{count} services: a changed endpoint takes packets after {change:.1?} (median of {CHANGES})");
    }
    println!(
        "first answer with {services} services: {:.2} of that with 10",
        firsts[1].as_secs_f64() / firsts[0].as_secs_f64()
    );
    Ok(())
}

fn ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + number)
}

fn key(kind: &str, number: u32) -> Key {
    Key::new("bench", format!("{kind}{number}"))
}

fn config() -> ProxyConfig {
    ProxyConfig {
        table: TABLE.to_owned(),
        node: NodeIdentity { name: "n1".to_owned(), zone: None },
        node_ips: vec![[10, 200, 1, 1].into()],
        pod_cidrs: vec![([10, 200, 0, 0].into(), 16)],
        own_pod_cidrs: vec![([10, 200, 1, 0].into(), 24)],
        service_cidrs: vec![([10, 96, 0, 0].into(), 12)],
        dns: None,
    }
}

fn service(number: u32) -> ServiceView {
    let port = ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 0 };
    ServiceView {
        frontend: Frontend::Cluster(vec![ip(number).into()]),
        ports: vec![port],
        external_ips: Default::default(),
        load_balancer_ips: Default::default(),
        source_ranges: Default::default(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        health_check_port: 0,
        other_proxy: false,
    }
}

fn slice(number: u32, pods: &[Ipv4Addr]) -> SliceView {
    let endpoint = |ip: &Ipv4Addr| EndpointView {
        addresses: vec![ip.to_string()],
        node: Some("n1".to_owned()),
        ready: true,
        serving: true,
        ..EndpointView::default()
    };
    SliceView {
        service: key("s", number),
        ipv6: false,
        not_proxied: false,
        ports: vec![(String::new(), Protocol::Tcp, PORT)],
        endpoints: pods.iter().map(endpoint).collect(),
    }
}

fn sh(command: &str) -> Result<()> {
    let status = Command::new("sh").args(["-ec", command]).status()?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}

/// A node's namespace and one with the pods, whose server answers with the address it was asked at.
struct Place {
    name: String,
}

impl Place {
    fn new() -> Result<Self> {
        let place = Self { name: format!("bench{}", std::process::id()) };
        let (node, pods) = (place.node(), place.pods());
        sh(&format!(
            "ip netns add {node}; ip netns add {pods}; ip -n {node} link set lo up; ip -n {pods} link set lo up
             ip -n {node} link add pods type veth peer name eth0 netns {pods}
             ip -n {node} addr add 10.200.1.1/24 dev pods; ip -n {node} link set pods up
             ip -n {pods} addr add {}/24 dev eth0; ip -n {pods} addr add {}/24 dev eth0; ip -n {pods} link set eth0 up
             ip -n {pods} route add default via 10.200.1.1; ip -n {node} route add 10.96.0.0/12 dev pods",
            PODS[0], PODS[1]
        ))
        .context("making network namespaces (is this root?)")?;
        let listener = place.inside(&pods, || TcpListener::bind(("0.0.0.0", PORT)))??;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let own = stream.local_addr().map(|address| address.ip().to_string()).unwrap_or_default();
                let _ = stream.write_all(own.as_bytes());
            }
        });
        Ok(place)
    }

    fn node(&self) -> String {
        format!("{}n", self.name)
    }

    fn pods(&self) -> String {
        format!("{}p", self.name)
    }

    fn inside<T: Send + 'static>(&self, namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let file = std::fs::File::open(format!("/run/netns/{namespace}"))?;
        let thread = std::thread::spawn(move || {
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok::<T, anyhow::Error>(work())
        });
        thread.join().map_err(|_| anyhow::anyhow!("the measurement panicked"))?
    }

    fn nft(&self, script: &str) -> Result<()> {
        let namespace = format!("--net=/run/netns/{}", self.node());
        let mut child = Command::new("nsenter").args([&namespace, "nft", "-f", "-"]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("a pipe")?.write_all(script.as_bytes())?;
        ensure!(child.wait()?.success(), "nft refused");
        Ok(())
    }

    /// From SYN to the answer of it, through the service's address.
    fn first_packet(&self, address: SocketAddr) -> Result<Duration> {
        let measured = self.inside(&self.node(), move || {
            let mut times = Vec::with_capacity(CONNECTIONS);
            for _ in 0..CONNECTIONS {
                let begin = Instant::now();
                let stream = TcpStream::connect(address)?;
                times.push(begin.elapsed());
                drop(stream);
            }
            Ok::<_, std::io::Error>(median(times))
        })?;
        Ok(measured?)
    }

    /// From a changed slice to a connection that the new endpoint answers.
    fn changes(&self, state: &mut ProxyState, number: u32, address: SocketAddr) -> Result<Duration> {
        let mut times = vec![];
        for round in 0..CHANGES {
            let wanted = PODS[round % 2];
            let begin = Instant::now();
            state.set_slice(key("x", number), Some(slice(number, &[wanted])));
            let transaction = state.transaction().context("a change")?;
            self.nft(&transaction.script)?;
            let answer = self.inside(&self.node(), move || {
                let mut text = String::new();
                TcpStream::connect(address)?.read_to_string(&mut text)?;
                Ok::<_, std::io::Error>(text)
            })??;
            times.push(begin.elapsed());
            ensure!(answer == wanted.to_string(), "answered by {answer} instead of {wanted}");
        }
        Ok(median(times))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = sh(&format!("ip netns del {}; ip netns del {}", self.node(), self.pods()));
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
