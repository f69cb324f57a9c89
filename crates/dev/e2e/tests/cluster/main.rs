//! End to end: one three-node cluster with real containers, and one scenario after the other on it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod autoscale;
mod bad_input;
mod bad_workloads;
mod batch;
mod clients;
mod clients_workloads;
mod crash;
mod example;
mod heal;
mod identity;
mod ingress;
mod inside;
mod join;
mod jumps;
mod life;
mod limits;
mod network;
mod partition;
mod policy;
mod rollout;
mod services;
mod storage;
mod tour;
mod why;
mod workloads_plain;
mod workloads_sets;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use e2e::Cluster;

type Scenario = (&'static str, fn(&Cluster) -> Result<()>);

const SCENARIOS: &[Scenario] = &[
    ("autoscale::top_soon_after_up", autoscale::top_soon_after_up),
    ("tour::objects", tour::objects),
    ("tour::rollouts", tour::rollouts),
    ("tour::nodes", tour::nodes),
    ("inside::sees_its_configuration", inside::sees_its_configuration),
    ("inside::logs", inside::logs),
    ("clients::kube_rs", clients::kube_rs),
    ("clients_workloads::kube_rs", clients_workloads::kube_rs),
    ("network::services_and_names", network::services_and_names),
    ("policy::guards_pods", policy::guards_pods),
    ("services::features", services::features),
    ("rollout::loses_no_request", rollout::loses_no_request),
    ("ingress::routes_and_certificates", ingress::routes_and_certificates),
    ("ingress::gateways", ingress::gateways),
    ("ingress::slow_clients", ingress::slow_clients),
    ("workloads_sets::stateful_set", workloads_sets::stateful_set),
    ("workloads_sets::daemon_set", workloads_sets::daemon_set),
    ("autoscale::follows_load", autoscale::follows_load),
    ("workloads_plain::replica_set", workloads_plain::replica_set),
    ("workloads_plain::replication_controller", workloads_plain::replication_controller),
    ("storage::claims", storage::claims),
    ("storage::refusals", storage::refusals),
    ("storage::stateful_set", storage::stateful_set),
    ("limits::preemption", limits::preemption),
    ("limits::quota", limits::quota),
    ("bad_input::to_the_api", bad_input::to_the_api),
    ("bad_input::to_the_command_line", bad_input::to_the_command_line),
    ("bad_workloads::are_refused", bad_workloads::are_refused),
    ("bad_workloads::are_explained", bad_workloads::are_explained),
    ("why::of_broken_manifests", why::of_broken_manifests),
    ("batch::jobs", batch::jobs),
    ("batch::drain", batch::drain),
    ("life::stop_signal", life::stop_signal),
    ("life::resize", life::resize),
    ("life::resize_by_restart", life::resize_by_restart),
    ("life::resize_waits_for_room", life::resize_waits_for_room),
    ("jumps::of_the_clock", jumps::of_the_clock),
    ("heal::container_and_pod", heal::container_and_pod),
    ("example::three_tiers", example::three_tiers),
    ("crash::of_the_control_plane", crash::of_the_control_plane),
    ("heal::node", heal::node),
    ("partition::heals", partition::heals),
    ("identity::of_a_stateful_set", identity::of_a_stateful_set),
    // Last: a cluster gains a node.
    ("join::daemon_set_follows", join::daemon_set_follows),
];

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted = SCENARIOS
        .iter()
        .filter(|(name, _)| filter.as_deref().is_none_or(|parts| parts.split(',').any(|part| name.contains(part))));
    let started = Instant::now();
    let cluster = match Cluster::start(3) {
        Ok(cluster) => cluster,
        Err(error) => {
            println!("the cluster does not come up: {error:#}");
            println!("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = e2e::import_busybox(&cluster) {
        println!("no shell in the cluster: {error:#}");
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, scenario) in wanted {
        let begun = Instant::now();
        match scenario(&cluster) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({:.1} s)", begun.elapsed().as_secs_f64());
            }
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED ({:.1} s)\n{error:#}", begun.elapsed().as_secs_f64());
            }
        }
    }
    drop(cluster);
    let (word, seconds) = (if failed == 0 { "ok" } else { "FAILED" }, started.elapsed().as_secs_f64());
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {seconds:.2}s"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
