//! The service proxy's loop: changes in, one nftables transaction per burst out, repaired when someone else interferes.
//!
//! There is no timer to batch changes: whatever arrives while one transaction runs makes up the next one. So a single
//! change is applied at once, and a flood costs one call per call time.

use crate::applied::Applied;
use crate::conntrack::Unanswered;
use crate::guard::Guards;
use crate::health::Checks;
use crate::nft::{self, CallError};
use crate::watch::Change;
use netplan::proxy::{ProxyState, Transaction, UdpFlush};
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Most changes waiting for the proxy; beyond it the watches are slowed.
pub const CHANGES_WAITING_MAX: usize = 4_096;
/// Most changes put into one transaction.
const BURST_MAX: usize = 65_536;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Transactions from this size on are written while nobody listens to nftables.
const HUSHED_BYTES_MIN: usize = 256 << 10;
/// How often the table's presence is checked beside the kernel's own notice.
const VERIFY_PERIOD: Duration = Duration::from_secs(60);

/// Runs until cancelled. `state` holds the configuration and no objects yet.
pub async fn run(
    mut state: ProxyState,
    mut changes: mpsc::Receiver<Change>,
    applied: Applied,
    checks: watch::Sender<Checks>,
    guards: Guards,
    stop: CancellationToken,
) {
    // A restart must not take away rules that it has not learned about yet.
    let (mut services, mut slices, mut configured) = (false, false, false);
    // The kernel's table is unknown at first and after a failure: then it is replaced as a whole.
    let mut unknown = true;
    let mut retry: Option<(Instant, Duration)> = None;
    let mut verify = tokio::time::interval(VERIFY_PERIOD);
    verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut burst = Vec::new();
    let mut owed = Owed::default();
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
            () = retry_at => {}
            () = crate::guard::deleted(&mut guard, &state.config().table) => check = true,
            _ = verify.tick() => check = true,
        }
        if std::mem::take(&mut check)
            && !unknown
            && let Err(error) = verify_table(&state.config().table).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "service rules are gone, writing them again");
            unknown = true;
        }
        for change in burst.drain(..) {
            match change {
                Change::Service(key, view) => state.set_service(key, view),
                Change::Slice(key, view) => state.set_slice(key, view),
                Change::Config(config) => {
                    state.set_config(*config);
                    configured = true;
                    unknown = true;
                }
                Change::ServicesSynced => services = true,
                Change::SlicesSynced => slices = true,
            }
        }
        if !(services && slices && configured) || retry.is_some_and(|(at, _)| at > Instant::now()) {
            continue;
        }
        checks.send_if_modified(|known| {
            let now = state.health_checks();
            let changed = *known != now;
            *known = now;
            changed
        });
        let transaction = if unknown { Some(state.full()) } else { state.transaction() };
        let Some(transaction) = transaction else { continue };
        owed.take_over(&transaction);
        let hushed = (transaction.script.len() >= HUSHED_BYTES_MIN).then(|| guards.hush());
        if hushed.is_some() {
            verify.reset_immediately();
        }
        let outcome = apply(&state.config().table, &transaction).await;
        drop(hushed);
        match outcome {
            Ok(()) => {
                (unknown, retry) = (false, None);
                owed.settle(&applied).await;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot apply service rules, will replace the table"
                );
                let wait = retry.map_or(RETRY_MIN, |(_, wait)| (wait * 2).min(RETRY_MAX));
                (unknown, retry) = (true, Some((Instant::now() + wait, wait)));
            }
        }
    }
}

/// What follows a transaction once the kernel has taken it; kept while transactions fail.
#[derive(Default)]
struct Owed {
    endpoints: HashMap<Ipv4Addr, bool>,
    flushes: BTreeSet<UdpFlush>,
    unanswered: Unanswered,
}

impl Owed {
    fn take_over(&mut self, transaction: &Transaction) {
        self.endpoints.extend(transaction.endpoints_added.iter().map(|ip| (*ip, true)));
        self.endpoints.extend(transaction.endpoints_removed.iter().map(|ip| (*ip, false)));
        self.flushes.extend(&transaction.udp_flushes);
    }

    async fn settle(&mut self, applied: &Applied) {
        let (added, removed): (Vec<_>, Vec<_>) = self.endpoints.drain().partition(|(_, present)| *present);
        let ips = |all: Vec<(Ipv4Addr, bool)>| all.into_iter().map(|(ip, _)| ip).collect::<Vec<_>>();
        let removed = ips(removed);
        applied.update(&ips(added), &removed);
        self.unanswered.forget_later(&removed);
        for flush in std::mem::take(&mut self.flushes) {
            if let Err(error) = crate::conntrack::flush(&flush).await {
                tracing::warn!(error = &error as &dyn std::error::Error, ?flush, "cannot forget UDP flows");
            }
        }
    }
}

async fn apply(table: &str, transaction: &Transaction) -> Result<(), CallError> {
    let carried = carry_affinity(table, transaction).await;
    match nft::apply(&format!("{carried}{}", transaction.script)).await {
        // A remembered client may expire between listing and deleting, which fails the whole transaction.
        Err(_) if !carried.is_empty() => nft::apply(&transaction.script).await,
        other => other,
    }
}

/// Commands that keep clients with affinity on their endpoints although slots changed; they go before the change.
async fn carry_affinity(table: &str, transaction: &Transaction) -> String {
    if transaction.affinity_moves.is_empty() {
        return String::new();
    }
    let listing = nft::call("nft", &["-j", "list", "map", "ip", table, "affinity"], "").await;
    let listing = listing.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    netplan::affinity::rewrite(table, &listing, &transaction.affinity_moves)
}

async fn verify_table(table: &str) -> Result<(), CallError> {
    nft::call("nft", &["list", "chain", "ip", table, "prerouting"], "").await.map(drop)
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
