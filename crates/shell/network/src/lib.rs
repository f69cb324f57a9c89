//! Pod network, service proxy, network policies and cluster DNS of one node.
//!
//! [`run`] serves one node until cancelled; [`cleanup`] removes what it left in the kernel; [`bootstrap`] makes the
//! cluster-wide `kube-dns` Service. Decisions are made by `netplan`; this crate watches, calls it, and applies its plans.

mod applied;
mod bootstrap;
mod cni;
mod config;
mod conntrack;
mod dns;
pub mod fixed;
mod forward;
mod guard;
mod guarded;
mod health;
#[cfg(test)]
mod lab;
mod link;
mod nft;
mod plain_http;
mod policy;
#[cfg(test)]
mod probe;
mod proxy;
mod proxy_health;
mod remembered;
mod run;
mod upstreams;
mod watch;

pub use applied::Applied;
pub use bootstrap::{bootstrap, dns_service};
pub use config::{Backend, NetworkConfig};
pub use guarded::Guarded;
pub use run::{cleanup, run};
