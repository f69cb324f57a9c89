//! Service account tokens bound to pods, renewed when four fifths of their life are over.

use crate::node::Node;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

const LIFETIME_DEFAULT_SECONDS: i64 = 3600;
/// A token is renewed after this long at the latest.
const RENEW_AFTER_MAX: SignedDuration = SignedDuration::from_hours(24);

type Key = (String, String, Option<String>);

/// Tokens by pod uid, service account and audience.
#[derive(Default)]
pub struct Tokens {
    held: Mutex<HashMap<Key, (String, Timestamp)>>,
}

impl Tokens {
    /// A valid token, and when it should be asked for again.
    ///
    /// # Errors
    /// When the API refuses or cannot be reached.
    pub async fn get(
        &self,
        node: &Node,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), String> {
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let key = (uid.clone(), account.to_string(), source.audience.clone());
        let now = Timestamp::now();
        if let Some(held) = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
            && held.1 > now
        {
            return Ok(held.clone());
        }
        let seconds = source.expiration_seconds.unwrap_or(LIFETIME_DEFAULT_SECONDS);
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: Some(uid),
        };
        let spec = TokenRequestSpec {
            audiences: source.audience.clone().map(|audience| vec![audience]),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(bound),
        };
        let request = TokenRequest { spec: Some(spec), ..Default::default() };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(node.client.clone(), namespace);
        let reply = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let reply = reply.map_err(|e| format!("failed to fetch token: {e}"))?;
        let status = reply.status.ok_or("failed to fetch token: the answer has no status")?;
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err("failed to fetch token: the answer holds no token".into());
        };
        let life = expires.0.duration_since(now);
        let renew = now + (life * 4 / 5).min(RENEW_AFTER_MAX);
        let held = (token, renew);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(key, held.clone());
        Ok(held)
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn release(&self, pod_uid: &str) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| key.0 != pod_uid);
    }
}
