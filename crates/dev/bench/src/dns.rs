//! The node's DNS server beside Debian's dnsmasq and unbound on the same records, and how soon its answers follow a change.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use netplan::dns::Zone;
use netplan::view::{Frontend, Key, Protocol, ServicePort, ServiceView};
use serde_json::json;
use testkit::TestServer;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::proxies::Running;

const CLIENTS: [usize; 2] = [1, 50];
const WARM_UP: Duration = Duration::from_millis(500);
/// A datagram may be lost; the client then asks again.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Changes whose arrival in the answers is measured.
const CHANGES: usize = 50;
const DOMAIN: &str = "cluster.local";
const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// What a server alone is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Alone {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    records: u32,
}

fn name(number: u32) -> String {
    format!("s{number}.bench.svc.{DOMAIN}")
}

fn ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + number)
}

/// Runs Tug's server alone, so that its processor time can be told from the load's.
pub async fn alone(alone: Alone) -> Result<()> {
    let mut zone = Zone::new(DOMAIN, DNS_IP);
    for number in 0..alone.records {
        let port = ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 0 };
        let view = ServiceView {
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
        };
        zone.set_service(Key::new("bench", format!("s{number}")), Some(view));
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, alone.port));
    Ok(network::fixed::serve_dns(address, zone, None, CancellationToken::new()).await?)
}

pub async fn run(records: u32, seconds: u64) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("tug-bench-dns-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = compare(&dir, records, Duration::from_secs(seconds)).await;
    let _ = std::fs::remove_dir_all(&dir);
    result?;
    changes().await
}

async fn compare(dir: &Path, records: u32, time: Duration) -> Result<()> {
    println!("{records} names, A records, UDP");
    println!(
        "| server | clients | queries/s | per core | p50 ms | p99 ms | memory MB |\n|---|---|---|---|---|---|---|"
    );
    for program in ["tug", "dnsmasq", "unbound"] {
        let port = free_port().await?;
        let Some(mut running) = Running::start(command(program, dir, port, records)?)? else {
            println!("{program} is not installed");
            continue;
        };
        until_answered(port, &mut running).await.with_context(|| format!("{program} does not answer"))?;
        for clients in CLIENTS {
            load(port, records, clients, WARM_UP).await?;
            let before = running.used()?.0;
            let (latencies, seconds) = load(port, records, clients, time).await?;
            let (cpu, memory) = running.used()?;
            let (count, cpu) = (latencies.len() as f64, (cpu - before).max(0.01));
            let percentile = |percent: usize| {
                let index = latencies.len().saturating_sub(1) * percent / 100;
                latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
            };
            println!(
                "| {program} | {clients} | {:.0} | {:.0} | {:.3} | {:.3} | {memory:.1} |",
                count / seconds,
                count / cpu,
                percentile(50),
                percentile(99)
            );
        }
    }
    Ok(())
}

fn command(program: &str, dir: &Path, port: u16, records: u32) -> Result<Command> {
    let mut text = String::new();
    let mut command = Command::new(program);
    match program {
        "tug" => {
            command = Command::new(std::env::current_exe()?);
            command.args(["dns-alone", "--port", &port.to_string(), "--records", &records.to_string()]);
        }
        "dnsmasq" => {
            for number in 0..records {
                writeln!(text, "{} {}", ip(number), name(number))?;
            }
            let hosts = dir.join("hosts");
            std::fs::write(&hosts, text)?;
            command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"]);
            command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file="]);
            command.args([format!("--port={port}"), format!("--addn-hosts={}", hosts.display())]);
        }
        _ => {
            let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            writeln!(
                text,
                "server:\n interface: 127.0.0.1@{port}\n do-daemonize: no\n use-syslog: no\n chroot: \"\"\n username: \"\"\n \
                 directory: \"{0}\"\n pidfile: \"\"\n num-threads: {threads}\n so-reuseport: yes\n module-config: \"iterator\"\n \
                 local-zone: \"{DOMAIN}.\" static",
                dir.display()
            )?;
            for number in 0..records {
                writeln!(text, " local-data: \"{}. 5 IN A {}\"", name(number), ip(number))?;
            }
            text.push_str("remote-control:\n control-enable: no\n");
            std::fs::write(dir.join("unbound.conf"), text)?;
            command.arg("-d").arg("-c").arg(dir.join("unbound.conf"));
        }
    }
    Ok(command)
}

/// Free for TCP and UDP: all servers here answer both.
async fn free_port() -> Result<u16> {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return Ok(port);
        }
    }
}

async fn until_answered(port: u16, running: &mut Running) -> Result<()> {
    let client = Client::new(port).await?;
    for _ in 0..200 {
        if let Some(status) = running.0.try_wait()? {
            bail!("it ended: {status}");
        }
        if client.ask(0, &name(0)).await.is_ok_and(|found| found == [ip(0)]) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("no answer on port {port}")
}

/// Each client asks for one name after the other; sorted times of all, and the seconds it took.
async fn load(port: u16, records: u32, clients: usize, time: Duration) -> Result<(Vec<Duration>, f64)> {
    let (begun, until) = (Instant::now(), Instant::now() + time);
    let client = |first: u32| async move {
        let client = Client::new(port).await?;
        let (mut latencies, mut number) = (Vec::new(), first);
        while Instant::now() < until {
            number = (number + 7919) % records;
            let begun = Instant::now();
            let found = client.ask(number as u16, &name(number)).await?;
            latencies.push(begun.elapsed());
            ensure!(found == [ip(number)], "{} is {found:?}", name(number));
        }
        Ok::<_, anyhow::Error>(latencies)
    };
    let all: Vec<_> = (0..clients).map(|index| tokio::spawn(client(index as u32 * 31 % records))).collect();
    let mut latencies = Vec::new();
    for one in all {
        latencies.extend(one.await??);
    }
    latencies.sort();
    Ok((latencies, begun.elapsed().as_secs_f64()))
}

struct Client(UdpSocket);

impl Client {
    async fn new(port: u16) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
        Ok(Self(socket))
    }

    /// The addresses of a name.
    async fn ask(&self, id: u16, name: &str) -> Result<Vec<Ipv4Addr>> {
        let mut query = id.to_be_bytes().to_vec();
        query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            query.push(u8::try_from(label.len())?);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        self.0.send(&query).await?;
        let mut answer = [0; 1500];
        loop {
            let read = tokio::time::timeout(ANSWER_MAX, self.0.recv(&mut answer)).await.context("no answer")??;
            let answer = &answer[..read];
            if answer.get(..2) == Some(&query[..2]) {
                return addresses(answer, query.len()).context("not an answer with addresses");
            }
        }
    }
}

/// Of an answer whose records name the question by a pointer, as all servers here do.
fn addresses(answer: &[u8], question_end: usize) -> Option<Vec<Ipv4Addr>> {
    let count = u16::from_be_bytes(answer.get(6..8)?.try_into().ok()?);
    let (mut rest, mut found) = (answer.get(question_end..)?, vec![]);
    for _ in 0..count {
        let length = usize::from(u16::from_be_bytes(rest.get(10..12)?.try_into().ok()?));
        let data: [u8; 4] = rest.get(12..12 + length)?.try_into().ok()?;
        found.push(data.into());
        rest = rest.get(12 + length..)?;
    }
    Some(found)
}

/// From the write of a headless Service's endpoint to the answer that has it, with an API server in this process.
async fn changes() -> Result<()> {
    let test = TestServer::start().await;
    let services: Api<Service> = Api::namespaced(test.client.clone(), "default");
    let service = json!({"metadata": {"name": "db"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(test.client.clone(), "default");
    let endpoints =
        |round: usize| json!([{"addresses": [format!("10.200.1.{}", round + 1)], "conditions": {"ready": true}}]);
    let slice = json!({
        "metadata": {"name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints(0),
    });
    slices.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
    let (port, stop) = (free_port().await?, CancellationToken::new());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let zone = Zone::new(DOMAIN, DNS_IP);
    let server = tokio::spawn(network::fixed::serve_dns(address, zone, Some(test.client.clone()), stop.clone()));
    let client = Client::new(port).await?;
    let name = format!("db.default.svc.{DOMAIN}");
    let mut times = Vec::new();
    for round in 0..=CHANGES {
        let wanted = [Ipv4Addr::new(10, 200, 1, u8::try_from(round)? + 1)];
        let begun = Instant::now();
        let patch = json!({"endpoints": endpoints(round)});
        slices.patch("db-1", &PatchParams::default(), &Patch::Merge(patch)).await?;
        while client.ask(round as u16, &name).await.ok().as_deref() != Some(&wanted) {
            ensure!(begun.elapsed() < Duration::from_secs(5), "the answer does not follow");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        // The first waits for the server to learn of the Service.
        if round > 0 {
            times.push(begun.elapsed());
        }
    }
    stop.cancel();
    server.await??;
    times.sort();
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    println!("an answer follows a write of an endpoint after {median:.1?} (median of {CHANGES}; at most {last:.1?})");
    Ok(())
}
