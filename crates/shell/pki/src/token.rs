//! Service account tokens: JWTs that name an account and the object they live and die with.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::{self, SECRET_MODE};
use crate::{PkiError, PkiResult, issue};

/// Tokens above this size are not read at all.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// An object named by name and uid: the token is good only while it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundObject {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The private claims, under the key `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    pub namespace: String,
    #[serde(rename = "serviceaccount")]
    pub service_account: BoundObject,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// The second after which a holder should have fetched a newer token.
    #[serde(default, rename = "warnafter", skip_serializing_if = "Option::is_none")]
    pub warn_after: Option<i64>,
}

/// All claims of a service account token. Times are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAccountClaims {
    pub iss: String,
    pub sub: String,
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub nbf: i64,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
}

impl ServiceAccountClaims {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub fn user_name(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.kubernetes.namespace, self.kubernetes.service_account.name)
    }
}

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT of this issuer at all; another authenticator may know it.
    #[error("the token is not from this cluster's issuer")]
    Foreign,
    #[error("the token is malformed or its signature does not verify")]
    Invalid,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYetValid,
    #[error("token audiences {given:?} is invalid for the target audiences {wanted:?}")]
    Audience { given: Vec<String>, wanted: Vec<String> },
}

#[derive(Clone)]
struct VerifyingKey {
    id: String,
    /// Affine coordinates of the P-256 point, base64url, as a JWK has them.
    x: String,
    y: String,
    key: DecodingKey,
}

/// Signs with one ECDSA P-256 key and verifies with that and any older ones (rotation).
#[derive(Clone)]
pub struct TokenSigner {
    issuer: String,
    signing: EncodingKey,
    verifying: Vec<VerifyingKey>,
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSigner").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl TokenSigner {
    /// Takes PKCS#8 PEM keys; the first signs, all verify.
    pub fn from_pem(issuer: &str, keys_pem: &[String]) -> PkiResult<Self> {
        let mut verifying = Vec::new();
        let mut signing = None;
        for text in keys_pem {
            let pair = KeyPair::from_pem(text).map_err(|e| PkiError::crypto("read the service account key", e))?;
            verifying.push(verifying_key(&pair)?);
            signing.get_or_insert_with(|| EncodingKey::from_ec_der(pair.serialized_der()));
        }
        let signing = signing.ok_or_else(|| PkiError::Rejected("no service account key was given".to_owned()))?;
        Ok(Self { issuer: issuer.to_owned(), signing, verifying })
    }

    /// Loads `FOLDER/sa.key` or makes it; `FOLDER/sa-old.key`, where present, still verifies.
    pub fn load_or_create(folder: &Path, issuer: &str) -> PkiResult<Self> {
        files::make_private_dir(folder)?;
        let path = folder.join("sa.key");
        let mut keys = Vec::new();
        match files::read_optional(&path)? {
            Some(text) => keys.push(text),
            None => {
                let text = issue::new_key()?.serialize_pem();
                files::write_atomic(&path, text.as_bytes(), SECRET_MODE)?;
                keys.push(text);
            }
        }
        keys.extend(files::read_optional(&folder.join("sa-old.key"))?);
        Self::from_pem(issuer, &keys).map_err(|e| PkiError::BadFile {
            path,
            problem: format!("does not hold an ECDSA P-256 key in PKCS#8 PEM ({e})"),
            next_step: "restore it from a backup, or delete it to make a new one (all service account tokens \
                        are then invalid and pods fetch new ones)"
                .to_owned(),
        })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs claims as they are; `iss` is set to this issuer.
    pub fn sign(&self, claims: &ServiceAccountClaims) -> PkiResult<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = self.verifying.first().map(|k| k.id.clone());
        let claims = ServiceAccountClaims { iss: self.issuer.clone(), ..claims.clone() };
        jsonwebtoken::encode(&header, &claims, &self.signing).map_err(|e| PkiError::crypto("sign the token", e))
    }

    /// Checks signature, issuer, times at `now`, and that one of `audiences` is meant (empty: any).
    /// Whether the bound objects still live is the caller's question to its cache.
    pub fn verify(&self, token: &str, audiences: &[String], now: i64) -> Result<ServiceAccountClaims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX || unverified_issuer(token).as_deref() != Some(self.issuer.as_str()) {
            return Err(TokenError::Foreign);
        }
        let claims = self.verify_signature(token)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Foreign);
        }
        if claims.sub != claims.user_name() {
            return Err(TokenError::Invalid);
        }
        if now >= claims.exp {
            return Err(TokenError::Expired);
        }
        if now + issue::CLOCK_SKEW_MAX_SECONDS < claims.nbf {
            return Err(TokenError::NotYetValid);
        }
        if !audiences.is_empty() && !claims.aud.iter().any(|a| audiences.contains(a)) {
            return Err(TokenError::Audience { given: claims.aud, wanted: audiences.to_vec() });
        }
        Ok(claims)
    }

    fn verify_signature(&self, token: &str) -> Result<ServiceAccountClaims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        let mut validation = Validation::new(Algorithm::ES256);
        // Times and audiences are checked against the caller's clock, not the system's.
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims.clear();
        let candidates = self.verifying.iter().filter(|k| header.kid.as_ref().is_none_or(|id| *id == k.id));
        for key in candidates {
            if let Ok(data) = jsonwebtoken::decode::<ServiceAccountClaims>(token, &key.key, &validation) {
                return Ok(data.claims);
            }
        }
        Err(TokenError::Invalid)
    }

    /// The public keys as JSON Web Keys, in the form `/openid/v1/jwks` publishes.
    pub(crate) fn public_keys(&self) -> Vec<BTreeMap<&'static str, String>> {
        let entry = |key: &VerifyingKey| {
            BTreeMap::from([
                ("use", "sig".to_owned()),
                ("kty", "EC".to_owned()),
                ("kid", key.id.clone()),
                ("crv", "P-256".to_owned()),
                ("alg", "ES256".to_owned()),
                ("x", key.x.clone()),
                ("y", key.y.clone()),
            ])
        };
        self.verifying.iter().map(entry).collect()
    }
}

fn verifying_key(pair: &KeyPair) -> PkiResult<VerifyingKey> {
    // An uncompressed point: 0x04, then 32 bytes each of x and y (SEC 1, 2.3.3).
    let [4, point @ ..] = pair.public_key_raw() else {
        return Err(PkiError::Rejected("the key is not an ECDSA P-256 key".to_owned()));
    };
    if point.len() != 64 {
        return Err(PkiError::Rejected("the key is not an ECDSA P-256 key".to_owned()));
    }
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[..32]), URL_SAFE_NO_PAD.encode(&point[32..]));
    let key = DecodingKey::from_ec_components(&x, &y).map_err(|e| PkiError::crypto("use the public key", e))?;
    Ok(VerifyingKey { id: URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info())), x, y, key })
}

/// The issuer a token claims to be from, without believing it.
fn unverified_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let payload = token.split('.').nth(1).filter(|_| token.split('.').count() == 3)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Issuer>(&bytes).ok().map(|i| i.iss)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn claims() -> ServiceAccountClaims {
        ServiceAccountClaims {
            sub: "system:serviceaccount:default:web".to_owned(),
            aud: vec!["api".to_owned()],
            exp: NOW + 600,
            iat: NOW,
            nbf: NOW,
            jti: "id".to_owned(),
            kubernetes: KubernetesClaims {
                namespace: "default".to_owned(),
                service_account: BoundObject { name: "web".to_owned(), uid: "u1".to_owned() },
                pod: Some(BoundObject { name: "web-0".to_owned(), uid: "u2".to_owned() }),
                ..KubernetesClaims::default()
            },
            ..ServiceAccountClaims::default()
        }
    }

    fn signer(issuer: &str) -> TokenSigner {
        TokenSigner::from_pem(issuer, &[issue::new_key().unwrap().serialize_pem()]).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_time_and_audience() {
        let signer = signer("https://kubernetes.default.svc");
        let token = signer.sign(&claims()).unwrap();
        let api = ["api".to_owned()];
        let verified = signer.verify(&token, &api, NOW).unwrap();
        assert_eq!(verified.kubernetes.pod.unwrap().name, "web-0");
        assert_eq!(signer.verify(&token, &api, NOW + 600), Err(TokenError::Expired));
        assert_eq!(signer.verify(&token, &api, NOW - 3600), Err(TokenError::NotYetValid));
        assert!(matches!(signer.verify(&token, &["vault".to_owned()], NOW), Err(TokenError::Audience { .. })));
    }

    #[test]
    fn strangers_and_forgeries_are_told_apart() {
        let issuer = "https://kubernetes.default.svc";
        let (ours, other_key, other_issuer) = (signer(issuer), signer(issuer), signer("https://elsewhere"));
        let verify = |token: &str| ours.verify(token, &[], NOW).unwrap_err();
        assert_eq!(verify(&other_key.sign(&claims()).unwrap()), TokenError::Invalid);
        assert_eq!(verify(&other_issuer.sign(&claims()).unwrap()), TokenError::Foreign);
        assert_eq!(verify("abcdef.0123456789abcdef"), TokenError::Foreign);
        let token = ours.sign(&claims()).unwrap();
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let payload = String::from_utf8(URL_SAFE_NO_PAD.decode(&parts[1]).unwrap()).unwrap();
        parts[1] = URL_SAFE_NO_PAD.encode(payload.replace("web", "adm"));
        assert_eq!(verify(&parts.join(".")), TokenError::Invalid);
        // The same without a signature and with the algorithm "none".
        parts[0] = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert_eq!(verify(&format!("{}.{}.", parts[0], parts[1])), TokenError::Invalid);
    }

    #[test]
    fn an_old_key_still_verifies() {
        let keys: Vec<String> = (0..2).map(|_| issue::new_key().unwrap().serialize_pem()).collect();
        let old = TokenSigner::from_pem("i", &keys[1..]).unwrap();
        let new = TokenSigner::from_pem("i", &keys).unwrap();
        assert!(new.verify(&old.sign(&claims()).unwrap(), &[], NOW).is_ok());
        assert!(old.verify(&new.sign(&claims()).unwrap(), &[], NOW).is_err());
    }

    #[test]
    fn the_key_file_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let token = TokenSigner::load_or_create(dir.path(), "i").unwrap().sign(&claims()).unwrap();
        assert!(TokenSigner::load_or_create(dir.path(), "i").unwrap().verify(&token, &[], NOW).is_ok());
        std::fs::write(dir.path().join("sa.key"), "x").unwrap();
        let error = TokenSigner::load_or_create(dir.path(), "i").unwrap_err().to_string();
        assert!(error.contains("sa.key"), "{error}");
    }
}
