//! The policy rules' loop: changes in, one nftables transaction per burst out, repaired when someone else interferes.
//!
//! Pods and namespaces are followed only while the cluster has policies: without any, this costs one quiet watch.

use crate::guard::Guards;
use crate::guarded::Guarded;
use crate::nft::{self, CallError};
use crate::watch as watches;
use kube::Client;
use netplan::policy::state::{PolicyConfig, PolicyState};
use netplan::policy::view::{Labels, PodView, PolicyView};
use netplan::view::Key;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Most changes waiting for the rules; beyond it the watches are slowed.
pub const CHANGES_WAITING_MAX: usize = 4_096;
/// Most changes put into one transaction.
const BURST_MAX: usize = 65_536;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often the tables' presence is checked beside the kernel's own notice.
const VERIFY_PERIOD: Duration = Duration::from_secs(60);
/// How long pods are still followed after the last policy went: who deletes one often makes the next.
const LINGER: Duration = Duration::from_secs(60);

/// One change of one object, or the news that a kind's list is complete.
#[derive(Clone, Debug)]
pub enum PolicyChange {
    Policy(Key, Option<PolicyView>),
    Pod(Key, Option<PodView>),
    Namespace(String, Option<Labels>),
    PoliciesSynced,
    PodsSynced,
    NamespacesSynced,
    /// What the rules depend on beside objects; the tables are replaced.
    Config(PolicyConfig),
    /// Pods and namespaces are not followed any more.
    Forget,
}

/// Follows policies, and pods and namespaces while there are policies.
pub async fn follow(client: Client, changes: mpsc::Sender<PolicyChange>) {
    let (known, mut count) = watch::channel(BTreeSet::<Key>::new());
    let send = |change| {
        let changes = changes.clone();
        async move { drop(changes.send(change).await) }
    };
    let policies = watches::policies(client.clone(), |change| {
        if let PolicyChange::Policy(key, view) = &change {
            known.send_modify(|known| match view {
                Some(_) => drop(known.insert(key.clone())),
                None => drop(known.remove(key)),
            });
        }
        send(change)
    });
    let others = async {
        loop {
            let mut last = count.clone();
            if count.wait_for(|known| !known.is_empty()).await.is_err() {
                return;
            }
            let quiet = async {
                loop {
                    let _ = last.wait_for(BTreeSet::is_empty).await;
                    let again = last.wait_for(|known| !known.is_empty());
                    if tokio::time::timeout(LINGER, again).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = watches::pods(client.clone(), send) => {}
                () = watches::namespaces(client.clone(), send) => {}
                () = quiet => {}
            }
            send(PolicyChange::Forget).await;
        }
    };
    tokio::join!(policies, others);
}

/// What is known to be complete.
#[derive(Default)]
struct Synced {
    policies: bool,
    pods: bool,
    namespaces: bool,
}

/// Runs until cancelled.
pub async fn run(
    mut state: PolicyState,
    mut changes: mpsc::Receiver<PolicyChange>,
    guarded: Guarded,
    guards: Guards,
    stop: CancellationToken,
) {
    let mut synced = Synced::default();
    // The kernel's tables are unknown at first and after a failure: then they are replaced as a whole.
    let mut unknown = true;
    let mut retry: Option<(Instant, Duration)> = None;
    let mut verify = tokio::time::interval(VERIFY_PERIOD);
    verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = guarded.subscribe();
    let mut burst = Vec::new();
    let mut check = false;
    let mut guard = guards.open();
    loop {
        let retry_at = async {
            match retry {
                Some((at, _)) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            received = changes.recv_many(&mut burst, BURST_MAX) => if received == 0 { return },
            _ = told.changed() => {}
            () = retry_at => {}
            () = crate::guard::deleted(&mut guard, &state.config().table) => check = true,
            _ = verify.tick() => check = true,
        }
        if std::mem::take(&mut check)
            && !unknown
            && state.is_present()
            && let Err(error) = verify_table(&state.config().table).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "policy rules are gone, writing them again");
            unknown = true;
        }
        for change in burst.drain(..) {
            unknown |= matches!(change, PolicyChange::Config(_));
            learn(&mut state, &mut synced, &guarded, change);
        }
        let complete = synced.policies && (!state.has_policies() || (synced.pods && synced.namespaces));
        if !complete || retry.is_some_and(|(at, _)| at > Instant::now()) {
            continue;
        }
        let waiting = guarded.waiting();
        for (pod, ips) in &waiting {
            state.tell_addresses(pod.clone(), ips.clone());
        }
        let script = if unknown { Some(state.full()) } else { state.transaction() };
        let applied = match &script {
            Some(script) => nft::apply(script).await,
            None => Ok(()),
        };
        match applied {
            Ok(()) => {
                (unknown, retry) = (false, None);
                let known = waiting.into_iter().filter(|(pod, _)| state.knows(pod));
                guarded.settle(state.has_policies(), known.collect());
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot apply policy rules, will replace them"
                );
                if !state.has_policies() {
                    // Old tables that cannot be removed are no reason to hold pods back.
                    guarded.settle(false, vec![]);
                }
                let wait = retry.map_or(RETRY_MIN, |(_, wait)| (wait * 2).min(RETRY_MAX));
                (unknown, retry) = (true, Some((Instant::now() + wait, wait)));
            }
        }
    }
}

fn learn(state: &mut PolicyState, synced: &mut Synced, guarded: &Guarded, change: PolicyChange) {
    match change {
        PolicyChange::Policy(key, view) => state.set_policy(key, view),
        PolicyChange::Pod(key, view) => {
            if view.is_none() {
                guarded.forget(&key);
            }
            state.set_pod(key, view);
        }
        PolicyChange::Namespace(name, labels) => state.set_namespace(name, labels),
        PolicyChange::Config(config) => state.set_config(config),
        PolicyChange::Forget => {
            (synced.pods, synced.namespaces) = (false, false);
            state.forget();
        }
        PolicyChange::PoliciesSynced => synced.policies = true,
        PolicyChange::PodsSynced => synced.pods = true,
        PolicyChange::NamespacesSynced => synced.namespaces = true,
    }
}

async fn verify_table(table: &str) -> Result<(), CallError> {
    nft::call("nft", &["list", "chain", "ip", table, "forward"], "").await.map(drop)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
