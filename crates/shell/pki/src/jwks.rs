//! What relying parties read to check service account tokens themselves: the key set and the discovery document.

use serde_json::{Value, json};

use crate::TokenSigner;

/// Where the key set is served.
pub const JWKS_PATH: &str = "/openid/v1/jwks";
/// Where the discovery document is served.
pub const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
/// The content type of the key set.
pub const JWKS_CONTENT_TYPE: &str = "application/jwk-set+json";

/// The body of `/openid/v1/jwks`.
pub fn key_set(signer: &TokenSigner) -> Value {
    json!({ "keys": signer.public_keys() })
}

/// The body of `/.well-known/openid-configuration`; `jwks_base` is the URL that the key set is reached under.
pub fn discovery(signer: &TokenSigner, jwks_base: &str) -> Value {
    json!({
        "issuer": signer.issuer(),
        "jwks_uri": format!("{}{JWKS_PATH}", jwks_base.trim_end_matches('/')),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}
