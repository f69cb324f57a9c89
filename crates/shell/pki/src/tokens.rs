//! Bootstrap tokens as the cluster holds them: create, list, delete.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};

use crate::bootstrap::{self, BootstrapToken};
use crate::{PkiError, PkiResult};

/// Tokens live a day unless said otherwise, as kubeadm's do.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A token as lists show it: never with its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub description: String,
    pub expires: Option<Timestamp>,
    pub usages: Vec<String>,
    pub groups: Vec<String>,
}

fn api(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), bootstrap::NAMESPACE)
}

fn failed(action: &str) -> impl FnOnce(kube::Error) -> PkiError {
    move |error| match error {
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
            PkiError::Rejected(format!("cannot {action}: {}", status.message))
        }
        other => PkiError::Unreachable(format!("cannot {action}: {other}")),
    }
}

/// Makes a token known to the cluster. `life` None: until it is deleted.
pub async fn create(client: &Client, description: &str, life: Option<Duration>) -> PkiResult<BootstrapToken> {
    let token = BootstrapToken::generate();
    let expires = life.map(|life| Timestamp::now() + life);
    let secret = serde_json::from_value(token.to_secret(description, expires))
        .map_err(|e| PkiError::crypto("make the token's Secret", e))?;
    api(client).create(&PostParams::default(), &secret).await.map_err(failed("create the token"))?;
    Ok(token)
}

/// All tokens, by id.
pub async fn list(client: &Client) -> PkiResult<Vec<Listed>> {
    let only = ListParams::default().fields(&format!("type={}", bootstrap::SECRET_TYPE));
    let secrets = api(client).list(&only).await.map_err(failed("list the tokens"))?;
    let mut all: Vec<Listed> = secrets.items.iter().filter_map(listed).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all)
}

fn listed(secret: &Secret) -> Option<Listed> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| data.get(key).map(|v| String::from_utf8_lossy(&v.0).into_owned()).unwrap_or_default();
    let usages = data.keys().filter_map(|key| key.strip_prefix("usage-bootstrap-").map(|usage| (key, usage)));
    let groups = text("auth-extra-groups");
    Some(Listed {
        id: text("token-id"),
        description: text("description"),
        expires: text("expiration").parse().ok(),
        usages: usages.filter(|(key, _)| text(key) == "true").map(|(_, usage)| usage.to_owned()).collect(),
        groups: groups.split(',').filter(|g| !g.is_empty()).map(str::to_owned).collect(),
    })
}

/// Deletes a token by its id (or the whole token); answers whether there was one.
pub async fn delete(client: &Client, token: &str) -> PkiResult<bool> {
    let id = token.split(['.', '@']).next().unwrap_or_default();
    if id.len() != 6 || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err(PkiError::Rejected(format!("{id:?} is not the id of a token; `tug token list` shows them")));
    }
    let name = format!("{}{id}", bootstrap::SECRET_PREFIX);
    match api(client).delete(&name, &DeleteParams::default()).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(failed("delete the token")(error)),
    }
}
