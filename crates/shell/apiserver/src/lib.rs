//! The API server: one generic engine over the kind table, its cache, and the path of a request through it.

pub mod admission;
pub mod auth;
pub mod body;
mod bootstrap;
pub mod cache;
mod call;
mod codec;
mod columns;
pub mod config;
pub mod connect;
mod convert;
mod custom;
mod discovery;
pub mod engine;
mod health;
pub mod info;
pub mod kubelets;
mod layers;
pub mod limits;
mod metrics;
mod openapi;
mod output;
mod pages;
pub mod registry;
mod route;
mod server;
mod stack;
pub mod subresources;
mod verbs;
mod warnings;

pub use admission::{Admission, AdmissionRequest, Operation};
pub use config::{Authenticator, Authorizer, Config, Impersonator, Page};
pub use connect::Connector;
pub use engine::Engine;
pub use server::{ApiServer, PeerAddress, PeerCertificates, StartError};
pub use subresources::VirtualResource;
