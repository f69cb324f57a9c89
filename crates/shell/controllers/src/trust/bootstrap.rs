//! Deletes bootstrap tokens that expired, and keeps `cluster-info` signed by each that is good for it.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Cached, Hub, Informer, InformerConfig, Source};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use pki::BootstrapToken;
use pki::bootstrap::{NAMESPACE, SECRET_TYPE};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{TrustConfig, now};

const PUBLIC_NAMESPACE: &str = "kube-public";
const CONFIG_MAP: &str = "cluster-info";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";
/// After a failure the whole is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Clocks jump, so expiries are looked at at least this often while there are tokens.
const EXPIRY_CHECK_MAX: Duration = Duration::from_secs(300);

/// The bootstrap token Secrets.
struct Tokens;

impl Source for Tokens {
    type Object = Secret;
    type View = Token;

    fn project(secret: Secret) -> Token {
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| data.get(key).map(|v| String::from_utf8_lossy(&v.0).into_owned()).unwrap_or_default();
        let expiration = text("expiration");
        Token {
            token: format!("{}.{}", text("token-id"), text("token-secret")).parse().ok(),
            signs: text("usage-bootstrap-signing") == "true",
            expires: match expiration.as_str() {
                "" => None,
                // An unreadable time is over: a token must not live for ever by a typing error.
                text => Some(text.parse().map_or(0, |at: jiff::Timestamp| at.as_second())),
            },
        }
    }

    fn config() -> InformerConfig {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
        InformerConfig::all(path).fields(format!("type={SECRET_TYPE}"))
    }
}

struct Token {
    token: Option<BootstrapToken>,
    signs: bool,
    /// Seconds since the epoch.
    expires: Option<i64>,
}

pub async fn run(config: &TrustConfig, hub: &Hub, stop: CancellationToken) {
    let tokens = hub.informer::<Tokens>();
    let controller = Controller { config, tokens: tokens.clone(), client: hub.client().clone() };
    let mut changes = tokens.changes();
    let work = async {
        tokens.synced().await;
        loop {
            changes.mark_unchanged();
            let pause = match controller.reconcile().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "bootstrap tokens could not be brought in order");
                    Some(RETRY)
                }
            };
            let timer = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = timer => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

struct Controller<'a> {
    config: &'a TrustConfig,
    tokens: Informer<Token>,
    client: kube::Client,
}

impl Controller<'_> {
    /// Answers when the next token expires.
    async fn reconcile(&self) -> anyhow::Result<Option<Duration>> {
        let now = now();
        let (gone, live): (Vec<_>, Vec<_>) =
            self.tokens.list().into_iter().partition(|token| token.expires.is_some_and(|at| at <= now));
        for token in gone {
            self.delete(&token).await?;
        }
        let signers = live.iter().filter(|token| token.signs && !token.deleting).filter_map(|t| t.token.as_ref());
        self.publish(&signers.collect::<Vec<_>>()).await?;
        let next = live.iter().filter_map(|token| token.expires).min();
        let wait = |at: i64| Duration::from_secs(u64::try_from(at - now).unwrap_or_default()).min(EXPIRY_CHECK_MAX);
        Ok(next.map(wait))
    }

    async fn delete(&self, token: &Cached<Token>) -> Result<(), kube::Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let preconditions = Preconditions { uid: Some(token.uid.clone()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match secrets.delete(&token.key.name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn publish(&self, signers: &[&BootstrapToken]) -> anyhow::Result<()> {
        let kubeconfig = pki::kubeconfig::cluster_info(&self.config.server, self.config.ca.certificate_pem())?;
        let mut wanted = BTreeMap::from([("kubeconfig".to_owned(), kubeconfig.clone())]);
        for token in signers {
            wanted.insert(format!("{SIGNATURE_PREFIX}{}", token.id), token.sign_detached(&kubeconfig)?);
        }
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), PUBLIC_NAMESPACE);
        let Some(existing) = maps.get_opt(CONFIG_MAP).await? else {
            let map = ConfigMap {
                data: Some(wanted),
                metadata: kube::api::ObjectMeta { name: Some(CONFIG_MAP.to_owned()), ..Default::default() },
                ..ConfigMap::default()
            };
            maps.create(&Default::default(), &map).await?;
            return Ok(());
        };
        let changes = differences(&existing.data.unwrap_or_default(), &wanted);
        if changes.is_empty() {
            return Ok(());
        }
        let patch = json!({ "data": changes });
        maps.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }
}

/// A merge patch of the data: new values, and null for signatures of tokens that are gone. Other keys are not ours.
fn differences(have: &BTreeMap<String, String>, want: &BTreeMap<String, String>) -> BTreeMap<String, Value> {
    let changed = want.iter().filter(|(key, value)| have.get(*key) != Some(value));
    let stale = have.keys().filter(|key| key.starts_with(SIGNATURE_PREFIX) && !want.contains_key(*key));
    let changed = changed.map(|(key, value)| (key.clone(), json!(value)));
    changed.chain(stale.map(|key| (key.clone(), Value::Null))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_keys_are_touched() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let have: BTreeMap<_, _> = map(&[("kubeconfig", "a"), ("jws-kubeconfig-old", "x"), ("other", "y")]);
        let want = map(&[("kubeconfig", "a"), ("jws-kubeconfig-new", "z")]);
        let patch = json!(differences(&have, &want));
        assert_eq!(patch, json!({ "jws-kubeconfig-new": "z", "jws-kubeconfig-old": null }));
        assert!(differences(&want, &want).is_empty());
    }
}
