//! Services, slices and nodes in; rule set, routes and DNS zone out, with their differences.
//!
//! Three independent planners share the small views of [`view`]: [`proxy`] turns Services and EndpointSlices into the
//! nftables maps of one node, [`routes`] turns Nodes into routes and tunnel entries, [`dns`] answers the names of the
//! cluster. Each takes changes one at a time and, for the same objects, ends in the same state whatever the order was.

pub mod affinity;
pub mod dns;
pub mod elements;
pub mod frontends;
pub mod policy;
pub mod proxy;
pub mod routes;
pub mod select;
pub mod slots;
pub mod table;
#[cfg(test)]
mod text;
pub mod view;
