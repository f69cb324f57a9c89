//! `tug status`: what runs on this machine for a cluster, and what the cluster says of its nodes.

use std::fs;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use machine::processes::Process;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::connect::{self, Target};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// `json` for programs.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

pub fn run(options: &Options) -> Result<()> {
    let cluster = options.target.cluster()?;
    let report = super::block_on(async { Ok(report(&cluster).await) })?;
    if options.output == "json" {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    if report["ready"] == true {
        Ok(())
    } else {
        anyhow::bail!("cluster {:?} is not ready; start it with: tug up --name {}", cluster.name, cluster.name)
    }
}

async fn report(cluster: &Cluster) -> Value {
    let nodes = match connect::client(&cluster.admin_kubeconfig()).await {
        Ok(client) => Api::<Node>::all(client).list(&ListParams::default()).await.map_err(|error| error.to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    let mut processes = vec![process("server", Process::read(&cluster.pid_file()))];
    processes.extend(
        cluster
            .local_nodes()
            .skip(1)
            .map(|node| process(&format!("agent {}", node.name), Process::read(&node.pid_file()))),
    );
    let (rows, api) = match nodes {
        Ok(list) => (list.items.iter().map(node_row).collect(), json!("ready")),
        Err(error) => (Vec::new(), json!(error)),
    };
    let ready = !rows.is_empty() && rows.iter().all(|row: &Value| row["ready"] == true);
    json!({
        "name": cluster.name, "directory": cluster.dir, "server": format!("https://127.0.0.1:{}", cluster.port),
        "datastore": cluster.datastore, "ready": ready, "api": api, "processes": processes, "nodes": rows,
    })
}

fn process(role: &str, process: Option<Process>) -> Value {
    match process {
        Some(process) => json!({"role": role, "pid": process.pid, "residentBytes": resident_bytes(process.pid)}),
        None => json!({"role": role, "pid": null}),
    }
}

/// Resident memory by `/proc/PID/status`.
fn resident_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn node_row(node: &Node) -> Value {
    let status = node.status.as_ref();
    let ready = status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"));
    let address = status.and_then(|s| s.addresses.as_ref()?.iter().find(|a| a.type_ == "InternalIP"));
    json!({
        "name": node.metadata.name, "ready": ready.is_some_and(|c| c.status == "True"),
        "reason": ready.and_then(|c| c.reason.clone()), "address": address.map(|a| a.address.clone()),
    })
}

fn print(report: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    println!(
        "cluster {} at {} (data in {}, datastore {})",
        text(&report["name"]),
        text(&report["server"]),
        text(&report["directory"]),
        text(&report["datastore"])
    );
    println!("api     {}", text(&report["api"]));
    for process in report["processes"].as_array().into_iter().flatten() {
        match (process["pid"].as_i64(), process["residentBytes"].as_u64()) {
            (Some(pid), Some(bytes)) => {
                println!("process {} runs as {pid}, {} MB resident", text(&process["role"]), bytes >> 20)
            }
            _ => println!("process {} does not run", text(&process["role"])),
        }
    }
    for node in report["nodes"].as_array().into_iter().flatten() {
        let state =
            if node["ready"] == true { "Ready".to_owned() } else { format!("NotReady ({})", text(&node["reason"])) };
        println!("node    {} {} {state}", text(&node["name"]), text(&node["address"]));
    }
}
