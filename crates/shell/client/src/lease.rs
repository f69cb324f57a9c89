//! Leader election on a coordination.k8s.io Lease: at most one holder acts, a lost lease stops the work.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ApiErrorExt;

/// Whose lease, and its times (upstream: 15 s, 10 s, 2 s).
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    pub namespace: String,
    pub name: String,
    /// Unique per process.
    pub identity: String,
    /// How long others wait after the last renewal before they take over.
    pub duration: Duration,
    /// The holder gives up when it could not renew for this long; less than `duration`.
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl LeaseConfig {
    pub fn new(name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// What this process saw of a foreign holder; its clock is not trusted, only that the record changes.
struct Observed {
    version: Option<String>,
    at: Instant,
}

/// Waits for the lease, runs `work` with a token that ends when the lease is lost or `stop` fires, then campaigns again
/// until `stop`. On a clean stop the lease is released, so that the next holder need not wait.
pub async fn run_while_leading<F, W>(client: Client, config: LeaseConfig, stop: CancellationToken, mut work: W)
where
    W: FnMut(CancellationToken) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let leases: Api<Lease> = Api::namespaced(client, &config.namespace);
    let mut observed = Observed { version: None, at: Instant::now() };
    while !stop.is_cancelled() {
        if !try_hold(&leases, &config, &mut observed).await {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(config.retry_period) => continue,
            }
        }
        tracing::info!(lease = %config.name, identity = %config.identity, "became leader");
        let term = stop.child_token();
        let mut task = tokio::spawn(work(term.clone()));
        let finished = tokio::select! {
            () = keep(&leases, &config, &mut observed) => {
                tracing::warn!(lease = %config.name, "lost the lease, stopping the work");
                false
            }
            () = stop.cancelled() => false,
            _ = &mut task => true,
        };
        term.cancel();
        if !finished && let Err(error) = task.await {
            tracing::error!(lease = %config.name, %error, "the work of the leader ended abnormally");
        }
        if stop.is_cancelled() {
            release(&leases, &config).await;
        }
    }
}

/// Renews until the deadline passes without success.
async fn keep(leases: &Api<Lease>, config: &LeaseConfig, observed: &mut Observed) {
    let mut renewed = Instant::now();
    while renewed.elapsed() < config.renew_deadline {
        tokio::time::sleep(config.retry_period).await;
        let tried = tokio::time::timeout(config.renew_deadline, try_hold(leases, config, observed)).await;
        if tried == Ok(true) {
            renewed = Instant::now();
        }
    }
}

async fn try_hold(leases: &Api<Lease>, config: &LeaseConfig, observed: &mut Observed) -> bool {
    let now = MicroTime(Timestamp::now());
    let mut lease = match leases.get_opt(&config.name).await {
        Ok(Some(lease)) => lease,
        Ok(None) => {
            let metadata = ObjectMeta { name: Some(config.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(held(config, &now, 0, now.clone())) };
            return report(config, leases.create(&PostParams::default(), &lease).await);
        }
        Err(error) => return report(config, Err(error)),
    };
    let spec = lease.spec.get_or_insert_default();
    let holder = spec.holder_identity.clone().unwrap_or_default();
    if observed.version != lease.metadata.resource_version {
        observed.version.clone_from(&lease.metadata.resource_version);
        observed.at = Instant::now();
    }
    let transitions = spec.lease_transitions.unwrap_or(0);
    if holder == config.identity {
        let acquired = spec.acquire_time.clone().unwrap_or_else(|| now.clone());
        lease.spec = Some(held(config, &now, transitions, acquired));
    } else {
        let foreign = spec.lease_duration_seconds.map_or(config.duration, |s| Duration::from_secs(s.max(0) as u64));
        if !holder.is_empty() && observed.at.elapsed() < foreign && !long_expired(spec, foreign) {
            return false;
        }
        lease.spec = Some(held(config, &now, transitions.saturating_add(1), now.clone()));
    }
    report(config, leases.replace(&config.name, &PostParams::default(), &lease).await)
}

/// A record much older than its duration is dead even to a process that has only just started to look.
fn long_expired(spec: &LeaseSpec, duration: Duration) -> bool {
    let Some(renewed) = &spec.renew_time else { return true };
    let limit = SignedDuration::try_from(duration * 2).unwrap_or(SignedDuration::MAX);
    Timestamp::now().duration_since(renewed.0) > limit
}

fn held(config: &LeaseConfig, now: &MicroTime, transitions: i32, acquired: MicroTime) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(config.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(config.duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(acquired),
        renew_time: Some(now.clone()),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

async fn release(leases: &Api<Lease>, config: &LeaseConfig) {
    let Ok(Some(mut lease)) = leases.get_opt(&config.name).await else { return };
    let Some(spec) = &mut lease.spec else { return };
    if spec.holder_identity.as_deref() == Some(&config.identity) {
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        report(config, leases.replace(&config.name, &PostParams::default(), &lease).await);
    }
}

fn report(config: &LeaseConfig, result: kube::Result<Lease>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) if error.is_conflict() || error.is_already_exists() => false,
        Err(error) => {
            tracing::warn!(lease = %config.name, %error, "cannot reach or write the lease");
            false
        }
    }
}
