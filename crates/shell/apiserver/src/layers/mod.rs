//! The steps between a socket and a verb, one concern each.

pub mod authentication;
pub mod authorization;
pub mod flow;
pub mod isolation;
pub mod observation;
pub mod time;
