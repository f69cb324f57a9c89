//! Bootstrap tokens: the short-lived secrets that new machines join with, and the Secrets they live in.
//!
//! The printed form is `ID.SECRET@sha256:HEX`: the token as kubeadm has it (`[a-z0-9]{6}.[a-z0-9]{16}`), an `@`, and the
//! hash of the cluster CA's public key, so that one string is enough to trust the cluster and to be trusted by it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::PkiError;

/// Where the Secrets live.
pub const NAMESPACE: &str = "kube-system";
/// Their names are this and the token's id.
pub const SECRET_PREFIX: &str = "bootstrap-token-";
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Every bootstrap token's group.
pub const GROUP: &str = "system:bootstrappers";
/// The group of tokens for joining nodes, as kubeadm names it.
pub const NODE_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// User names are this and the token's id.
pub const USER_PREFIX: &str = "system:bootstrap:";

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// `id.secret`.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    pub id: String,
    pub secret: String,
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootstrapToken({}.***)", self.id)
    }
}

impl fmt::Display for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl BootstrapToken {
    /// A random token: 16 characters of 36 are 82 bits.
    pub fn generate() -> Self {
        let random = |length: usize| {
            (0..length).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect::<String>()
        };
        Self { id: random(ID_LENGTH), secret: random(SECRET_LENGTH) }
    }

    /// The Secret that makes the token known to the cluster. `expires` None: never.
    pub fn to_secret(&self, description: &str, expires: Option<Timestamp>) -> Value {
        let mut data = json!({
            "token-id": self.id,
            "token-secret": self.secret,
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": NODE_GROUP,
        });
        if !description.is_empty() {
            data["description"] = json!(description);
        }
        if let Some(expires) = expires {
            data["expiration"] = json!(expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE, "stringData": data,
            "metadata": { "name": format!("{SECRET_PREFIX}{}", self.id), "namespace": NAMESPACE },
        })
    }
}

impl BootstrapToken {
    /// Proof that `content` comes from who knows the token: a JWS with detached content (RFC 7515, appendix F), which
    /// `cluster-info` carries under `jws-kubeconfig-ID`.
    pub fn sign_detached(&self, content: &str) -> crate::PkiResult<String> {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "kid": self.id }).to_string());
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = EncodingKey::from_secret(self.secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256)
            .map_err(|e| PkiError::crypto("sign the cluster information", e))?;
        Ok(format!("{header}..{signature}"))
    }
}

impl FromStr for BootstrapToken {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let part = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| ALPHABET.contains(&b));
        match text.split_once('.') {
            Some((id, secret)) if part(id, ID_LENGTH) && part(secret, SECRET_LENGTH) => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
            }
            _ => Err(PkiError::Rejected(
                "the token is not of the form abcdef.0123456789abcdef; `tug token create` prints one".to_owned(),
            )),
        }
    }
}

/// A bootstrap token with the hash of the CA that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    pub token: BootstrapToken,
    /// `sha256:HEX`.
    pub ca_hash: String,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.token, self.ca_hash)
    }
}

impl FromStr for JoinToken {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let unpinned = || {
            PkiError::Rejected(
                "the token names no certificate authority: use the whole line that `tug token create` prints, \
                 ID.SECRET@sha256:HASH"
                    .to_owned(),
            )
        };
        let (token, hash) = text.trim().split_once('@').ok_or_else(unpinned)?;
        let hex = hash.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unpinned());
        }
        Ok(Self { token: token.parse()?, ca_hash: hash.to_ascii_lowercase() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_nonsense_is_refused() {
        let token = BootstrapToken::generate();
        assert_eq!(token.to_string().parse::<BootstrapToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&token.secret));
        let join = JoinToken { token, ca_hash: format!("sha256:{}", "ab".repeat(32)) };
        assert_eq!(join.to_string().parse::<JoinToken>().unwrap(), join);
        for bad in
            ["", "abcdef.0123456789abcdef", "abcdef.0123456789abcdef@sha256:12", "x@y", "ABCDEF.0123456789abcdef@"]
        {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_secret_is_what_kubeadm_writes() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let secret = token.to_secret("for a node", Some(Timestamp::from_second(0).unwrap()));
        assert_eq!(secret["metadata"]["name"], "bootstrap-token-abcdef");
        assert_eq!(secret["stringData"]["expiration"], "1970-01-01T00:00:00Z");
        assert_eq!(secret["stringData"]["auth-extra-groups"], "system:bootstrappers:kubeadm:default-node-token");
    }
}
