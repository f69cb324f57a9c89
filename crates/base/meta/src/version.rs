//! The Kubernetes version that Tug speaks, stated once.

/// Major version, as `/version` answers it.
pub const MAJOR: &str = "1";
/// Minor version, as `/version` answers it.
pub const MINOR: &str = "36";
/// Full version of the API served: clients compare its numbers, and the build part says who answers.
pub const GIT_VERSION: &str =
    concat!("v1.36.0+tug", env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
