//! Flow control: which requests are one flow, how important it is, and who runs next.

pub mod classify;
pub mod defaults;
pub mod fair;

pub use classify::{Digest, FlowSchema, PriorityLevel, Share, shares};
pub use fair::{Arrival, Level, Waiter};
