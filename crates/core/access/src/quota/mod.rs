//! ResourceQuota as decisions: what an object counts, which quotas it falls under, and whether they hold.

pub mod amounts;
mod check;
mod evaluator;
pub mod pod;
mod scope;

pub use amounts::Amounts;
pub use check::{Change, Quota, check, correction, gives_back, recount};
pub use evaluator::{Evaluator, counts_until};
