//! One contract, every engine.

mod cases;
mod crash;
mod embedded;
mod etcd;
