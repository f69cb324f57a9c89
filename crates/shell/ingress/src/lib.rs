//! HTTP and HTTPS from outside into the cluster: the proxy of one node, and the controller that keeps statuses.
//!
//! [`run`] serves one node until cancelled; [`control`] runs once in a cluster. What is decided is decided by `routes`;
//! this crate follows objects, listens, passes requests on, and writes statuses. The way of a request can be read from
//! `connection.rs` (bytes to requests) through `proxy.rs` (route, backend, answer) to `pool.rs` (connections to backends) and
//! `wire.rs` (what is said on most of them).

mod answer_head;
mod answers;
mod body;
mod certificates;
mod connection;
mod control;
mod deadline;
mod definitions;
pub mod fixed;
mod forward;
mod framing;
#[cfg(test)]
mod lab;
mod limits;
mod linger;
mod listen;
mod log;
mod metrics;
mod pool;
mod proxy;
mod proxy_protocol;
mod run;
mod serving;
#[cfg(test)]
mod tests;
mod tunnel;
mod wire;
mod worker;
mod world;

pub use control::control;
pub use definitions::all as definitions;
pub use metrics::Metrics;
pub use run::{IngressConfig, PORTS_ANNOTATION, run};
pub use serving::Serving;
pub use world::{SETTINGS_NAME, SETTINGS_NAMESPACE};
