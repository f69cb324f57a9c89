//! Bootstrap tokens: Secrets in kube-system that let a new machine ask for its first certificate.

use access::User;
use access::attributes::AUTHENTICATED;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki::BootstrapToken;
use pki::bootstrap::{GROUP, NAMESPACE, SECRET_PREFIX, SECRET_TYPE, USER_PREFIX};
use serde_json::Value;

use super::authenticate::Finding;
use super::{Security, now};
use crate::engine::Engine;

impl Security {
    pub(super) fn by_bootstrap_token(&self, engine: &Engine, token: &str) -> Finding {
        let Ok(token) = token.parse::<BootstrapToken>() else { return Finding::NotMine };
        let name = format!("{SECRET_PREFIX}{}", token.id);
        let Some(secret) = engine.cached("", "secrets", NAMESPACE, &name) else { return Finding::NotMine };
        let checked = secret.value().map_err(|status| status.message).and_then(|secret| check(&secret, &token));
        match checked {
            Ok(groups) => Finding::User(User { name: format!("{USER_PREFIX}{}", token.id), groups, ..User::default() }),
            Err(why) => Finding::Bad(format!("bootstrap token {}: {why}", token.id)),
        }
    }
}

/// The groups of the token, or why its Secret does not make it good.
fn check(secret: &Value, token: &BootstrapToken) -> Result<Vec<String>, String> {
    let data = |key: &str| -> String {
        let bytes = secret["data"][key].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    if !secret["metadata"]["deletionTimestamp"].is_null() {
        return Err("is deleted and awaiting removal".to_owned());
    }
    if secret["type"] != SECRET_TYPE {
        return Err(format!("has invalid type, expected {SECRET_TYPE}"));
    }
    if !same_bytes(data("token-secret").as_bytes(), token.secret.as_bytes()) {
        return Err("has invalid value for key token-secret".to_owned());
    }
    if data("token-id") != token.id {
        return Err("has invalid value for key token-id".to_owned());
    }
    let expiration = data("expiration");
    if !expiration.is_empty() {
        let at: jiff::Timestamp = expiration.parse().map_err(|_| "has an unreadable expiration".to_owned())?;
        if at.as_second() <= now() {
            return Err("has expired".to_owned());
        }
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("not marked usage-bootstrap-authentication=true".to_owned());
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in data("auth-extra-groups").split(',').filter(|group| !group.is_empty()) {
        // Any other group would let who may write this Secret become anybody.
        if !group.starts_with("system:bootstrappers:") {
            return Err(format!("has invalid value for key auth-extra-groups: {group:?}"));
        }
        groups.push(group.to_owned());
    }
    groups.push(AUTHENTICATED.to_owned());
    Ok(groups)
}

/// Compares in a time that does not tell how much is equal.
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
