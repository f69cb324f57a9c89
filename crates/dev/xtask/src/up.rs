//! From a clean clone to a running cluster with the demo application answering.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{packages, run};

const MANIFEST: &str = "examples/demo.yaml";
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub struct Options {
    /// Nodes of the cluster; those beyond the first live in network namespaces of this machine.
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// Name of the cluster.
    #[arg(long, default_value = "tug")]
    name: String,
}

/// # Errors
/// The step that failed, with what to do about it.
pub fn run(options: &Options) -> Result<()> {
    packages::for_running()?;
    run::cargo(&["build", "--release", "--package", "tug"])?;
    let tug = run::target("release").join("tug");
    run::program(&tug, &["up", "--nodes", &options.nodes.to_string(), "--name", &options.name])?;
    let kubeconfig = run::output(&tug, &["kubeconfig", "--name", &options.name, "--path"])?;
    demo(kubeconfig.trim())
}

/// Applies the demo application and asks it through its Service until it answers.
fn demo(kubeconfig: &str) -> Result<()> {
    let started = Instant::now();
    let kubectl = |args: &[&str]| run::program("kubectl", &[&["--kubeconfig", kubeconfig], args].concat());
    kubectl(&["apply", "-f", MANIFEST])?;
    kubectl(&["rollout", "status", "deployment/demo", "--timeout=60s"])?;
    let template = "{.spec.clusterIP}:{.spec.ports[0].port}";
    let query = ["--kubeconfig", kubeconfig, "get", "service", "demo", "-o", &format!("jsonpath={template}")];
    let address = run::output("kubectl", &query)?;
    let address = address.trim();
    let until = Instant::now() + ANSWER_WITHIN;
    loop {
        match ask(address) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => {
                let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().trim().to_owned();
                println!(
                    "the demo Service answers at http://{address} after {:.1} s: {body}",
                    started.elapsed().as_secs_f64()
                );
                return Ok(());
            }
            Ok(answer) if Instant::now() > until => bail!("http://{address} answers: {answer}"),
            Err(error) if Instant::now() > until => {
                return Err(error).with_context(|| {
                    format!("http://{address} does not answer; see `kubectl describe deployment demo`")
                });
            }
            _ => sleep(LOOK_AGAIN),
        }
    }
}

fn ask(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
