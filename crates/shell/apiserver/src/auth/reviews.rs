//! Questions about rights and identity as API objects: access reviews, rules reviews, token reviews.

use std::collections::BTreeMap;
use std::sync::Arc;

use access::{Attributes, Decision, Rule, User, node};
use async_trait::async_trait;
use meta::{ApiResult, FieldError, FieldPath, GroupResource, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Security;
use super::authenticate::Finding;
use crate::engine::Engine;
use crate::info::RequestInfo;
use crate::subresources::VirtualResource;

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

#[derive(Clone, Copy)]
enum Kind {
    Subject,
    LocalSubject,
    SelfSubject,
    SelfRules,
    SelfIdentity,
    Token,
}

/// Every review.
pub fn all(security: &Arc<Security>) -> Vec<Arc<dyn VirtualResource>> {
    use Kind::{LocalSubject, SelfIdentity, SelfRules, SelfSubject, Subject, Token};
    let kinds = [Subject, LocalSubject, SelfSubject, SelfRules, SelfIdentity, Token];
    kinds.map(|kind| Arc::new(Review { security: security.clone(), kind }) as Arc<dyn VirtualResource>).into()
}

struct Review {
    security: Arc<Security>,
    kind: Kind,
}

#[async_trait]
impl VirtualResource for Review {
    fn place(&self) -> (&'static str, &'static str, &'static str) {
        match self.kind {
            Kind::Subject => (AUTHORIZATION, "subjectaccessreviews", ""),
            Kind::LocalSubject => (AUTHORIZATION, "localsubjectaccessreviews", ""),
            Kind::SelfSubject => (AUTHORIZATION, "selfsubjectaccessreviews", ""),
            Kind::SelfRules => (AUTHORIZATION, "selfsubjectrulesreviews", ""),
            Kind::SelfIdentity => (AUTHENTICATION, "selfsubjectreviews", ""),
            Kind::Token => (AUTHENTICATION, "tokenreviews", ""),
        }
    }

    async fn create(&self, engine: &Engine, user: &User, info: &RequestInfo, mut body: Value) -> ApiResult<Value> {
        body["status"] = match self.kind {
            Kind::Subject | Kind::LocalSubject | Kind::SelfSubject => self.access(user, info, &body)?,
            Kind::SelfRules => self.rules(engine, user, &body)?,
            Kind::SelfIdentity => json!({ "userInfo": user_info(user) }),
            Kind::Token => self.token(engine, &body).await?,
        };
        Ok(body)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AccessSpec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<PathAttributes>,
    user: String,
    uid: String,
    groups: Option<Vec<String>>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
    field_selector: Option<FieldSelector>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FieldSelector {
    raw_selector: String,
    requirements: Option<Vec<Requirement>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PathAttributes {
    path: String,
    verb: String,
}

impl FieldSelector {
    /// The equalities among its requirements; the others narrow nothing that an authorizer looks at.
    fn equalities(&self) -> Vec<(String, String)> {
        let raw = self.raw_selector.split(',').filter(|part| !part.contains("!="));
        let raw = raw.filter_map(|part| part.split_once('='));
        let raw = raw.map(|(field, value)| (field.to_owned(), value.trim_start_matches('=').to_owned()));
        let structured = self.requirements.iter().flatten().filter(|r| r.operator == "In");
        let structured = structured.filter_map(|r| match r.values.as_deref() {
            Some([value]) => Some((r.key.clone(), value.clone())),
            _ => None,
        });
        raw.chain(structured).collect()
    }
}

impl Review {
    fn access(&self, user: &User, info: &RequestInfo, body: &Value) -> ApiResult<Value> {
        let spec = AccessSpec::deserialize(&body["spec"]).map_err(|e| Status::bad_request(e.to_string()))?;
        self.validate(&spec, &body["spec"])?;
        if matches!(self.kind, Kind::LocalSubject) {
            let asked = spec.resource_attributes.as_ref().map_or("", |r| r.namespace.as_str());
            if asked != info.namespace {
                let message = format!("spec.resourceAttributes.namespace must match namespace: {}", info.namespace);
                return Err(Status::bad_request(message));
            }
        }
        let who = match self.kind {
            Kind::SelfSubject => user.clone(),
            _ => User {
                name: spec.user.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone().unwrap_or_default(),
                extra: spec.extra.clone().unwrap_or_default(),
            },
        };
        let (allowed, denied, reason) = match self.security.decide(&spec.attributes(who)) {
            Decision::Allow { reason } => (true, false, reason),
            Decision::Deny { reason } => (false, true, reason),
            Decision::NoOpinion { reason } => (false, false, reason),
        };
        let mut status = json!({ "allowed": allowed });
        if denied {
            status["denied"] = json!(true);
        }
        if !reason.is_empty() {
            status["reason"] = json!(reason);
        }
        Ok(status)
    }

    fn validate(&self, spec: &AccessSpec, raw: &Value) -> ApiResult<()> {
        let path = FieldPath::new("spec");
        let mut errors = Vec::new();
        match (&spec.resource_attributes, &spec.non_resource_attributes) {
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                &path.child("nonResourceAttributes"),
                raw["nonResourceAttributes"].clone(),
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(FieldError::invalid(
                &path.child("resourceAttributes"),
                Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            (None, Some(_)) if matches!(self.kind, Kind::LocalSubject) => errors.push(FieldError::invalid(
                &path.child("nonResourceAttributes"),
                raw["nonResourceAttributes"].clone(),
                "disallowed on this kind of request",
            )),
            _ => {}
        }
        let nobody = spec.user.is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty);
        if !matches!(self.kind, Kind::SelfSubject) && nobody {
            let why = "at least one of user or group must be specified";
            errors.push(FieldError::invalid(&path.child("user"), spec.user.clone(), why));
        }
        if errors.is_empty() {
            return Ok(());
        }
        let kind = match self.kind {
            Kind::LocalSubject => "LocalSubjectAccessReview",
            Kind::SelfSubject => "SelfSubjectAccessReview",
            _ => "SubjectAccessReview",
        };
        Err(Status::invalid(AUTHORIZATION, kind, "", &errors))
    }

    fn rules(&self, engine: &Engine, user: &User, body: &Value) -> ApiResult<Value> {
        let namespace = body["spec"]["namespace"].as_str().unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let (rules, mut errors) = self.security.indexes.rbac(engine, |rbac| rbac.rules_for(user, namespace));
        let incomplete = node::node_name(user).is_some() || !errors.is_empty();
        if node::node_name(user).is_some() {
            errors.insert(0, "node authorizer does not support user rule resolution".to_owned());
        }
        let resource = |rule: &&Rule| !rule.resources.is_empty();
        let resource_rules: Vec<Value> = rules.iter().filter(resource).map(resource_rule).collect();
        let paths = rules.iter().filter(|rule| !rule.non_resource_urls.is_empty());
        let path_rules: Vec<Value> =
            paths.map(|rule| json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls })).collect();
        let mut status =
            json!({ "resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": incomplete });
        if !errors.is_empty() {
            status["evaluationError"] = json!(access::go::aggregate(&errors));
        }
        Ok(status)
    }

    async fn token(&self, engine: &Engine, body: &Value) -> ApiResult<Value> {
        let token = body["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let wanted = body["spec"]["audiences"].as_array().into_iter().flatten();
        let mut audiences: Vec<String> = wanted.filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences = self.security.api_audiences();
        }
        Ok(match self.security.by_token(engine, token, &audiences).await? {
            Finding::User(user) => {
                let meant = self.security.audiences_of(token, &audiences);
                json!({ "authenticated": true, "user": user_info(&user), "audiences": meant })
            }
            Finding::Bad(why) => json!({ "user": {}, "error": format!("[invalid bearer token, {why}]") }),
            Finding::NotMine => json!({ "user": {}, "error": "invalid bearer token" }),
        })
    }
}

impl Security {
    /// Those of the wanted audiences that a verified token is for; bootstrap tokens are for all.
    fn audiences_of(&self, token: &str, wanted: &[String]) -> Vec<String> {
        match self.tokens.verify(token, wanted, super::now()) {
            Ok(claims) => wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect(),
            Err(_) => wanted.to_vec(),
        }
    }
}

impl AccessSpec {
    fn attributes(self, user: User) -> Attributes {
        if let Some(asked) = self.resource_attributes {
            return Attributes {
                user,
                field_selector: asked.field_selector.map(|s| s.equalities()).unwrap_or_default(),
                verb: asked.verb,
                group: asked.group,
                version: asked.version,
                resource: asked.resource,
                subresource: asked.subresource,
                namespace: asked.namespace,
                name: asked.name,
                path: String::new(),
            };
        }
        let asked = self.non_resource_attributes.unwrap_or_default();
        Attributes { user, verb: asked.verb, path: asked.path, ..Attributes::default() }
    }
}

fn resource_rule(rule: &Rule) -> Value {
    let mut value = json!({ "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources });
    if !rule.resource_names.is_empty() {
        value["resourceNames"] = json!(rule.resource_names);
    }
    value
}

/// `authentication.k8s.io/v1 UserInfo`.
fn user_info(user: &User) -> Value {
    let mut info = json!({});
    if !user.name.is_empty() {
        info["username"] = json!(user.name);
    }
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// The resource of service accounts, for messages.
pub(super) fn core(plural: &str) -> GroupResource {
    GroupResource::new("", plural.to_owned())
}
