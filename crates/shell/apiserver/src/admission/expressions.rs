//! Conditions of webhooks and policies, and the variables that their expressions read.

use access::{Attributes, Decision, User};
use cel::{Access, AccessAnswer, AccessQuestion, Activation, Program, Type, Value as Cel};
use futures::FutureExt;
use kinds::expressions::{compile, env, namespace_type, request_type};
use serde_json::Value;

use super::AdmissionRequest;
use super::webhooks::{namespace_of, with_question};
use crate::engine::Engine;
use crate::registry::Served;

/// A request as expressions read it: everything they refer to, in one place that outlives their evaluation.
pub struct Facts<'a> {
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    request: Value,
    namespace: Option<Value>,
    rights: Rights<'a>,
    check: AccessQuestion,
}

impl<'a> Facts<'a> {
    /// `other` is the version of the resource that the expressions' owner speaks.
    pub fn new(
        request: &'a AdmissionRequest<'a>,
        other: Option<&Served>,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> Self {
        let kind = &request.served.kind;
        let namespace = namespace_of(request);
        let found = (!namespace.is_empty()).then(|| request.engine.cached("", "namespaces", "", namespace)).flatten();
        Self {
            object,
            old,
            request: with_question(request, other, None, None, "", |question| question.request()),
            namespace: found.and_then(|object| object.value().ok()),
            rights: Rights { engine: request.engine, user: request.user },
            check: AccessQuestion {
                group: kind.group.to_string(),
                resource: kind.plural.to_string(),
                subresource: request.subresource.to_owned(),
                namespace: namespace.to_owned(),
                name: request.name.to_owned(),
                ..AccessQuestion::default()
            },
        }
    }

    /// The variables of conditions and policies, without parameters.
    pub fn variables(&'a self) -> Activation<'a> {
        let of = |value: Option<&'a Value>| value.map_or(Cel::Null, Cel::json);
        let mut vars = Activation::default();
        vars.set("object", of(self.object));
        vars.set("oldObject", of(self.old));
        vars.set("request", Cel::typed(&self.request, request_type()));
        let namespace = self.namespace.as_ref().map_or(Cel::Null, |value| Cel::typed(value, namespace_type()));
        vars.set("namespaceObject", namespace);
        vars.set("authorizer", Cel::authorizer(&self.rights));
        vars.set(cel::REQUEST_CHECK, Cel::authorizer_for(&self.rights, self.check.clone()));
        vars
    }
}

/// The authorizer as expressions ask it: it decides from what the cache knows, without waiting.
struct Rights<'a> {
    engine: &'a Engine,
    user: &'a User,
}

impl Access for Rights<'_> {
    fn check(&self, question: &AccessQuestion) -> AccessAnswer {
        let user = match &question.service_account {
            None => self.user.clone(),
            Some((namespace, name)) => User {
                name: format!("system:serviceaccount:{namespace}:{name}"),
                groups: vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ],
                ..User::default()
            },
        };
        let attributes = Attributes {
            user,
            verb: question.verb.clone(),
            group: question.group.clone(),
            version: if question.path.is_some() { String::new() } else { "*".to_owned() },
            resource: question.resource.clone(),
            subresource: question.subresource.clone(),
            namespace: question.namespace.clone(),
            name: question.name.clone(),
            path: question.path.clone().unwrap_or_default(),
            ..Attributes::default()
        };
        match self.engine.config.authorizer.authorize(&attributes).now_or_never() {
            Some(Decision::Allow { reason }) => AccessAnswer { allowed: true, reason, error: String::new() },
            Some(Decision::Deny { reason } | Decision::NoOpinion { reason }) => {
                AccessAnswer { allowed: false, reason, error: String::new() }
            }
            None => AccessAnswer { error: "the authorizer is not ready".to_owned(), ..AccessAnswer::default() },
        }
    }
}

/// The `matchConditions` of a webhook or a policy.
#[derive(Debug, Default)]
pub struct Conditions(Vec<(String, Result<Program, String>)>);

/// Whether a webhook or policy is about a request, as far as its conditions say.
#[derive(Debug, PartialEq, Eq)]
pub enum Met {
    Yes,
    No,
    /// Some condition has no value, and none is false.
    Unknown(String),
}

impl Conditions {
    pub fn new(conditions: &Value, params: bool) -> Self {
        let env = env(params);
        let all = conditions.as_array().into_iter().flatten().map(|condition| {
            let expression = condition["expression"].as_str().unwrap_or_default().trim();
            (expression.to_owned(), compile(expression, &env, &[Type::Bool]))
        });
        Self(all.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn met<'a>(&'a self, vars: &Activation<'a>) -> Met {
        let mut errors = Vec::new();
        for (expression, program) in &self.0 {
            let value = match program {
                Ok(program) => program.eval(vars).map_err(|error| error.message),
                Err(why) => Err(why.clone()),
            };
            match value {
                Ok(value) if value.as_bool() == Some(false) => return Met::No,
                Ok(_) => {}
                Err(why) => errors.push(format!("expression '{expression}' resulted in error: {why}")),
            }
        }
        match errors.as_slice() {
            [] => Met::Yes,
            [one] => Met::Unknown(one.clone()),
            many => Met::Unknown(format!("[{}]", many.join(", "))),
        }
    }
}
