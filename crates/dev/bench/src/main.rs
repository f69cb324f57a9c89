//! Benchmarks that print rates and ratios measured in one run.

mod api;
mod dns;
mod ingress;
mod network;
mod proxies;
mod scheduler;
mod store;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// As in Tug's own program, which the servers here stand for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "bench", about = "Measure Tug")]
enum Bench {
    /// Durable writes of the embedded store, beside etcd where it is installed.
    Store {
        /// Where the stores write; give a directory of the disk that is meant.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Requests through a client: in process, or against the cluster of a kubeconfig.
    Api {
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
        /// Objects per measurement.
        #[arg(long, default_value_t = 2000)]
        objects: usize,
        /// Watchers that one write reaches.
        #[arg(long, default_value_t = 200)]
        watchers: usize,
    },
    /// The ingress beside nginx and haproxy, where they are installed: requests a second and for each second of
    /// processor time, HTTP and HTTPS.
    Ingress {
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Tug's proxy alone; `ingress` starts it.
    #[command(hide = true)]
    IngressProxy(ingress::Proxy),
    /// The node's DNS server beside dnsmasq and unbound, where they are installed, and how soon answers follow a change.
    Dns {
        #[arg(long, default_value_t = 10_000)]
        records: u32,
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Tug's DNS server alone; `dns` starts it.
    #[command(hide = true)]
    DnsAlone(dns::Alone),
    /// Placement decisions over many nodes.
    Scheduler {
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        #[arg(long, default_value_t = 10_000)]
        pods: usize,
    },
    /// Service rules in the kernel, with few Services and with many; needs root.
    Network {
        #[arg(long, default_value_t = 10_000)]
        services: u32,
    },
}

fn main() -> Result<()> {
    let bench = Bench::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match bench {
        Bench::Store { directory, seconds } => runtime.block_on(store::run(&directory, seconds)),
        Bench::Api { kubeconfig, objects, watchers } => runtime.block_on(api::run(kubeconfig, objects, watchers)),
        Bench::Ingress { seconds } => runtime.block_on(ingress::run(seconds)),
        Bench::IngressProxy(proxy) => runtime.block_on(ingress::proxy(proxy)),
        Bench::Dns { records, seconds } => runtime.block_on(dns::run(records, seconds)),
        Bench::DnsAlone(alone) => runtime.block_on(dns::alone(alone)),
        Bench::Scheduler { nodes, pods } => scheduler::run(nodes, pods),
        Bench::Network { services } => network::run(services),
    }
}
