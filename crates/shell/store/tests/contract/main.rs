//! One contract, every engine.

// Helpers of tests may unwrap as the tests themselves do.
#![allow(clippy::unwrap_used)]

mod cases;
mod crash;
mod embedded;
mod etcd;
