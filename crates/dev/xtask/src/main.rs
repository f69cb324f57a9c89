//! The project's one door for tools: up, example, test, tidy, bench, conformance.

mod conformance;
mod example;
mod packages;
mod run;
mod test;
mod tidy;
mod up;

use anyhow::Result;
use clap::Parser;

/// So many histories are worth an optimised build.
const SIM_SEEDS_LONG: u64 = 2_000;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, try and check Tug")]
enum Task {
    /// From a clean clone to a running three-node cluster with the demo application answering.
    Up(up::Options),
    /// The application of three tiers in `examples/notes.yaml`, on a running cluster.
    Example(example::Options),
    /// Every check: packages, format, lints, tidy, unit, integration and end-to-end tests.
    Test(test::Options),
    /// Layers, file headers, and the longest files and functions.
    Tidy,
    /// Benchmarks; figures are ratios measured in one run.
    Bench {
        /// Passed on: a benchmark's name and its options.
        args: Vec<String>,
    },
    /// Random histories of a simulated cluster; each seed tells the same one again.
    Sim {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// The first of them; with `--seeds 1` this one alone.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// The public Kubernetes conformance suite against a Tug cluster, where it has been built.
    Conformance(conformance::Options),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Up(options) => up::run(&options),
        Task::Example(options) => example::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Tidy => tidy::run(),
        Task::Bench { args } => {
            run::cargo(&["build", "--release", "--package", "bench"])?;
            let words: Vec<&str> = args.iter().map(String::as_str).collect();
            run::program(run::target("release").join("bench"), &words)
        }
        Task::Sim { seeds, seed } => {
            let (seeds, seed, long) = (seeds.to_string(), seed.to_string(), seeds >= SIM_SEEDS_LONG);
            let profile = if long { "release" } else { "dev" };
            run::cargo(&["run", "--profile", profile, "--package", "sim", "--", &seeds, &seed])
        }
        Task::Conformance(options) => conformance::run(&options),
    }
}
