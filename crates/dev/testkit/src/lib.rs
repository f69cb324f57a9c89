//! What tests share: stores in memory, API servers in process, and users who may do everything.

mod memory_store;
mod server;

pub use memory_store::MemoryStore;
pub use server::{AllowAll, NobodyElse, TestServer, admin};
