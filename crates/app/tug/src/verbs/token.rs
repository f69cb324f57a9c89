//! `tug token create|list|delete`: bootstrap tokens, with which machines join.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use pki::{BootstrapToken, JoinToken};

use crate::connect::Target;

const NAMESPACE: &str = "kube-system";
const PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "type=bootstrap.kubernetes.io/token";
const PUBLISHED_WITHIN: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    target: Target,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Make a token and print the command that joins a machine with it.
    Create {
        /// How long it can be used: 24h, 30m, 0 for ever.
        #[arg(long, default_value = "24h")]
        ttl: String,
        /// A word about what it is for.
        #[arg(long, default_value = "made by tug token create")]
        description: String,
        /// Print nothing but the token.
        #[arg(long)]
        quiet: bool,
    },
    /// The tokens there are.
    List,
    /// Make a token useless.
    Delete {
        /// The token, or its part before the dot.
        token: String,
    },
}

pub fn run(options: Options) -> Result<()> {
    super::block_on(async {
        let client = options.target.client().await?;
        match options.verb {
            Verb::Create { ttl, description, quiet } => {
                let token = create(&client, &description, expiry(&ttl)?).await?;
                if quiet {
                    println!("{token}");
                } else {
                    let cluster = options.target.cluster().ok();
                    let address = machine::fabric::primary_address()
                        .map_or_else(|| "THIS-MACHINE".to_owned(), |ip| ip.to_string());
                    let port = cluster.map_or(6443, |cluster| cluster.port);
                    println!(
                        "on the machine that is to join, run:\n\n  tug agent --server https://{address}:{port} --token {token}\n"
                    );
                }
                Ok(())
            }
            Verb::List => list(&client).await,
            Verb::Delete { token } => delete(&client, &token).await,
        }
    })
}

/// When a token made now ends; None for never.
fn expiry(ttl: &str) -> Result<Option<Timestamp>> {
    if ttl == "0" {
        return Ok(None);
    }
    let duration: SignedDuration =
        ttl.parse().with_context(|| format!("--ttl {ttl:?} is no duration; write 24h or 30m"))?;
    if duration <= SignedDuration::ZERO {
        bail!("--ttl {ttl:?} is in the past; write 24h, or 0 for a token that never ends");
    }
    Ok(Some(Timestamp::now().checked_add(duration).context("--ttl is too long")?))
}

/// Makes a bootstrap token in the cluster; answers it with the hash of the cluster's authority.
///
/// # Errors
/// The API refused the Secret, or the authority's certificate is not published.
pub async fn create(client: &Client, description: &str, expires: Option<Timestamp>) -> Result<JoinToken> {
    let token = BootstrapToken::generate();
    let secret: Secret =
        serde_json::from_value(token.to_secret(description, expires)).context("the token's Secret is malformed")?;
    Api::<Secret>::namespaced(client.clone(), NAMESPACE)
        .create(&PostParams::default(), &secret)
        .await
        .context("cannot store the token")?;
    // A controller publishes the authority, in a new cluster a moment after the API answers.
    let maps = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let published = await_condition(maps, "kube-root-ca.crt", |found: Option<&ConfigMap>| found.is_some());
    let published = tokio::time::timeout(PUBLISHED_WITHIN, published).await;
    let ca = published
        .context("the cluster's authority is not published; see the log of its control plane")?
        .context("cannot read the cluster's authority")?
        .context("the cluster's authority was removed")?;
    let pem = ca.data.as_ref().and_then(|data| data.get("ca.crt")).context("the cluster publishes no authority")?;
    let ca_hash = pki::spki_hash(&pki::inspect::first_der(pem)?)?;
    Ok(JoinToken { token, ca_hash })
}

async fn list(client: &Client) -> Result<()> {
    let params = ListParams::default().fields(SECRET_TYPE);
    let secrets =
        Api::<Secret>::namespaced(client.clone(), NAMESPACE).list(&params).await.context("cannot list tokens")?;
    println!("{:<10} {:<22} DESCRIPTION", "ID", "EXPIRES");
    for secret in secrets {
        let field = |name: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(name));
            bytes.map_or_else(String::new, |bytes| String::from_utf8_lossy(&bytes.0).into_owned())
        };
        let expires = field("expiration");
        println!(
            "{:<10} {:<22} {}",
            field("token-id"),
            if expires.is_empty() { "never" } else { &expires },
            field("description")
        );
    }
    Ok(())
}

async fn delete(client: &Client, token: &str) -> Result<()> {
    let id = token.split('.').next().unwrap_or(token);
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    secrets
        .delete(&format!("{PREFIX}{id}"), &DeleteParams::default())
        .await
        .with_context(|| format!("cannot delete token {id}"))?;
    println!("token {id} deleted");
    Ok(())
}
