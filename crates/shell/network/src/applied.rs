//! What this node's rules hold right now, for those who must not act before them.
//!
//! The kubelet of the node may wait on [`Applied::released`] between seeing a pod's deletion and sending SIGTERM: it
//! returns once no rule sends new connections to the pod's address.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// So long an address that left this node's rules may still be in another node's.
const LATELY: Duration = Duration::from_secs(10);
/// Addresses remembered for that; of more the oldest are forgotten.
const LEFT_MAX: usize = 16_384;

/// A cheap, cloneable handle.
#[derive(Clone, Debug)]
pub struct Applied {
    endpoints: Arc<RwLock<Endpoints>>,
    generation: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Endpoints {
    held: HashSet<Ipv4Addr>,
    /// What was held until when, oldest first.
    left: VecDeque<(Instant, Ipv4Addr)>,
}

impl Default for Applied {
    fn default() -> Self {
        Self { endpoints: Arc::default(), generation: Arc::new(watch::Sender::new(0)) }
    }
}

impl Applied {
    pub(crate) fn update(&self, added: &[Ipv4Addr], removed: &[Ipv4Addr]) {
        {
            let mut endpoints = self.endpoints.write().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            endpoints.held.extend(added);
            for ip in removed {
                if endpoints.held.remove(ip) {
                    endpoints.left.push_back((now, *ip));
                }
            }
            let old = endpoints.left.iter().take_while(|(at, _)| now.duration_since(*at) > LATELY).count();
            let surplus = endpoints.left.len().saturating_sub(LEFT_MAX);
            endpoints.left.drain(..old.max(surplus));
        }
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Number of transactions that the kernel has taken; 0 until the first full table.
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// A receiver that is woken by every applied transaction.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Whether some rule sends new connections to `ip`.
    pub fn serves(&self, ip: Ipv4Addr) -> bool {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner).held.contains(&ip)
    }

    /// Whether some rule did so until a moment ago: other nodes, which hear of the same change, may still.
    pub fn served_lately(&self, address: IpAddr) -> bool {
        let IpAddr::V4(ip) = address else { return false };
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        endpoints.held.contains(&ip) || endpoints.left.iter().any(|(at, left)| *left == ip && at.elapsed() <= LATELY)
    }

    /// Waits until no rule sends new connections to `ip`. A terminating pod that is the last one of its Service keeps
    /// its rules by Kubernetes' own fallback, so the caller bounds this wait.
    pub async fn released(&self, ip: Ipv4Addr) {
        let mut changes = self.subscribe();
        while self.serves(ip) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Applied {
    /// Waits until no rule sends new connections to any of `addresses`, no longer than `at_most`; tells whether it is so.
    pub async fn withdrawn(&self, addresses: &[IpAddr], at_most: Duration) -> bool {
        let all = async {
            for address in addresses {
                if let IpAddr::V4(ip) = address {
                    self.released(*ip).await;
                }
            }
        };
        tokio::time::timeout(at_most, all).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_is_released_by_the_transaction_that_removes_the_address() {
        let (applied, ip) = (Applied::default(), Ipv4Addr::new(10, 0, 0, 1));
        applied.released(ip).await;
        applied.update(&[ip], &[]);
        let waiter = tokio::spawn({
            let applied = applied.clone();
            async move { applied.released(ip).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        applied.update(&[], &[ip]);
        waiter.await.unwrap();
        assert_eq!(applied.generation(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_left_is_remembered_for_a_while() {
        let (applied, ip) = (Applied::default(), Ipv4Addr::new(10, 0, 0, 1));
        applied.update(&[], &[ip]);
        assert!(!applied.served_lately(ip.into()), "it never was there");
        applied.update(&[ip], &[]);
        assert!(applied.served_lately(ip.into()));
        applied.update(&[], &[ip]);
        assert!(applied.served_lately(ip.into()) && !applied.serves(ip));
        tokio::time::advance(LATELY + Duration::from_secs(1)).await;
        assert!(!applied.served_lately(ip.into()));
        applied.update(&[], &[]);
        assert!(applied.endpoints.read().unwrap().left.is_empty(), "and then it takes no room");
    }
}
