//! What must be true after each step, whatever went wrong before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use placement::pod::PREEMPTED_REASON;
use placement::resources::Resources;

use crate::api::{Api, Event};
use crate::job_laws::JobBooks;
use crate::nodes::Machine;
use crate::object::{Object, View};
use crate::quota::within_quotas;
use crate::scenario::{Bounds, VIP_PRIORITY};

#[derive(Default)]
pub struct Laws {
    position: usize,
    jobs: JobBooks,
}

impl Laws {
    /// Judges what happened since the last call.
    pub fn check(&mut self, api: &Api, machines: &[Machine], bounds: Option<&Bounds>) -> Result<(), String> {
        identity_is_unique(api, machines)?;
        if self.position == api.revision() {
            return Ok(());
        }
        let (mut pods, mut fuller) = (false, BTreeSet::new());
        for event in &api.events[self.position..] {
            pods |= event.name.0 == "Pod";
            fuller.extend(fuller_node(event));
            bound_once(event)?;
            only_the_less_important_make_room(event)?;
            self.jobs.judge(event)?;
            within_quotas(api, event)?;
        }
        self.position = api.revision();
        fuller.into_iter().try_for_each(|node| is_not_overcommitted(api, node))?;
        if pods {
            one_daemon_per_node(api)?;
            bounds.map_or(Ok(()), |bounds| within(api, bounds))?;
        }
        Ok(())
    }

    /// At the end: every pod that ended under a Job was counted.
    pub fn all_counted(&self) -> Result<(), String> {
        self.jobs.all_counted()
    }
}

fn bound_once(event: &Event) -> Result<(), String> {
    let (Some(old), Some(new)) = (&event.old, &event.new) else { return Ok(()) };
    match (old.pod(), new.pod()) {
        (Some(before), Some(now)) if !before.node.is_empty() && before.node != now.node && old.uid == new.uid => {
            Err(format!("{} was on {} and is on {}", event.name.1, before.node, now.node))
        }
        _ => Ok(()),
    }
}

fn only_the_less_important_make_room(event: &Event) -> Result<(), String> {
    let Some(View::Pod(_, pod)) = event.new.as_ref().map(|pod| &pod.view) else { return Ok(()) };
    if pod.preempted && pod.priority >= VIP_PRIORITY {
        return Err(format!("{} is of the highest priority and goes for {PREEMPTED_REASON}", pod.name));
    }
    Ok(())
}

/// The node that has less room than before the event.
fn fuller_node(event: &Event) -> Option<&str> {
    if event.name.0 == "Node" {
        return Some(&event.name.1);
    }
    let pod = event.new.as_ref()?.pod().filter(|pod| !pod.node.is_empty())?;
    let before = event.old.as_ref().and_then(|old| old.pod()).map(|old| old.node.as_str());
    (before != Some(&pod.node)).then_some(&pod.node)
}

fn is_not_overcommitted(api: &Api, node: &str) -> Result<(), String> {
    let Some(View::Node(_, spec)) = api.get("Node", node).map(|node| &node.view) else { return Ok(()) };
    let (mut requests, mut pods) = (Resources::default(), 0);
    for pod in api.list("Pod") {
        let View::Pod(view, info) = &pod.view else { continue };
        if view.node == node && !view.is_finished() {
            requests.add(&info.requests);
            pods += 1;
        }
    }
    let (asked, there) = (requests.get("cpu"), spec.allocatable.get("cpu"));
    if asked > there || pods > spec.allocatable.get("pods") {
        return Err(format!("{node} is overcommitted: {pods} pods, {asked}m of {there}m CPU"));
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
    let labelled = |label: &str| -> Vec<&Arc<reconcile::PodView>> {
        let pods = api.list("Pod").filter_map(|pod: &Arc<Object>| pod.pod());
        pods.filter(|pod| pod.is_active() && pod.labels.get("app").map(String::as_str) == Some(label)).collect()
    };
    let web = labelled("web");
    let ready = web.iter().filter(|pod| pod.is_available(bounds.min_ready, api.wall())).count();
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
