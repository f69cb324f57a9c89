//! The control plane dies in the middle of a rollout; what runs goes on, and the rollout ends when it is back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Load, Scope, eventually};
use machine::processes::Process;
use nix::sys::signal::Signal;

const DEMO: &str = include_str!("../../../../../examples/demo.yaml");

/// Container id and restarts of each pod.
fn containers(scope: &Scope<'_>, name: &str) -> Result<BTreeMap<String, (String, i64)>> {
    let pods = scope.get(&format!("pods -l app={name}"))?;
    let pods = pods["items"].as_array().context("no list")?;
    let container = |pod: &serde_json::Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let id = status["containerID"].as_str().unwrap_or_default().to_owned();
        (
            pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            (id, status["restartCount"].as_i64().unwrap_or(-1)),
        )
    };
    Ok(pods.iter().map(container).collect())
}

pub fn of_the_control_plane(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "crash")?;
    scope.apply(&format!("{}---\n{DEMO}", DEMO.replace("demo", "steady").replace("local/steady", "local/demo")))?;
    scope.rolled_out("steady")?;
    scope.rolled_out("demo")?;
    scope.run("scale deployment demo --replicas 9")?;
    scope.rolled_out("demo")?;
    let before = containers(&scope, "steady")?;
    ensure!(before.len() == 3 && before.values().all(|(id, restarts)| !id.is_empty() && *restarts == 0), "{before:?}");

    let address = cluster.service("crash", "steady")?.parse()?;
    eventually(Duration::from_secs(10), "the Service answers", || {
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        Ok(())
    })?;
    let load = Load::start(address, 50);
    scope.run("set env deployment/demo ROUND=2")?;
    eventually(Duration::from_secs(20), "the rollout is under way", || {
        let updated = scope.field("deployment demo", "{.status.updatedReplicas}")?.parse::<u32>().unwrap_or(0);
        ensure!(updated >= 1, "{updated} are updated");
        Ok(())
    })?;
    let server = Process::read(&cluster.dir().join("server.pid")).context("no control plane runs")?;
    server.signal(Signal::SIGKILL);
    eventually(Duration::from_secs(5), "it is dead", || {
        ensure!(!server.is_running());
        Ok(())
    })?;
    scope.fails("get pods", &["refused"])?;
    cluster.up(3).context("tug up after a crash")?;

    scope.rolled_out("demo")?;
    let outcome = load.stop();
    let updated = scope.field("deployment demo", "{.status.updatedReplicas}")?;
    ensure!(updated == "9", "{updated} are updated");
    let after = containers(&scope, "steady")?;
    ensure!(before == after, "containers were touched: {before:?} became {after:?}");
    let demo = containers(&scope, "demo")?;
    ensure!(demo.values().all(|(_, restarts)| *restarts == 0), "the rollout's containers restarted: {demo:?}");
    ensure!(outcome.failed == 0 && outcome.answered > 0, "the Service did not answer all the time: {outcome:?}");
    scope.delete()
}
