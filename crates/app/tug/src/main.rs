//! The tug command: verbs, configuration and wiring.

mod cluster;
mod connect;
mod control_plane;
mod footprint;
mod logging;
mod node;
mod notify;
mod progress;
mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use verbs::{agent, down, image, kubeconfig, server, status, token, up, why};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kubernetes in one small program.
#[derive(Parser)]
#[command(name = "tug", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make or start a cluster on this machine, in the background, and wait until it is ready.
    Up(up::Options),
    /// Stop a cluster; with --delete also remove everything it left on this machine.
    Down(down::Options),
    /// What runs, and how it is.
    Status(status::Options),
    /// The control plane and this machine's node in the foreground, for service managers.
    Server(server::Options),
    /// One more node in the foreground.
    Agent(agent::Options),
    /// Tokens with which machines join.
    Token(token::Options),
    /// Print the administrator's kubeconfig.
    Kubeconfig(kubeconfig::Options),
    /// What stands in the way of a pod, workload, claim, Service, Ingress, node or namespace, and what would help.
    Why(why::Options),
    /// Images of local nodes.
    Image(image::Options),
}

fn main() -> ExitCode {
    // Flags and verbs that do not exist end here with code 2.
    let outcome = match Cli::parse().verb {
        Verb::Up(options) => up::run(options),
        Verb::Down(options) => down::run(&options),
        Verb::Status(options) => status::run(&options),
        Verb::Server(options) => server::run(options),
        Verb::Agent(options) => agent::run(options),
        Verb::Token(options) => token::run(options),
        Verb::Kubeconfig(options) => kubeconfig::run(&options),
        Verb::Why(options) => why::run(&options),
        Verb::Image(options) => image::run(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tug: {error:#}");
            if error.is::<verbs::WrongUsage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
