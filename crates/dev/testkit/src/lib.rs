//! What tests share: stores in memory, API servers in process, users who may do everything, and waiting with a deadline.

// Helpers of tests may unwrap as the tests themselves do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod eventually;
mod memory_store;
mod objects;
mod secure;
mod server;

pub use eventually::{until, until_pod};
pub use memory_store::MemoryStore;
pub use objects::{make, merge, run_pods};
pub use secure::SecureServer;
pub use server::{AllowAll, NobodyElse, TestServer, admin};
