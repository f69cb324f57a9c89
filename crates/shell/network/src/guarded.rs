//! The handshake by which a pod's containers start only after its policies are in force.
//!
//! The kubelet tells a pod's addresses as soon as the sandbox has them, long before the API could, and waits here. With
//! no policy in the cluster there is nothing to wait for.

use netplan::view::Key;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A cheap, cloneable handle, shared by the kubelet, who waits, and the policy rules, which answer.
#[derive(Clone, Debug)]
pub struct Guarded {
    state: Arc<Mutex<State>>,
    told: Arc<watch::Sender<u64>>,
    answered: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether there are policies; unknown until they were listed.
    active: Option<bool>,
    waiting: BTreeMap<Key, Vec<Ipv4Addr>>,
    in_force: HashMap<Key, Vec<Ipv4Addr>>,
}

impl Default for Guarded {
    fn default() -> Self {
        let channel = || Arc::new(watch::Sender::new(0));
        Self { state: Arc::default(), told: channel(), answered: channel() }
    }
}

impl Guarded {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the rules guard a pod at these addresses, no longer than `at_most`; tells whether it is so.
    pub async fn wait(&self, namespace: &str, name: &str, addresses: &[IpAddr], at_most: Duration) -> bool {
        let v4 = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        let (pod, ips): (Key, Vec<Ipv4Addr>) = (Key::new(namespace, name), v4.collect());
        let mut answers = self.answered.subscribe();
        let settled = |told: bool| {
            let mut state = self.state();
            if state.active == Some(false) || state.in_force.get(&pod) == Some(&ips) {
                state.waiting.remove(&pod);
                return true;
            }
            if told {
                state.waiting.insert(pod.clone(), ips.clone());
            }
            false
        };
        if settled(true) {
            return true;
        }
        self.told.send_modify(|count| *count += 1);
        let wait = async {
            while !settled(false) {
                if answers.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        let done = tokio::time::timeout(at_most, wait).await.unwrap_or(false);
        let mut state = self.state();
        state.waiting.remove(&pod);
        // While nobody can be asked for policies no new pod arrives; those that are here keep the rules of before.
        done || state.active.is_none()
    }

    /// Wakes whenever a kubelet waits for something.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// What is being waited for.
    pub(crate) fn waiting(&self) -> Vec<(Key, Vec<Ipv4Addr>)> {
        self.state().waiting.iter().map(|(pod, ips)| (pod.clone(), ips.clone())).collect()
    }

    /// The rules now hold for these pods; `active` tells whether there are policies at all.
    pub(crate) fn settle(&self, active: bool, pods: Vec<(Key, Vec<Ipv4Addr>)>) {
        {
            let mut state = self.state();
            state.active = Some(active);
            if !active {
                state.in_force.clear();
            }
            state.in_force.extend(pods);
        }
        self.answered.send_modify(|count| *count += 1);
    }

    /// A pod is gone.
    pub(crate) fn forget(&self, pod: &Key) {
        self.state().in_force.remove(pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pod_waits_for_its_rules_only_while_there_are_policies() {
        let (guarded, pod) = (Guarded::default(), Key::new("a", "p"));
        let (own, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let known = vec![(pod, vec![Ipv4Addr::new(10, 0, 0, 1)])];
        let now = |ip| {
            let guarded = guarded.clone();
            async move { guarded.wait("a", "p", &[ip], Duration::ZERO).await }
        };
        assert!(now(own).await, "nobody can be asked: the rules of before hold");
        guarded.settle(false, vec![]);
        assert!(now(own).await);
        guarded.settle(true, vec![]);
        let mut told = guarded.subscribe();
        let waiter = tokio::spawn({
            let guarded = guarded.clone();
            async move { guarded.wait("a", "p", &[own], Duration::from_secs(10)).await }
        });
        told.changed().await.unwrap();
        assert_eq!(guarded.waiting(), known);
        guarded.settle(true, guarded.waiting());
        assert!(waiter.await.unwrap());
        assert!(guarded.waiting().is_empty());
        assert!(now(own).await, "its next container");
        assert!(!now(other).await, "another address");
    }
}
