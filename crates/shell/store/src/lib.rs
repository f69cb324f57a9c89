//! The Store trait with its embedded and etcd engines behind one contract.

pub mod contract;

pub use contract::{Entry, Event, EventKind, Expect, Page, Range, Store, StoreError, WatchStream};
