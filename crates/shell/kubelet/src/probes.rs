//! The probes of one running container, from its start to its end.

use crate::check;
use crate::node::Node;
use crate::usage::ProbeKey;
use client::EventKind;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use podsync::{ProbeKind, ProbeSettings, ProbeTracker, ProbeVerdict};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A verdict that the pod's worker has to know.
#[derive(Debug)]
pub struct Verdict {
    /// Container id.
    pub id: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// Passed, or failed often enough.
    pub passed: bool,
}

/// What is probed.
pub struct Target {
    /// The node.
    pub node: Arc<Node>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container in it.
    pub spec: Container,
    /// Its runtime id.
    pub id: String,
    /// The pod's address.
    pub ip: String,
    /// Whether it is an init container.
    pub init: bool,
    /// Started this long ago already (after the node agent restarted).
    pub age: Duration,
    /// Where verdicts go.
    pub verdicts: mpsc::UnboundedSender<Verdict>,
}

/// Runs the startup probe to its verdict, then liveness and readiness until dropped; `kills` ends all but readiness.
pub async fn run(target: Target, kills: CancellationToken) {
    if let Some(probe) = &target.spec.startup_probe
        && kills.run_until_cancelled(target.series(ProbeKind::Startup, probe)).await != Some(true)
    {
        return;
    }
    let liveness = async {
        if let Some(probe) = &target.spec.liveness_probe {
            kills.run_until_cancelled(target.series(ProbeKind::Liveness, probe)).await;
        }
    };
    let readiness = async {
        if let Some(probe) = &target.spec.readiness_probe {
            target.series(ProbeKind::Readiness, probe).await;
        }
    };
    tokio::join!(liveness, readiness);
}

impl Target {
    fn count(&self, kind: ProbeKind, passed: bool) {
        let meta = &self.pod.metadata;
        let pod = [&meta.namespace, &meta.name, &meta.uid].map(|text| text.clone().unwrap_or_default());
        self.node.counters.probe(ProbeKey { pod, container: self.spec.name.clone(), kind, passed });
    }

    /// Probes on and on; true when a startup probe passed, false when the container was given up.
    async fn series(&self, kind: ProbeKind, probe: &Probe) -> bool {
        let settings = ProbeSettings::from(probe);
        let mut tracker = ProbeTracker::default();
        let mut told = None;
        let delay = Duration::from_secs(settings.initial_delay).saturating_sub(self.age);
        let mut next = Instant::now() + delay;
        loop {
            tokio::time::sleep_until(next).await;
            next += Duration::from_secs(settings.period);
            let limit = Duration::from_secs(settings.timeout);
            let outcome = check::probe(&self.node, &self.spec, &self.id, &self.ip, probe, limit).await;
            next = next.max(Instant::now());
            self.count(kind, outcome.is_ok());
            if let Err(cause) = &outcome {
                let text = format!("{} probe failed: {cause}", kind.as_str());
                let at = Some((self.spec.name.as_str(), self.init));
                self.node.event(&self.pod, at, EventKind::Warning, "Unhealthy", text);
            }
            let passed = match tracker.record(&settings, outcome.is_ok()) {
                ProbeVerdict::Undecided => continue,
                ProbeVerdict::Passed => true,
                ProbeVerdict::Failed => false,
            };
            if told != Some(passed) {
                told = Some(passed);
                let _ = self.verdicts.send(Verdict { id: self.id.clone(), kind, passed });
            }
            match kind {
                ProbeKind::Startup => return passed,
                ProbeKind::Liveness if !passed => return false,
                _ => {}
            }
        }
    }
}
