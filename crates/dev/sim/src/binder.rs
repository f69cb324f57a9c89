//! The scheduler: the real one's memory and queue, fed by watches that lag, with bindings under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Cached, ObjectKey};
use jiff::Timestamp;
use placement::PodInfo;
use scheduler::Bound;
use scheduler::state::{Outcome, State};

use crate::api::{Api, Fault, NAMESPACE};
use crate::faults::Faults;
use crate::object::{Object, View};

pub struct Binder {
    state: State,
    position: usize,
    binds: Vec<(Arc<Cached<PodInfo>>, String)>,
    /// Only differences of instants matter; this one stands for `epoch`.
    base: Instant,
    epoch: Timestamp,
}

fn cached(object: &Object) -> Option<Arc<Cached<PodInfo>>> {
    let View::Pod(_, info) = &object.view else { return None };
    Some(Arc::new(Cached {
        key: ObjectKey::new(NAMESPACE, object.text("/metadata/name")),
        uid: object.uid().to_owned(),
        resource_version: object.text("/metadata/resourceVersion").to_owned(),
        deleting: object.is_deleting(),
        controller: None,
        view: (**info).clone(),
    }))
}

impl Binder {
    /// A fresh process, which lists everything.
    pub fn start(api: &Api, seed: u64) -> Self {
        let state = State::new("default-scheduler".to_owned(), seed);
        let (base, epoch) = (Instant::now(), api.now);
        let mut binder = Self { state, position: api.revision(), binds: Vec::new(), base, epoch };
        for ((kind, name), object) in &api.objects {
            binder.take(kind, name, Some(object), api.now);
        }
        binder
    }

    fn instant(&self, now: Timestamp) -> Instant {
        self.base + Duration::try_from(now.duration_since(self.epoch)).unwrap_or_default()
    }

    fn take(&mut self, kind: &str, name: &str, object: Option<&Arc<Object>>, now: Timestamp) {
        let now = self.instant(now);
        match kind {
            "Pod" => {
                let pod = object.and_then(|object| cached(object));
                self.state.observe_pod(&ObjectKey::new(NAMESPACE, name), pod, now);
            }
            "Node" => {
                let spec =
                    object.and_then(|object| if let View::Node(_, spec) = &object.view { Some(spec) } else { None });
                self.state.observe_node(name, spec, now);
            }
            _ => {}
        }
    }

    /// Sees one event; false when there is none.
    pub fn observe(&mut self, api: &Api) -> bool {
        let Some(event) = api.events.get(self.position) else { return false };
        self.position += 1;
        self.take(event.name.0, &event.name.1, event.new.as_ref(), api.now);
        true
    }

    /// Decides about a pod, or writes a binding that was decided; what it was, in words.
    pub fn step(&mut self, api: &mut Api, faults: &mut Faults) -> Option<String> {
        let now = self.instant(api.now);
        self.state.tick(now);
        if !self.binds.is_empty() && (self.binds.len() > 3 || faults.dice.once_in(2)) {
            let (pod, node) = self.binds.remove(faults.dice.below(self.binds.len()));
            return Some(self.bind(&pod, node, api, faults));
        }
        match self.state.place_next(now)? {
            Outcome::Bind(pod, node) => {
                let said = format!("Scheduler {} to {node}", pod.key.name);
                self.binds.push((pod, node));
                Some(said)
            }
            Outcome::Refuse(pod, refusal) => Some(format!("Scheduler {} waits: {}", pod.key.name, refusal.message)),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.binds.is_empty()
    }

    fn bind(&mut self, pod: &Cached<PodInfo>, node: String, api: &mut Api, faults: &mut Faults) -> String {
        let result = faults.send(api, |api| api.bind(&pod.key.name, &pod.uid, &node));
        let said = format!("Binding {} to {node}: {result:?}", pod.key.name);
        let error = |_: Fault| kube::Error::LinesCodecMaxLineLengthExceeded;
        let (key, uid, result) = (pod.key.clone(), pod.uid.clone(), result.map_err(error));
        self.state.bound(Bound { key, uid, node, result }, self.instant(api.now));
        said
    }
}
