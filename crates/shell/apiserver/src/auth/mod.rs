//! Identity and rights: certificates and tokens in, a user out, and every question about what a user may do.
//!
//! One [`Security`] is made from the cluster's keys, plugged into a [`Config`], and attached to the engine once that
//! runs: its decisions read the engine's cache. There is no switch that turns any of it off.

mod admission;
mod authenticate;
mod authorize;
mod bootstrap_token;
mod certificates;
mod defaults;
mod impersonate;
mod index;
mod oidc;
mod reviews;
mod service_account;
mod token_request;

use std::sync::{Arc, OnceLock, Weak};

use access::{Attributes, Decision};
use meta::{ApiResult, Reason, Status};
use pki::TokenSigner;
use pki::tls::ClientAuthority;

use crate::config::Config;
use crate::engine::Engine;
use index::Indexes;

/// What identity rests on.
pub struct Keys {
    /// Whose client certificates are believed: the cluster CA, as PEM.
    pub client_ca_pem: String,
    /// Signs and checks service account tokens.
    pub tokens: TokenSigner,
    /// The URL that relying parties reach the key set under: `https://ADDRESS:PORT`.
    pub public_url: String,
}

/// The parts that decide, bound together by the engine whose cache they read.
pub struct Security {
    clients: ClientAuthority,
    tokens: TokenSigner,
    public_url: String,
    /// Weak, because the engine's configuration holds this.
    engine: OnceLock<Weak<Engine>>,
    indexes: Indexes,
}

impl Security {
    /// # Errors
    /// The CA is not readable.
    pub fn new(keys: Keys) -> pki::PkiResult<Arc<Self>> {
        Ok(Arc::new(Self {
            clients: ClientAuthority::new(&keys.client_ca_pem)?,
            tokens: keys.tokens,
            public_url: keys.public_url,
            engine: OnceLock::new(),
            indexes: Indexes::default(),
        }))
    }

    /// A server configuration that this decides for, with the default roles among its bootstrap objects.
    pub fn config(self: &Arc<Self>) -> Config {
        let mut config = Config::new(self.clone(), self.clone());
        config.impersonator = Some(self.clone());
        config.admission.push(Arc::new(admission::RoleEscalation(self.clone())));
        config.admission.push(Arc::new(admission::NodeRestriction));
        config.admission.push(Arc::new(certificates::CertificateAdmission(self.clone())));
        config.virtual_resources.extend(reviews::all(self));
        config.virtual_resources.push(Arc::new(token_request::TokenRequests(self.clone())));
        config.pages.extend(oidc::pages(self));
        config.bootstrap.extend(defaults::objects());
        config
    }

    /// Starts deciding by this engine's cache, and repairs default roles that lost rules. Call once, after the server
    /// started and before it serves.
    pub async fn attach(&self, engine: &Arc<Engine>) -> ApiResult<()> {
        let _ = self.engine.set(Arc::downgrade(engine));
        defaults::repair(engine).await
    }

    fn engine(&self) -> ApiResult<Arc<Engine>> {
        let engine = self.engine.get().and_then(Weak::upgrade);
        engine.ok_or_else(|| Status::failure(Reason::ServiceUnavailable, "the server is starting or stopping"))
    }

    /// Whether the answer to a question is yes.
    fn allows(&self, asked: &Attributes) -> bool {
        matches!(self.decide(asked), Decision::Allow { .. })
    }
}

/// Seconds since the epoch.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
