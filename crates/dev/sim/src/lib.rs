//! A whole cluster in one process on simulated time: controllers, scheduler, API server and nodes, driven by a seed.
//!
//! The controllers' plans, the garbage collector's graph and the scheduler's memory are the real ones. The API server is an in-memory store with
//! resourceVersions and compare-and-swap; what stands between it and them is a model: caches that lag by any number of
//! events, writes that conflict or lose their answer, processes that restart between two writes, nodes that go silent,
//! die and return. One thread, one die, no clock: a seed tells the same story each time.

pub mod api;
mod autoscaler;
mod binder;
mod cache;
mod dice;
mod faults;
mod features;
mod garbage;
mod job_laws;
mod laws;
mod manager;
mod mutants;
mod namespace;
mod nodes;
pub mod object;
mod plans;
mod queue;
mod quota;
mod roles;
mod scale;
mod scale_laws;
mod scenario;
mod settle;
mod world;

pub use manager::Manager;
pub use mutants::Mutant;
pub use roles::Role;
pub use scale::death_of_one;
pub use world::{Failure, Summary, rest, run, run_all, run_with};
