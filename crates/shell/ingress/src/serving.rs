//! The routing table in force, and the proof that an older one is no longer used.
//!
//! A request holds the table that it was routed by until its backend has begun to answer. A new table is swapped in at
//! once and no connection notices. Who withdraws an address waits until the table in force lacks it and the last request
//! that was routed by an older table has been answered, for a short time at most.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use routes::settings::Settings;
use routes::table::Table;
use tokio::sync::watch;

use crate::limits::DISPATCH_MAX;

/// One table with what was in force beside it.
#[derive(Debug, Default)]
pub struct Live {
    pub table: Table,
    pub settings: Settings,
    /// Networks of `settings.trusted_proxies`.
    pub trusted: Vec<Network>,
    pub generation: u64,
}

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(whole), |prefix| prefix.parse().ok()).filter(|prefix| *prefix <= whole)?;
        Some(Self { address, prefix })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.prefix);
                u32::from(a).checked_shr(shift).unwrap_or(0) == u32::from(b).checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - u32::from(self.prefix);
                u128::from(a).checked_shr(shift).unwrap_or(0) == u128::from(b).checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

impl Live {
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }
}

/// A handle on the table in force. Clones share it.
#[derive(Clone, Default)]
pub struct Serving {
    inner: Arc<Inner>,
}

struct Inner {
    live: ArcSwap<Live>,
    retired: Mutex<Vec<Weak<Live>>>,
    generation: watch::Sender<u64>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { live: ArcSwap::default(), retired: Mutex::default(), generation: watch::Sender::new(0) }
    }
}

impl Serving {
    /// The table for a request that begins now.
    pub fn live(&self) -> Arc<Live> {
        self.inner.live.load_full()
    }

    /// Wakes when the table changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.generation.subscribe()
    }

    /// Routes by a new table from now on.
    pub fn replace(&self, table: Table, settings: Settings) {
        let trusted = settings.trusted_proxies.iter().filter_map(|text| Network::parse(text)).collect();
        let generation = *self.inner.generation.borrow() + 1;
        let old = self.inner.live.swap(Arc::new(Live { table, settings, trusted, generation }));
        {
            let mut retired = self.inner.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.retain(|table| table.strong_count() > 0);
            retired.push(Arc::downgrade(&old));
        }
        self.inner.generation.send_replace(generation);
    }

    /// Whether some route leads to one of these addresses.
    pub fn serves(&self, addresses: &[IpAddr]) -> bool {
        let live = self.inner.live.load();
        addresses.iter().any(|address| live.table.addresses.contains(address))
    }

    fn is_in_use(&self, addresses: &[IpAddr]) -> bool {
        let retired = self.inner.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let used = |table: Arc<Live>| addresses.iter().any(|address| table.table.addresses.contains(address));
        retired.iter().filter_map(Weak::upgrade).any(used)
    }

    /// Waits until no request goes to these addresses any more, no longer than `at_most`; tells whether it is so. An
    /// address that is kept because its Service has no other stays, so the caller bounds this wait.
    pub async fn withdrawn(&self, addresses: &[IpAddr], at_most: Duration) -> bool {
        let mut changes = self.changes();
        let gone = async {
            while self.serves(addresses) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(at_most, gone).await.is_err() {
            return false;
        }
        // Requests end without telling anybody: a few looks in a short time are cheaper than telling on each of them.
        let until = tokio::time::Instant::now() + DISPATCH_MAX.min(at_most);
        while self.is_in_use(addresses) && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(address: Option<IpAddr>) -> Table {
        Table { addresses: address.into_iter().collect(), ..Table::default() }
    }

    #[tokio::test]
    async fn an_address_is_withdrawn_when_its_table_and_its_requests_are_gone() {
        let (serving, ip) = (Serving::default(), IpAddr::from([10, 0, 0, 1]));
        assert!(serving.withdrawn(&[ip], Duration::ZERO).await, "nobody serves it");
        serving.replace(table(Some(ip)), Settings::default());
        assert!(!serving.withdrawn(&[ip], Duration::from_millis(20)).await, "the table in force has it");
        let request = serving.live();
        let waiter = tokio::spawn({
            let serving = serving.clone();
            async move { serving.withdrawn(&[ip], Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        serving.replace(table(None), Settings::default());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiter.is_finished(), "a request was routed by the old table");
        drop(request);
        assert!(waiter.await.unwrap());
    }

    #[test]
    fn networks_contain_their_addresses() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.5", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "1.2.3.4", false),
        ] {
            assert_eq!(
                Network::parse(network).unwrap().contains(address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
        }
        assert_eq!(Network::parse("10.0.0.0/33"), None);
    }
}
