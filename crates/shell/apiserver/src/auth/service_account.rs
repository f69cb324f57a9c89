//! Service account tokens: signed, in time, for this audience, and bound to objects that still live.

use std::collections::BTreeMap;

use access::User;
use access::attributes::AUTHENTICATED;
use meta::ApiResult;
use pki::{BoundObject, ServiceAccountClaims, TokenError};
use serde_json::Value;

use super::authenticate::{CREDENTIAL_ID, Finding};
use super::{Security, now};
use crate::engine::Engine;

/// An object that is being deleted still vouches for its tokens for this long.
const DELETION_LEEWAY_SECONDS: i64 = 60;

impl Security {
    pub(super) async fn by_service_account_token(
        &self,
        engine: &Engine,
        token: &str,
        audiences: &[String],
    ) -> ApiResult<Finding> {
        let claims = match self.tokens.verify(token, audiences, now()) {
            Ok(claims) => claims,
            Err(TokenError::Foreign) => return Ok(Finding::NotMine),
            Err(error) => return Ok(Finding::Bad(error.to_string())),
        };
        match why_dead(engine, &claims).await? {
            Some(why) => Ok(Finding::Bad(why)),
            None => Ok(Finding::User(user(&claims))),
        }
    }
}

/// Why the account or what the token is bound to no longer vouches for it.
async fn why_dead(engine: &Engine, claims: &ServiceAccountClaims) -> ApiResult<Option<String>> {
    let kubernetes = &claims.kubernetes;
    let namespace = kubernetes.namespace.as_str();
    let account = &kubernetes.service_account;
    if !lives(engine, "serviceaccounts", namespace, account).await? {
        return Ok(Some(format!("service account {namespace}/{} does not live any more", account.name)));
    }
    let bound = [
        ("secrets", namespace, &kubernetes.secret),
        ("pods", namespace, &kubernetes.pod),
        // Beside a pod the node is only told, not asked for.
        ("nodes", "", if kubernetes.pod.is_some() { &None } else { &kubernetes.node }),
    ];
    for (plural, namespace, object) in bound {
        if let Some(object) = object
            && !lives(engine, plural, namespace, object).await?
        {
            return Ok(Some("service account token has been invalidated".to_owned()));
        }
    }
    Ok(None)
}

async fn lives(engine: &Engine, plural: &str, namespace: &str, wanted: &BoundObject) -> ApiResult<bool> {
    let Some(object) = find(engine, plural, namespace, &wanted.name).await? else { return Ok(false) };
    let metadata = &object["metadata"];
    let deleted: Option<jiff::Timestamp> = metadata["deletionTimestamp"].as_str().and_then(|at| at.parse().ok());
    let gone = deleted.is_some_and(|at| at.as_second() < now() - DELETION_LEEWAY_SECONDS);
    Ok(metadata["uid"].as_str() == Some(wanted.uid.as_str()) && !gone)
}

/// An object of the core group from the cache, or from the store where the cache does not have it yet.
pub(super) async fn find(engine: &Engine, plural: &str, namespace: &str, name: &str) -> ApiResult<Option<Value>> {
    if let Some(object) = engine.cached("", plural, namespace, name) {
        return object.value().map(Some);
    }
    let registry = engine.registry();
    let Some(served) = registry.find("", "v1", plural) else { return Ok(None) };
    Ok(engine.read(served, namespace, name).await?.map(|stored| stored.value))
}

fn user(claims: &ServiceAccountClaims) -> User {
    let kubernetes = &claims.kubernetes;
    let mut extra = BTreeMap::new();
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(key.to_owned(), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        tell(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &kubernetes.pod {
        tell("authentication.kubernetes.io/pod-name", &pod.name);
        tell("authentication.kubernetes.io/pod-uid", &pod.uid);
    }
    if let Some(node) = &kubernetes.node {
        tell("authentication.kubernetes.io/node-name", &node.name);
        tell("authentication.kubernetes.io/node-uid", &node.uid);
    }
    let mut groups = groups(&kubernetes.namespace);
    groups.push(AUTHENTICATED.to_owned());
    User { name: claims.user_name(), uid: kubernetes.service_account.uid.clone(), groups, extra }
}

/// The groups of every service account of a namespace.
pub(super) fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}
