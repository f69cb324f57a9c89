//! Tests' network laboratory: namespaces with a unique name, nodes and pods in them, removed when the test ends.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a connection attempt in the laboratory may take.
pub const CONNECT_MAX: Duration = Duration::from_millis(700);
/// How long a state may take to come about.
pub const STATE_MAX: Duration = Duration::from_secs(10);

static LABS: AtomicU32 = AtomicU32::new(0);

/// A set of network namespaces under one prefix.
pub struct Lab {
    prefix: String,
    names: Vec<String>,
}

/// Runs a command and fails the test with its words when it fails.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

impl Lab {
    /// `None`, with a message, when this machine does not let us make namespaces.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Some(Self { prefix: format!("tn{}-{number}", std::process::id()), names: vec![] })
    }

    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.prefix)
    }

    fn add(&mut self, short: &str) -> String {
        let name = self.name(short);
        sh(&format!("ip netns add {name}; ip -n {name} link set lo up"));
        self.names.push(name.clone());
        name
    }

    /// A layer-2 segment whose namespace holds `address`, also the outside client and the nodes' default gateway.
    pub fn fabric(&mut self, address: &str) {
        let name = self.add("fab");
        sh(&format!(
            "ip -n {name} link add br0 type bridge; ip -n {name} link set br0 up; ip -n {name} addr add {address}/24 dev br0"
        ));
    }

    /// A node on the fabric.
    pub fn node(&mut self, short: &str, address: &str, gateway: &str) {
        let (name, fabric) = (self.add(short), self.name("fab"));
        sh(&format!(
            "ip -n {name} link add eth0 type veth peer name v{short} netns {fabric}
             ip -n {fabric} link set v{short} master br0 up
             ip -n {name} addr add {address}/24 dev eth0; ip -n {name} link set eth0 up
             ip -n {name} route add default via {gateway}"
        ));
    }

    /// A pod on the bridge of a node, as the CNI bridge plugin would attach it.
    pub fn pod(&mut self, node: &str, bridge: &str, short: &str, address: &str, gateway: &str) {
        let (name, node) = (self.add(short), self.name(node));
        sh(&format!(
            "ip -n {name} link add eth0 type veth peer name v{short} netns {node}
             ip -n {node} link set v{short} master {bridge} up
             bridge -n {node} link set dev v{short} hairpin on
             ip -n {name} addr add {address}/24 dev eth0; ip -n {name} link set eth0 up
             ip -n {name} route add default via {gateway}"
        ));
    }

    /// Runs `work` on a thread inside a namespace.
    pub fn spawn<T: Send + 'static>(&self, short: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.name(short));
        std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    pub fn inside<T: Send + 'static>(&self, short: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(short, work).join().unwrap()
    }

    /// Answers every TCP connection with the pod's name and the client's address, and every datagram likewise, until the
    /// process ends.
    pub fn serve(&self, short: &str, port: u16) {
        let name = short.to_owned();
        let (tcp, udp) = self.inside(short, move || {
            let any = (Ipv4Addr::UNSPECIFIED, port);
            (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())
        });
        let tcp_name = name.clone();
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
                let _ = stream.write_all(format!("{tcp_name} {peer}").as_bytes());
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    /// What `target` says to a client in a namespace: "pod client-address", "refused" or "silent".
    pub fn ask(&self, short: &str, target: &str) -> String {
        let target: SocketAddr = target.parse().unwrap();
        self.inside(short, move || match TcpStream::connect_timeout(&target, CONNECT_MAX) {
            Ok(mut stream) => {
                let mut text = String::new();
                stream.set_read_timeout(Some(STATE_MAX)).unwrap();
                stream.read_to_string(&mut text).map_or_else(|error| error.to_string(), |_| text)
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refused".to_owned(),
            Err(_) => "silent".to_owned(),
        })
    }

    /// The pods that answer in `count` connections, sorted.
    pub fn answers(&self, short: &str, target: &str, count: usize) -> Vec<String> {
        let mut all: Vec<String> =
            (0..count).map(|_| self.ask(short, target).split(' ').next().unwrap_or_default().to_owned()).collect();
        all.sort();
        all.dedup();
        all
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Waits until `state` gives `wanted`.
pub fn eventually<T: PartialEq + std::fmt::Debug>(wanted: T, mut state: impl FnMut() -> T) {
    let end = Instant::now() + STATE_MAX;
    loop {
        let now = state();
        if now == wanted {
            return;
        }
        assert!(Instant::now() < end, "still {now:?}, wanted {wanted:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
