//! How a Pod shows in a table: readiness, the status word that sums it up, restarts.

use meta::time;
use serde_json::Value;

use crate::columns::{self, or_none};
use crate::json::{flag, has, int, list, text};
use crate::kind::Column;

pub fn columns() -> Vec<Column> {
    vec![
        columns::name(),
        Column::new("Ready", "string", "Containers that are ready, of all.", |pod, _| Summary::of(pod).ready().into()),
        Column::new("Status", "string", "The state of the pod in one word.", |pod, _| Summary::of(pod).reason.into()),
        Column::new("Restarts", "string", "Restarts of the containers, and the last one's age.", |pod, now| {
            Summary::of(pod).restarts(now).into()
        }),
        columns::age(),
        Column::new("IP", "string", "The pod's first address.", |pod, _| or_none(text(pod, "status.podIP"))).wide(),
        Column::new("Node", "string", "The node it runs on.", |pod, _| or_none(text(pod, "spec.nodeName"))).wide(),
        Column::new("Nominated Node", "string", "The node where preemption makes room for it.", |pod, _| {
            or_none(text(pod, "status.nominatedNodeName"))
        })
        .wide(),
        Column::new("Readiness Gates", "string", "Extra conditions that hold, of all.", |pod, _| gates(pod)).wide(),
    ]
}

fn gates(pod: &Value) -> Value {
    let gates = list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |gate: &&Value| condition(pod, text(gate, "conditionType")).is_some_and(|c| c["status"] == "True");
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len()).into()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list(pod, "status.conditions").iter().find(|condition| condition["type"] == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Restarts with the time of the last one, in seconds.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<i64>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += int(status, "restartCount");
        self.last = self.last.max(time::parse_seconds(text(status, "lastState.terminated.finishedAt")));
    }
}

/// What the columns say about a pod.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

/// `Error`, `OOMKilled`, `Signal:9` or `ExitCode:1`.
fn ended(terminated: &Value) -> String {
    match (text(terminated, "reason"), int(terminated, "signal"), int(terminated, "exitCode")) {
        ("", 0, code) => format!("ExitCode:{code}"),
        ("", signal, _) => format!("Signal:{signal}"),
        (reason, _, _) => reason.to_owned(),
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = text(pod, "status.phase");
        let mut reason = text(pod, "status.reason");
        if reason.is_empty() {
            reason = phase;
        }
        if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
            reason = "SchedulingGated";
        }
        let sidecars = list(pod, "spec.initContainers").iter().filter(|c| c["restartPolicy"] == "Always");
        let total = list(pod, "spec.containers").len() + sidecars.count();
        let mut summary = Self { reason: reason.to_owned(), ready: 0, total, restarts: Restarts::default() };
        let (initializing, sidecars) = summary.read_init(pod);
        if !initializing || is_true(pod, "Initialized") {
            summary.restarts = sidecars;
            summary.read_containers(pod);
        }
        if has(pod, "metadata.deletionTimestamp") {
            if text(pod, "status.reason") == "NodeLost" {
                "Unknown".clone_into(&mut summary.reason);
            } else if !matches!(phase, "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut summary.reason);
            }
        }
        summary
    }

    /// Whether init containers still hold the pod up, and the restarts of those that keep running.
    fn read_init(&mut self, pod: &Value) -> (bool, Restarts) {
        let specs = list(pod, "spec.initContainers");
        let mut sidecars = Restarts::default();
        for (i, status) in list(pod, "status.initContainerStatuses").iter().enumerate() {
            let sidecar = specs.iter().any(|c| c["name"] == status["name"] && c["restartPolicy"] == "Always");
            self.restarts.add(status);
            if sidecar {
                sidecars.add(status);
            }
            let terminated = &status["state"]["terminated"];
            let waiting = text(status, "state.waiting.reason");
            if !terminated.is_null() && int(terminated, "exitCode") == 0 {
                continue;
            }
            if sidecar && flag(status, "started") {
                self.ready += usize::from(flag(status, "ready"));
                continue;
            }
            self.reason = if !terminated.is_null() {
                format!("Init:{}", ended(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{i}/{}", specs.len())
            };
            return (true, sidecars);
        }
        (false, sidecars)
    }

    fn read_containers(&mut self, pod: &Value) {
        let (mut running, mut failure) = (false, None);
        for status in list(pod, "status.containerStatuses").iter().rev() {
            self.restarts.add(status);
            let terminated = &status["state"]["terminated"];
            let waiting = text(status, "state.waiting.reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if !terminated.is_null() {
                self.reason = ended(terminated);
                if int(terminated, "exitCode") != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if flag(status, "ready") && has(status, "state.running") {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && is_true(pod, "Ready") {
                "Running".clone_into(&mut self.reason);
            } else if let Some(failure) = failure {
                self.reason = failure;
            } else if running {
                "NotReady".clone_into(&mut self.reason);
            }
        }
    }

    fn ready(&self) -> String {
        format!("{}/{}", self.ready, self.total)
    }

    fn restarts(&self, now: i64) -> String {
        match self.restarts {
            Restarts { count: count @ 1.., last: Some(last) } => {
                format!("{count} ({} ago)", time::human_duration(now.saturating_sub(last)))
            }
            Restarts { count, .. } => count.to_string(),
        }
    }
}
