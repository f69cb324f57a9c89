//! The Store trait with its embedded and etcd engines behind one contract.

pub mod contract;
pub mod embedded;
pub mod etcd;

pub use contract::{Entry, Event, EventKind, Expect, Page, Range, Store, StoreError, StoreResult, WatchStream};
pub use embedded::Embedded;
pub use etcd::{Etcd, EtcdConfig};
