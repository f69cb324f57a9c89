//! Who asks: the connection's client certificate, then the bearer token; neither makes an anonymous user.

use std::collections::BTreeMap;

use access::User;
use access::attributes::AUTHENTICATED;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use meta::{ApiResult, Status};

use super::{Security, now};
use crate::config::Authenticator;
use crate::engine::Engine;
use crate::server::PeerCertificates;

/// Where audit logs and policies find which credential was used.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// How browsers, which cannot set headers on WebSockets, send a token.
const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// What one kind of credential says about a request.
pub enum Finding {
    User(User),
    /// It is not a credential of this kind.
    NotMine,
    /// It is one, and it is not good; the reason is for the log, not for the client.
    Bad(String),
}

#[async_trait]
impl Authenticator for Security {
    async fn authenticate(&self, parts: &Parts) -> Result<Option<User>, Box<Status>> {
        let mut problem = None;
        match self.by_certificate(parts) {
            Finding::User(user) => return Ok(Some(user)),
            Finding::Bad(why) => problem = Some(why),
            Finding::NotMine => {}
        }
        if let Some(token) = bearer_token(&parts.headers) {
            let engine = self.engine()?;
            match self.by_token(&engine, &token, &self.api_audiences()).await? {
                Finding::User(user) => return Ok(Some(user)),
                Finding::Bad(why) => problem = Some(why),
                Finding::NotMine => problem = Some("invalid bearer token".to_owned()),
            }
        }
        match problem {
            None => Ok(None),
            Some(why) => {
                tracing::debug!(why, "a request's credentials were refused");
                Err(Status::unauthorized())
            }
        }
    }
}

impl Security {
    /// Tokens for the API server itself name its issuer as audience.
    pub(super) fn api_audiences(&self) -> Vec<String> {
        vec![self.tokens.issuer().to_owned()]
    }

    fn by_certificate(&self, parts: &Parts) -> Finding {
        let Some(PeerCertificates(chain)) = parts.extensions.get() else { return Finding::NotMine };
        if chain.is_empty() {
            return Finding::NotMine;
        }
        match self.clients.verify(chain, now()) {
            Err(error) => Finding::Bad(error.to_string()),
            Ok(view) if view.common_name.is_empty() => Finding::NotMine,
            Ok(view) => {
                let mut groups = view.organizations;
                groups.push(AUTHENTICATED.to_owned());
                let extra = (CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={}", view.fingerprint)]);
                Finding::User(User {
                    name: view.common_name,
                    groups,
                    extra: BTreeMap::from([extra]),
                    ..User::default()
                })
            }
        }
    }

    /// A bearer token of any kind, for one of these audiences.
    pub(super) async fn by_token(&self, engine: &Engine, token: &str, audiences: &[String]) -> ApiResult<Finding> {
        match self.by_service_account_token(engine, token, audiences).await? {
            Finding::NotMine => Ok(self.by_bootstrap_token(engine, token)),
            found => Ok(found),
        }
    }
}

/// The token of `Authorization: Bearer TOKEN`, or of a WebSocket's protocol list.
fn bearer_token(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let encoded = protocols.flat_map(|list| list.split(',')).find_map(|p| p.trim().strip_prefix(WEBSOCKET_BEARER))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_where_clients_put_them() {
        let of = |name: http::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            bearer_token(&headers)
        };
        assert_eq!(of(AUTHORIZATION, "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of(AUTHORIZATION, "bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(of(AUTHORIZATION, "Basic abc"), None);
        assert_eq!(of(AUTHORIZATION, "Bearer "), None);
        let list = format!("v5.channel.k8s.io, {WEBSOCKET_BEARER}{}", URL_SAFE_NO_PAD.encode("abc"));
        assert_eq!(of(SEC_WEBSOCKET_PROTOCOL, &list).as_deref(), Some("abc"));
    }
}
