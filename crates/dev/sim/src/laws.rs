//! What must be true after each step, whatever went wrong before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use placement::resources::Resources;

use crate::api::{Api, Event};
use crate::nodes::Machine;
use crate::object::{Object, View};
use crate::scenario::Bounds;

#[derive(Default)]
pub struct Laws {
    position: usize,
    /// Pods that a Job's status ever recorded, by how they ended.
    recorded: [BTreeSet<String>; 2],
    /// Pods that ended while their Job tracked them.
    ended: [BTreeSet<String>; 2],
}

const COUNTS: [&str; 2] = ["succeeded", "failed"];

impl Laws {
    /// Judges what happened since the last call.
    pub fn check(&mut self, api: &Api, machines: &[Machine], bounds: Option<&Bounds>) -> Result<(), String> {
        if self.position == api.revision() {
            return Ok(());
        }
        for event in &api.events[self.position..] {
            bound_once(event)?;
            self.job_counts(event)?;
        }
        self.position = api.revision();
        no_node_is_overcommitted(api)?;
        identity_is_unique(api, machines)?;
        one_daemon_per_node(api)?;
        bounds.map_or(Ok(()), |bounds| within(api, bounds))
    }

    /// Each pod is recorded once, and the counts are those of the recorded pods.
    fn job_counts(&mut self, event: &Event) -> Result<(), String> {
        if let Some(pod) =
            event.new.as_ref().filter(|pod| is_tracked(pod) && pod.pod().is_some_and(|p| p.is_finished()))
        {
            let failed = usize::from(pod.text("/status/phase") == "Failed");
            self.ended[failed].insert(pod.uid().to_owned());
        }
        if let (Some(old), Some(new)) = (&event.old, &event.new)
            && is_tracked(old)
            && !is_tracked(new)
            && new.pod().is_some_and(|pod| pod.is_finished())
            && !self.recorded.iter().any(|known| known.contains(new.uid()))
            && new.owner().is_some_and(|owner| owner == old.owner().unwrap_or_default())
            && !new.text("/metadata/name").starts_with("doomed")
        {
            return Err(format!("{} was freed before it was counted", event.name.1));
        }
        let Some(new) = event.new.as_ref().filter(|new| new.job().is_some()) else { return Ok(()) };
        let uncounted = |job: &Object, kind: &str| -> BTreeSet<String> {
            let list = job.value["status"]["uncountedTerminatedPods"][kind].as_array().cloned().unwrap_or_default();
            list.iter().filter_map(|uid| uid.as_str().map(str::to_owned)).collect()
        };
        for (index, kind) in COUNTS.iter().enumerate() {
            let before = event.old.as_ref().map(|old| uncounted(old, kind)).unwrap_or_default();
            let after = uncounted(new, kind);
            for uid in after.difference(&before) {
                if self.recorded.iter().any(|known| known.contains(uid)) {
                    return Err(format!("{uid} is counted twice"));
                }
                self.recorded[index].insert(uid.clone());
            }
            let counted = self.recorded[index].len() - after.len();
            let said = new.value["status"][*kind].as_u64().unwrap_or(0);
            if said != counted as u64 {
                return Err(format!("the Job says {said} {kind}, {counted} were recorded"));
            }
        }
        Ok(())
    }

    /// At the end: every pod that ended under a Job was counted.
    pub fn all_counted(&self) -> Result<(), String> {
        for ((kind, ended), recorded) in COUNTS.iter().zip(&self.ended).zip(&self.recorded) {
            if let Some(uid) = ended.difference(recorded).next() {
                return Err(format!("{uid} ended and was not counted as {kind}"));
            }
        }
        Ok(())
    }
}

fn is_tracked(pod: &Arc<Object>) -> bool {
    let finalizers = pod.pod().map(|pod| pod.finalizers.as_slice()).unwrap_or_default();
    finalizers.iter().any(|finalizer| finalizer == reconcile::job::TRACKING)
}

fn bound_once(event: &Event) -> Result<(), String> {
    let node = |object: &Option<Arc<Object>>| object.as_ref().and_then(|o| o.pod()).map(|pod| pod.node.clone());
    match (node(&event.old), node(&event.new)) {
        (Some(old), Some(new)) if !old.is_empty() && old != new => {
            Err(format!("{} was on {old} and is on {new}", event.name.1))
        }
        _ => Ok(()),
    }
}

fn no_node_is_overcommitted(api: &Api) -> Result<(), String> {
    let mut used: BTreeMap<&str, (Resources, i64)> = BTreeMap::new();
    for pod in api.list("Pod") {
        let View::Pod(view, info) = &pod.view else { continue };
        if !view.node.is_empty() && !view.is_finished() {
            let (requests, pods) = used.entry(&view.node).or_default();
            requests.add(&info.requests);
            *pods += 1;
        }
    }
    for node in api.list("Node") {
        let View::Node(_, spec) = &node.view else { continue };
        let Some((requests, pods)) = used.get(spec.name.as_str()) else { continue };
        let cpu = (requests.get("cpu"), spec.allocatable.get("cpu"));
        if cpu.0 > cpu.1 || *pods > spec.allocatable.get("pods") {
            return Err(format!("{} is overcommitted: {pods} pods, {}m of {}m CPU", spec.name, cpu.0, cpu.1));
        }
    }
    Ok(())
}

/// Of each name of a StatefulSet, one pod runs in the whole cluster, also on machines that nobody hears of.
fn identity_is_unique(api: &Api, machines: &[Machine]) -> Result<(), String> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for machine in machines {
        for name in machine.running.keys().filter(|name| name.starts_with("set-")) {
            if let Some(other) = seen.insert(name, &machine.name) {
                return Err(format!("{name} runs on {other} and on {}, revision {}", machine.name, api.revision()));
            }
        }
    }
    Ok(())
}

fn one_daemon_per_node(api: &Api) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for pod in api.list("Pod").filter_map(|pod| pod.pod()).filter(|pod| pod.daemon && pod.is_active()) {
        if !seen.insert(&pod.target_node) {
            return Err(format!("two daemons are meant for {}", pod.target_node));
        }
    }
    Ok(())
}

/// Surge, availability and budget, in histories where nothing but Tug takes pods away.
fn within(api: &Api, bounds: &Bounds) -> Result<(), String> {
    let labelled = |label: &str| {
        let pods = api.list("Pod").filter_map(|pod| pod.pod());
        pods.filter(|pod| pod.is_active() && pod.labels.get("app").map(String::as_str) == Some(label))
            .collect::<Vec<_>>()
    };
    let web = labelled("web");
    let ready = web.iter().filter(|pod| pod.is_available(bounds.min_ready, api.now)).count();
    if web.len() > bounds.most {
        return Err(format!("{} pods of the Deployment, at most {}", web.len(), bounds.most));
    }
    if ready < bounds.least {
        return Err(format!("{ready} pods of the Deployment are available, at least {}", bounds.least));
    }
    let guarded = labelled("guarded").iter().filter(|pod| pod.ready).count();
    if guarded < bounds.guarded {
        return Err(format!("{guarded} guarded pods are ready, the budget says {}", bounds.guarded));
    }
    Ok(())
}
