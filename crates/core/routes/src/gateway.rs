//! Gateway API: what its objects say, which routes come of them, and what their status has to say about that.

pub mod attach;
pub mod objects;
pub mod rules;
pub mod status;

pub use attach::{Compiled, Objects, compile, has_ours};
pub use objects::{Class, Gateway, Grant, HttpRoute, Object};
