//! `serviceaccounts/token`: a fresh token for an account, bound to the life of a pod, secret or node where asked.

use std::sync::Arc;

use access::User;
use access::node_restriction::Write;
use async_trait::async_trait;
use meta::{ApiResult, FieldError, FieldPath, Status};
use pki::token::KubernetesClaims;
use pki::{BoundObject, ServiceAccountClaims};
use serde_json::{Value, json};

use super::admission::restrict;
use super::reviews::core;
use super::service_account::find;
use super::{Security, now};
use crate::engine::Engine;
use crate::info::RequestInfo;
use crate::subresources::VirtualResource;

const EXPIRATION_SECONDS_MIN: i64 = 600;
const EXPIRATION_SECONDS_MAX: i64 = 1 << 32;
const EXPIRATION_SECONDS_DEFAULT: i64 = 3600;
/// What kubelets ask for on behalf of pods' default volume: such tokens are accepted for a year, because old client
/// libraries read the file only once, and are marked as stale after the time asked for.
const WARN_ONLY_EXPIRATION_SECONDS: i64 = 3607;
const EXTENDED_EXPIRATION_SECONDS: i64 = 365 * 24 * 3600;

pub struct TokenRequests(pub Arc<Security>);

#[async_trait]
impl VirtualResource for TokenRequests {
    fn place(&self) -> (&'static str, &'static str, &'static str) {
        ("", "serviceaccounts", "token")
    }

    async fn create(&self, engine: &Engine, user: &User, info: &RequestInfo, mut body: Value) -> ApiResult<Value> {
        let (namespace, name) = (info.namespace.as_str(), info.name.as_str());
        restrict_node(engine, user, info, &body)?;
        let account = existing(engine, "serviceaccounts", namespace, name).await?;
        check_names(&body, &account, namespace, name)?;
        let seconds = expiration(&body)?;
        let asked = body["spec"]["audiences"].as_array().into_iter().flatten();
        let mut audiences: Vec<String> = asked.filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences = self.0.api_audiences();
        }
        let mut claims = KubernetesClaims {
            namespace: namespace.to_owned(),
            service_account: bound(&account),
            ..KubernetesClaims::default()
        };
        bind(engine, &mut claims, &body["spec"]["boundObjectRef"], name).await?;
        let issued = now();
        let mut expires = issued + seconds;
        if claims.pod.is_some() && seconds == WARN_ONLY_EXPIRATION_SECONDS && audiences == self.0.api_audiences() {
            claims.warn_after = Some(expires);
            expires = issued + EXTENDED_EXPIRATION_SECONDS;
        }
        let token = self.0.tokens.sign(&ServiceAccountClaims {
            iss: String::new(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            aud: audiences.clone(),
            exp: expires,
            iat: issued,
            nbf: issued,
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: claims,
        });
        let time = |second: i64| {
            let at = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        body["apiVersion"] = json!("authentication.k8s.io/v1");
        body["kind"] = json!("TokenRequest");
        body["metadata"] = json!({
            "name": name, "namespace": namespace, "uid": account["metadata"]["uid"], "creationTimestamp": time(issued),
        });
        body["spec"]["audiences"] = json!(audiences);
        body["spec"]["expirationSeconds"] = json!(seconds);
        let token = token.map_err(|e| Status::internal(format!("failed to generate token: {e}")))?;
        body["status"] = json!({ "token": token, "expirationTimestamp": time(issued + seconds) });
        Ok(body)
    }
}

/// A kubelet gets tokens for the pods that run on it, and for nothing else.
fn restrict_node(engine: &Engine, user: &User, info: &RequestInfo, body: &Value) -> ApiResult<()> {
    let write = Write {
        operation: "create",
        group: "",
        resource: "serviceaccounts",
        subresource: "token",
        namespace: &info.namespace,
        name: &info.name,
        new: Some(body),
        old: None,
    };
    restrict(engine, user, &write, &core("serviceaccounts"))
}

async fn existing(engine: &Engine, plural: &str, namespace: &str, name: &str) -> ApiResult<Value> {
    let found = find(engine, plural, namespace, name).await?;
    found.ok_or_else(|| Status::not_found(&core(plural), name))
}

fn bound(object: &Value) -> BoundObject {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    BoundObject { name: text("name"), uid: text("uid") }
}

fn invalid(path: FieldPath, value: Value, why: &str, name: &str) -> Box<Status> {
    let error = FieldError::invalid(&path, value, why);
    Status::invalid("authentication.k8s.io", "TokenRequest", name, &[error])
}

fn check_names(body: &Value, account: &Value, namespace: &str, name: &str) -> ApiResult<()> {
    let metadata = FieldPath::new("metadata");
    let given = |field: &str| body["metadata"][field].as_str().unwrap_or_default();
    for (field, wanted, what) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
        if !given(field).is_empty() && given(field) != wanted {
            let why = format!("must match the service account {what} if specified");
            return Err(invalid(metadata.child(field), given(field).into(), &why, name));
        }
    }
    let uid = account["metadata"]["uid"].as_str().unwrap_or_default();
    if !given("uid").is_empty() && given("uid") != uid {
        let why = format!(
            "the UID in the token request ({}) does not match the UID of the service account ({uid})",
            given("uid")
        );
        let resource = meta::GroupResource::new("authentication.k8s.io", "TokenRequest");
        return Err(Status::conflict(&resource, name, &why));
    }
    Ok(())
}

fn expiration(body: &Value) -> ApiResult<i64> {
    let seconds = match &body["spec"]["expirationSeconds"] {
        Value::Null => EXPIRATION_SECONDS_DEFAULT,
        given => given.as_i64().unwrap_or_default(),
    };
    let why = match seconds {
        ..EXPIRATION_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        EXPIRATION_SECONDS_MIN..=EXPIRATION_SECONDS_MAX => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    Err(invalid(FieldPath::new("spec").child("expirationSeconds"), seconds.into(), why, ""))
}

/// Adds what the token is bound to, which must exist with the uid that was given.
async fn bind(engine: &Engine, claims: &mut KubernetesClaims, reference: &Value, account: &str) -> ApiResult<()> {
    if reference.is_null() {
        return Ok(());
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let namespace = claims.namespace.clone();
    let (plural, object) = match (version, kind) {
        ("v1", "Pod") => ("pods", existing(engine, "pods", &namespace, name).await?),
        ("v1", "Secret") => ("secrets", existing(engine, "secrets", &namespace, name).await?),
        ("v1", "Node") => ("nodes", existing(engine, "nodes", "", name).await?),
        _ => {
            let message = format!("cannot bind token to object of type {version}, Kind={kind}");
            return Err(Status::bad_request(message));
        }
    };
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict(&meta::GroupResource::new("", kind.to_owned()), name, &why));
    }
    match plural {
        "secrets" => claims.secret = Some(bound(&object)),
        "nodes" => claims.node = Some(bound(&object)),
        _ => {
            if object["spec"]["serviceAccountName"] != account {
                let message = format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                );
                return Err(Status::bad_request(message));
            }
            claims.pod = Some(bound(&object));
            if let Some(node) = object["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                let found = find(engine, "nodes", "", node).await?;
                let unknown = || BoundObject { name: node.to_owned(), uid: String::new() };
                claims.node = Some(found.as_ref().map_or_else(unknown, bound));
            }
        }
    }
    Ok(())
}
