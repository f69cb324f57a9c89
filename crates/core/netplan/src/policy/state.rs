//! The policy rules of one node: takes objects one at a time, gives the full table or the smallest transaction.

use super::chains::{Chains, Packets, name};
use super::compile::{Matches, SetKey, compile};
use super::sets::{Id, Known, Member, Sets};
use super::table;
use super::view::{Direction, Labels, PodView, PolicyView};
use crate::view::{Key, Protocol};
use meta::labels::Selector;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// What the rules depend on beside objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Name of the nftables tables (families ip and ip6).
    pub table: String,
    /// Name of this node: only its own pods are guarded here.
    pub node: String,
    /// Name of the pod bridge.
    pub bridge: String,
    /// The node's DNS server, which stands for the pods of the cluster's DNS.
    pub dns: Option<SocketAddrV4>,
}

/// Labels and port of the cluster's DNS pods, by which policies admit it.
const DNS_POD: (&str, &str) = ("kube-system", "kube-dns (node)");
const DNS_LABELS: [(&str, &str); 1] = [("k8s-app", "kube-dns")];
const DNS_PORT: u16 = 53;

/// Maps and sets keyed by a local pod's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Map {
    Egress,
    Ingress,
    /// A pod cannot be closed off from itself.
    Itself,
}

/// What a local pod puts into the maps: the chain to go to, none for a plain member.
type Places = BTreeMap<(Map, Ipv4Addr), Option<Id>>;

/// Who claims a place: pods whose kubelet told the address come first, then by name.
type Claims = BTreeMap<(bool, Key), Option<Id>>;

struct Policy {
    selects: Selector,
    matches: BTreeMap<Direction, Matches>,
}

/// The state. Feed it, then call [`PolicyState::transaction`], or [`PolicyState::full`] to replace the tables.
pub struct PolicyState {
    config: PolicyConfig,
    known: Known,
    policies: BTreeMap<Key, Policy>,
    /// Addresses that this node's kubelet told before the API did.
    told: BTreeMap<Key, Vec<Ipv4Addr>>,
    stale: BTreeSet<Key>,
    sets: Sets,
    chains: Chains,
    /// What each local pod puts in force, and whether its address is told.
    planned: BTreeMap<Key, (bool, Places)>,
    claims: BTreeMap<(Map, Ipv4Addr), Claims>,
    touched: BTreeMap<(Map, Ipv4Addr), Option<Option<Id>>>,
    /// Whether the tables exist as last given out.
    present: bool,
}

impl PolicyState {
    pub fn new(config: PolicyConfig) -> Self {
        let mut state = Self {
            config: PolicyConfig::default(),
            known: Known::default(),
            policies: BTreeMap::new(),
            told: BTreeMap::new(),
            stale: BTreeSet::new(),
            sets: Sets::default(),
            chains: Chains::default(),
            planned: BTreeMap::new(),
            claims: BTreeMap::new(),
            touched: BTreeMap::new(),
            present: false,
        };
        state.set_config(config);
        state
    }

    pub fn config(&self) -> &PolicyConfig {
        &self.config
    }

    /// Replaces the configuration. The next change must be a [`PolicyState::full`] one.
    pub fn set_config(&mut self, config: PolicyConfig) {
        self.stale.extend(self.known.pods.keys().cloned());
        self.config = config;
        self.set_dns();
    }

    /// The node's DNS server takes part as a pod, so that policies for cluster DNS mean what they say.
    fn set_dns(&mut self) {
        let view = self.config.dns.map(|listener| PodView {
            labels: Arc::new(DNS_LABELS.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            ips: vec![*listener.ip()],
            node: String::new(),
            ports: vec![("dns".to_owned(), Protocol::Udp, DNS_PORT), ("dns-tcp".to_owned(), Protocol::Tcp, DNS_PORT)],
        });
        self.set_pod(Key::new(DNS_POD.0, DNS_POD.1), view);
    }

    /// Sets or removes a pod; one without view is one that no policy concerns.
    pub fn set_pod(&mut self, key: Key, pod: Option<PodView>) {
        let pod = pod.map(|mut view| {
            if let Some(ips) = self.told.get(&key) {
                view.ips.clone_from(ips);
            }
            view
        });
        if pod.is_none() {
            self.told.remove(&key);
        }
        let old = self.known.pods.get(&key);
        if old == pod.as_ref() {
            return;
        }
        let is_here = |pod: Option<&PodView>| pod.is_some_and(|pod| pod.node == self.config.node);
        if is_here(old) || is_here(pod.as_ref()) {
            self.stale.insert(key.clone());
        }
        match pod.clone() {
            Some(view) => drop(self.known.pods.insert(key.clone(), view)),
            None => drop(self.known.pods.remove(&key)),
        }
        self.sets.follow(&key, pod.as_ref(), &self.known);
    }

    /// The node's kubelet says which addresses a pod has, before its containers start.
    pub fn tell_addresses(&mut self, key: Key, ips: Vec<Ipv4Addr>) {
        self.told.insert(key.clone(), ips);
        if let Some(pod) = self.known.pods.get(&key).cloned() {
            self.stale.insert(key.clone());
            self.set_pod(key, Some(pod));
        }
    }

    /// Whether a pod is known with its address, so that the next transaction guards it.
    pub fn knows(&self, key: &Key) -> bool {
        self.known.pods.contains_key(key)
    }

    /// Whether the tables exist, as last given out.
    pub fn is_present(&self) -> bool {
        self.present
    }

    pub fn has_policies(&self) -> bool {
        !self.policies.is_empty()
    }

    /// Sets or removes a namespace's labels.
    pub fn set_namespace(&mut self, name: String, labels: Option<Labels>) {
        let labels = labels.map(Arc::new);
        if self.known.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => drop(self.known.namespaces.insert(name.clone(), labels)),
            None => drop(self.known.namespaces.remove(&name)),
        }
        let pods: Vec<Key> = self.known.pods_of(&name).map(|(key, _)| key.clone()).collect();
        for key in pods {
            self.sets.follow(&key, self.known.pods.get(&key), &self.known);
        }
    }

    /// Sets or removes a policy.
    pub fn set_policy(&mut self, key: Key, policy: Option<PolicyView>) {
        let new = policy.map(|view| Policy { matches: compile(&view, &key.namespace), selects: view.pods });
        let old = self.policies.get(&key);
        let concerned = |pod: &PodView| {
            let selects = |policy: Option<&Policy>| policy.is_some_and(|policy| policy.selects.matches(&*pod.labels));
            pod.node == self.config.node && (selects(old) || selects(new.as_ref()))
        };
        let pods = self.known.pods_of(&key.namespace).filter(|(_, pod)| concerned(pod)).map(|(key, _)| key.clone());
        self.stale.extend(pods);
        match new {
            Some(policy) => drop(self.policies.insert(key, policy)),
            None => drop(self.policies.remove(&key)),
        }
    }

    /// Forgets pods and namespaces, which nobody follows while there is no policy.
    pub fn forget(&mut self) {
        let pods: Vec<Key> = self.known.pods.keys().cloned().collect();
        pods.into_iter().for_each(|key| self.set_pod(key, None));
        self.known.namespaces.clear();
        self.set_dns();
    }

    fn replan(&mut self) {
        for key in std::mem::take(&mut self.stale) {
            let pod = self.known.pods.get(&key).filter(|pod| pod.node == self.config.node).cloned();
            let new = pod.map(|pod| self.plan(&key, &pod)).unwrap_or_default();
            let told = self.told.contains_key(&key);
            let (was_told, old) = self.planned.remove(&key).unwrap_or_default();
            for place in old.keys() {
                self.claim(*place, (!was_told, key.clone()), None);
            }
            for (place, chain) in &new {
                self.claim(*place, (!told, key.clone()), Some(*chain));
            }
            old.into_values().flatten().for_each(|chain| self.chains.release(chain, &mut self.sets));
            if !new.is_empty() {
                self.planned.insert(key, (told, new));
            }
        }
    }

    /// What a pod of this node puts into the maps. Each place holds its chain once.
    fn plan(&mut self, key: &Key, pod: &PodView) -> Places {
        let in_namespace = self.policies.range(Key::new(key.namespace.clone(), "")..);
        let selecting = in_namespace
            .take_while(|(policy, _)| policy.namespace == key.namespace)
            .filter(|(_, policy)| policy.selects.matches(&*pod.labels));
        let selecting: Vec<&Policy> = selecting.map(|(_, policy)| policy).collect();
        let mut places = Places::new();
        for (direction, map) in [(Direction::Egress, Map::Egress), (Direction::Ingress, Map::Ingress)] {
            let matches: Vec<Matches> =
                selecting.iter().filter_map(|policy| policy.matches.get(&direction).cloned()).collect();
            for ip in pod.ips.iter().filter(|_| !matches.is_empty()) {
                let chain = self.chains.acquire(direction, &matches, &mut self.sets, &self.known);
                places.insert((map, *ip), Some(chain));
                places.insert((Map::Itself, *ip), None);
            }
        }
        places
    }

    fn claim(&mut self, place: (Map, Ipv4Addr), owner: (bool, Key), value: Option<Option<Id>>) {
        let in_force = self.in_force(&place);
        self.touched.entry(place).or_insert(in_force);
        let claims = self.claims.entry(place).or_default();
        match value {
            Some(chain) => drop(claims.insert(owner, chain)),
            None => drop(claims.remove(&owner)),
        }
        if claims.is_empty() {
            self.claims.remove(&place);
        }
    }

    fn in_force(&self, place: &(Map, Ipv4Addr)) -> Option<Option<Id>> {
        self.claims.get(place).and_then(|claims| claims.values().next().copied())
    }

    fn settle(&mut self) {
        self.sets.settle();
        self.chains.fresh.clear();
        self.chains.dead.clear();
        self.touched.clear();
        self.present = !self.claims.is_empty();
    }

    /// Replaces both tables in one transaction, whatever they held; without any guarded pod there are none.
    pub fn full(&mut self) -> String {
        self.replan();
        let mut script = table::removal(&self.config);
        if !self.claims.is_empty() {
            script += &table::base(&self.config);
            script += &self.definitions(self.sets.ids().collect(), self.chains.ids().collect());
            let places = self.claims.keys().filter_map(|place| Some((*place, self.in_force(place)?)));
            script += &table::places(&self.config, "add", places);
        }
        self.settle();
        script
    }

    /// The smallest script from what was last given out to what is wanted now; `None` when nothing changed.
    pub fn transaction(&mut self) -> Option<String> {
        self.replan();
        if self.present == self.claims.is_empty() {
            return Some(self.full());
        }
        if !self.present {
            self.settle();
            return None;
        }
        let members = self.sets.changes();
        let mut script = self.definitions(self.sets.fresh.clone(), self.chains.fresh.clone());
        for (verb, wanted) in [("delete", false), ("add", true)] {
            let of = members.iter().filter(|(_, _, is)| *is == wanted).map(|(set, member, _)| (*set, *member));
            script += &table::members(&self.config, verb, of);
        }
        let changed = self.touched.iter().filter(|(place, old)| **old != self.in_force(place));
        let changed: Vec<_> = changed.map(|(place, old)| (*place, *old, self.in_force(place))).collect();
        script += &table::places(
            &self.config,
            "delete",
            changed.iter().filter_map(|(place, old, _)| Some((*place, (*old)?))),
        );
        script +=
            &table::places(&self.config, "add", changed.iter().filter_map(|(place, _, new)| Some((*place, (*new)?))));
        script += &table::gone(&self.config, &self.chains.dead, &self.sets.dead);
        self.settle();
        (!script.is_empty()).then_some(script)
    }

    fn definitions(&self, sets: BTreeSet<Id>, chains: BTreeSet<Id>) -> String {
        let contents: Vec<(Id, &SetKey, Vec<Member>)> = sets
            .into_iter()
            .filter_map(|id| self.sets.get(id).map(|(key, members)| (id, key, members.copied().collect())))
            .collect();
        let rules: Vec<(String, Vec<String>)> = chains
            .into_iter()
            .flat_map(|id| Packets::BOTH.map(|packets| (name(id, packets), self.chains.rules(id, packets))))
            .collect();
        table::definitions(&self.config, &contents, &rules)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
