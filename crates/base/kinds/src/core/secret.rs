//! v1 Secret: data that needs care: tokens, keys, passwords.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind::namespaced(V1, "Secret", "secrets")
}
