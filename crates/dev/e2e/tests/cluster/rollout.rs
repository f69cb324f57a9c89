//! Rolling updates under load lose no request.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Cluster, Load, eventually};

const NAMESPACE: &str = "rollout";
const PER_SECOND: u32 = 500;
/// Enough to meet the races; the acceptance run does twenty (`TUG_E2E_ROLLOUTS=20`).
const ROLLOUTS: u32 = 5;

pub fn loses_no_request(cluster: &Cluster) -> Result<()> {
    let rollouts = std::env::var("TUG_E2E_ROLLOUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROLLOUTS);
    cluster.new_namespace(NAMESPACE)?;
    cluster.kubectl(&[
        "apply",
        "-n",
        NAMESPACE,
        "-f",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../../examples/demo.yaml"),
    ])?;
    cluster.kubectl(&["rollout", "status", "deployment/demo", "-n", NAMESPACE, "--timeout=60s"])?;
    let address = cluster.service(NAMESPACE, "demo")?.parse()?;
    eventually(Duration::from_secs(10), "the Service answers", || {
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        Ok(())
    })?;
    let load = Load::start(address, PER_SECOND);
    for round in 0..rollouts {
        cluster.kubectl(&["set", "env", "deployment/demo", "-n", NAMESPACE, &format!("ROUND={round}")])?;
        cluster.kubectl(&["rollout", "status", "deployment/demo", "-n", NAMESPACE, "--timeout=120s"])?;
    }
    let outcome = load.stop();
    println!(
        "{rollouts} rollouts, {} answered in {:.1} s, {} failed",
        outcome.answered, outcome.seconds, outcome.failed
    );
    cluster.kubectl(&["delete", "namespace", NAMESPACE])?;
    ensure!(outcome.failed == 0, "{} requests failed: {:#?}", outcome.failed, outcome.errors);
    ensure!(
        outcome.answered as f64 > outcome.seconds * f64::from(PER_SECOND) / 2.0,
        "the load was not carried: {outcome:?}"
    );
    Ok(())
}
