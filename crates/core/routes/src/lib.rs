//! What the ingress decides: which backend a request goes to, from Ingresses, Gateways, Services and EndpointSlices.
//!
//! [`compile::compile`] turns a snapshot of objects into an immutable [`table::Table`] and into what is to be said about
//! the objects; [`table::Table::find`] answers for one request. Nothing here waits, draws random numbers or reads a clock.

pub mod compile;
pub mod endpoints;
pub mod filter;
pub mod gateway;

pub mod host;
pub mod ingress;
pub mod path;
pub mod settings;
pub mod table;
pub mod text;
pub mod view;

use std::fmt;

/// Namespace (empty for cluster-wide kinds) and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}
