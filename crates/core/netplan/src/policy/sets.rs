//! The named sets: shared by equal content, kept as long as a rule uses them, their members following the pods.

use super::compile::{Namespaces, Scope, SetKey};
use super::view::{Labels, PodView};
use crate::view::{Key, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Number of a set or chain, never used twice.
pub type Id = u64;

/// A member of a set that follows pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    Ip(Ipv4Addr),
    Port(Ipv4Addr, Protocol, u16),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Port(ip, protocol, port) => write!(f, "{ip} . {} . {port}", protocol.as_str()),
        }
    }
}

struct Set {
    key: SetKey,
    uses: u32,
    /// What each pod brings.
    brought: BTreeMap<Key, Vec<Member>>,
    /// How many pods bring a member: a pod and its follower may both claim an address for a moment.
    members: BTreeMap<Member, u32>,
}

/// The pods and namespaces as known.
#[derive(Default)]
pub struct Known {
    pub namespaces: BTreeMap<String, Arc<Labels>>,
    pub pods: BTreeMap<Key, PodView>,
}

impl Known {
    /// The pods of one namespace.
    pub fn pods_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Key, &'a PodView)> {
        self.pods.range(Key::new(namespace, "")..).take_while(move |(key, _)| key.namespace == namespace)
    }
}

/// All sets in use.
#[derive(Default)]
pub struct Sets {
    all: BTreeMap<Id, Set>,
    ids: BTreeMap<SetKey, Id>,
    /// Sets that follow the pods of one namespace, and those that follow all (`None`).
    following: BTreeMap<Option<String>, BTreeSet<Id>>,
    last: Id,
    /// Not given out yet; given out and not used any more.
    pub fresh: BTreeSet<Id>,
    pub dead: BTreeSet<Id>,
    /// Members touched since the last commit, and whether they were in their set.
    touched: BTreeMap<(Id, Member), bool>,
}

fn scope(key: &SetKey) -> Option<&Scope> {
    match key {
        SetKey::Pods(scope) | SetKey::NamedPort(scope, _, _) => Some(scope),
        SetKey::Blocks(_) | SetKey::Ports(_) => None,
    }
}

fn follows(key: &SetKey) -> Option<Option<String>> {
    scope(key).map(|scope| match &scope.namespaces {
        Namespaces::Is(namespace) => Some(namespace.clone()),
        Namespaces::Any | Namespaces::Match(_) => None,
    })
}

/// What a pod brings into a set.
fn brings(set: &SetKey, key: &Key, pod: &PodView, namespaces: &BTreeMap<String, Arc<Labels>>) -> Vec<Member> {
    let Some(scope) = scope(set) else { return vec![] };
    let here = match &scope.namespaces {
        Namespaces::Any => true,
        Namespaces::Is(namespace) => key.namespace == *namespace,
        Namespaces::Match(selector) => namespaces.get(&key.namespace).is_some_and(|labels| selector.matches(&**labels)),
    };
    if !here || !scope.pods.matches(&*pod.labels) {
        return vec![];
    }
    let mut all: Vec<Member> = match set {
        SetKey::NamedPort(_, name, protocol) => {
            let ports = pod.ports.iter().filter(|(known, of, _)| known == name && of == protocol);
            ports.flat_map(|(_, _, port)| pod.ips.iter().map(|ip| Member::Port(*ip, *protocol, *port))).collect()
        }
        _ => pod.ips.iter().map(|ip| Member::Ip(*ip)).collect(),
    };
    all.sort_unstable();
    all.dedup();
    all
}

impl Sets {
    /// The number of the set with this content, made and filled if there is none.
    pub fn acquire(&mut self, key: &SetKey, known: &Known) -> Id {
        if let Some(id) = self.ids.get(key) {
            if let Some(set) = self.all.get_mut(id) {
                set.uses += 1;
            }
            return *id;
        }
        self.last += 1;
        let id = self.last;
        self.ids.insert(key.clone(), id);
        self.all.insert(id, Set { key: key.clone(), uses: 1, brought: BTreeMap::new(), members: BTreeMap::new() });
        self.fresh.insert(id);
        if let Some(place) = follows(key) {
            match &place {
                Some(namespace) => {
                    known.pods_of(namespace).for_each(|(pod, view)| self.bring(id, pod, Some(view), known))
                }
                None => known.pods.iter().for_each(|(pod, view)| self.bring(id, pod, Some(view), known)),
            }
            self.following.entry(place).or_default().insert(id);
        }
        id
    }

    /// Gives back one use.
    pub fn release(&mut self, id: Id) {
        let Some(set) = self.all.get_mut(&id) else { return };
        set.uses = set.uses.saturating_sub(1);
        if set.uses > 0 {
            return;
        }
        let place = follows(&set.key);
        self.ids.remove(&set.key);
        self.all.remove(&id);
        if let Some(place) = place
            && let Some(ids) = self.following.get_mut(&place)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.following.remove(&place);
            }
        }
        if !self.fresh.remove(&id) {
            self.dead.insert(id);
        }
    }

    /// Brings every set that may care to what a pod is now.
    pub fn follow(&mut self, pod: &Key, view: Option<&PodView>, known: &Known) {
        let places = [Some(pod.namespace.clone()), None];
        let ids: Vec<Id> = places.iter().filter_map(|place| self.following.get(place)).flatten().copied().collect();
        for id in ids {
            self.bring(id, pod, view, known);
        }
    }

    fn bring(&mut self, id: Id, pod: &Key, view: Option<&PodView>, known: &Known) {
        let Some(set) = self.all.get_mut(&id) else { return };
        let new = view.map(|view| brings(&set.key, pod, view, &known.namespaces)).unwrap_or_default();
        let old = set.brought.get(pod).map(Vec::as_slice).unwrap_or_default();
        if old == new {
            return;
        }
        for (members, up) in [(old, false), (new.as_slice(), true)] {
            for member in members {
                let count = set.members.entry(*member).or_default();
                self.touched.entry((id, *member)).or_insert(*count > 0);
                *count = if up { *count + 1 } else { count.saturating_sub(1) };
                if *count == 0 {
                    set.members.remove(member);
                }
            }
        }
        if new.is_empty() {
            set.brought.remove(pod);
        } else {
            set.brought.insert(pod.clone(), new);
        }
    }

    /// Content and members of a set.
    pub fn get(&self, id: Id) -> Option<(&SetKey, impl Iterator<Item = &Member>)> {
        self.all.get(&id).map(|set| (&set.key, set.members.keys()))
    }

    pub fn ids(&self) -> impl Iterator<Item = Id> {
        self.all.keys().copied()
    }

    /// The members of sets given out before that came (true) and went (false) since the last call.
    pub fn changes(&mut self) -> Vec<(Id, Member, bool)> {
        let touched = std::mem::take(&mut self.touched);
        let changed = touched.into_iter().filter_map(|((id, member), was)| {
            let set = self.all.get(&id).filter(|_| !self.fresh.contains(&id))?;
            let is = set.members.contains_key(&member);
            (was != is).then_some((id, member, is))
        });
        changed.collect()
    }

    /// Everything is given out.
    pub fn settle(&mut self) {
        self.fresh.clear();
        self.dead.clear();
        self.touched.clear();
    }
}
