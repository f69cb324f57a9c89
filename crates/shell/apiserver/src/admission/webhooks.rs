//! Admission webhooks: who is asked about a write, in which version of the object, and what follows from the answers.
//!
//! The configurations are compiled into one list when somebody writes after they changed; without any, a write pays one
//! comparison of numbers.

mod ask;
mod list;

use std::borrow::Cow;
use std::sync::Arc;

use access::admission::matching::{self, Target};
use access::admission::review::{self, Verdict};
use bytes::Bytes;
use futures::future::join_all;
use meta::{ApiResult, Status};
use schema::FieldValidation;
use serde_json::Value;

use super::expressions::{Facts, Met};
use super::{AdmissionRequest, Operation};
use crate::registry::Served;
use crate::{codec, convert, warnings};
use list::{InForce, List, Webhook};

pub use ask::with_question;
pub use list::{namespace_labels, object_target};

/// The compiled webhooks of a cluster.
#[derive(Default)]
pub struct Webhooks {
    mutating: List,
    validating: List,
}

/// What the first round of mutating webhooks leaves for the second.
#[derive(Default)]
pub struct Pass {
    second: bool,
    /// Webhooks that want to see later changes, and have been asked.
    watching: Vec<String>,
    /// Those of them that have something new to see.
    again: Vec<String>,
    /// The object after the last webhook.
    last: Option<Value>,
}

impl Pass {
    fn changed(&mut self) {
        let again = self.watching.iter().filter(|key| !self.again.contains(key)).cloned().collect::<Vec<_>>();
        self.again.extend(again);
    }
}

/// The version of a resource in which a webhook is asked.
struct Match<'a> {
    webhook: &'a Webhook,
    /// Another version than the request's; absent where they are the same.
    other: Option<Arc<Served>>,
}

impl Webhooks {
    /// Asks mutating webhooks in order; true if one of them changed the object and a second round may be due.
    pub async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&mut Value>,
        pass: &mut Pass,
    ) -> ApiResult<bool> {
        let Some(list) = self.mutating.get(request.engine, "mutatingwebhookconfigurations") else { return Ok(false) };
        if matching::is_exempt(&request.served.kind.group, &request.served.kind.plural) {
            return Ok(false);
        }
        // Boxed, so that writes which nobody asks about stay small.
        Box::pin(self.mutate_by(&list, request, object, pass)).await
    }

    async fn mutate_by(
        &self,
        list: &InForce,
        request: &AdmissionRequest<'_>,
        mut object: Option<&mut Value>,
        pass: &mut Pass,
    ) -> ApiResult<bool> {
        if pass.second && object.as_deref() != pass.last.as_ref() {
            pass.changed();
        }
        let mut changed = false;
        for webhook in list.iter() {
            if pass.second && !pass.again.contains(&webhook.key) {
                continue;
            }
            let Some(found) = matches(webhook, request, object.as_deref()).await? else { continue };
            let patched = self.change(&found, request, object.as_deref_mut()).await?;
            if patched {
                changed = true;
                pass.changed();
            }
            if webhook.reinvoke && !pass.watching.contains(&webhook.key) {
                pass.watching.push(webhook.key.clone());
            }
        }
        pass.last = object.as_deref().filter(|_| changed).cloned();
        pass.second = true;
        Ok(changed)
    }

    async fn change(
        &self,
        found: &Match<'_>,
        request: &AdmissionRequest<'_>,
        object: Option<&mut Value>,
    ) -> ApiResult<bool> {
        let webhook = found.webhook;
        let verdict = match self.ask(found, request, object.as_deref(), true).await {
            Ok(verdict) => verdict,
            Err(failure) => return failure.or_ignored(webhook).map(|()| false),
        };
        let Some(verdict) = verdict else { return Ok(false) };
        let Some(patch) = &verdict.patch else { return Ok(false) };
        if verdict.patch_type != "JSONPatch" {
            let why = format!("unsupported patch type {:?}", verdict.patch_type);
            return Failure::Unreachable(why).or_ignored(webhook).map(|()| false);
        }
        let Some(object) = object else {
            let why = format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                webhook.name
            );
            return Err(Status::internal(why));
        };
        let served = found.other.as_deref().unwrap_or(request.served);
        let mut value = view(request, found, object).await?.into_owned();
        objects::json_patch(&mut value, &Bytes::from(patch.clone())).map_err(Status::internal)?;
        let mut value = decode(request, served, value)?;
        if found.other.is_some() {
            value = convert::between(&request.engine.cache, served, request.served, &value).await?;
        }
        if is_whole(request) {
            request.served.default(&mut value);
        }
        let changed = *object != value;
        *object = value;
        Ok(changed)
    }

    /// Asks all validating webhooks at the same time.
    pub async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> ApiResult<()> {
        let Some(list) = self.validating.get(request.engine, "validatingwebhookconfigurations") else {
            return Ok(());
        };
        if matching::is_exempt(&request.served.kind.group, &request.served.kind.plural) {
            return Ok(());
        }
        Box::pin(self.validate_by(&list, request, object)).await
    }

    async fn validate_by(
        &self,
        list: &InForce,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
    ) -> ApiResult<()> {
        let mut found = Vec::new();
        for webhook in list.iter() {
            found.extend(matches(webhook, request, object).await?);
        }
        let asked = found.iter().map(|found| async move {
            match self.ask(found, request, object, false).await {
                Ok(_) => Ok(()),
                Err(failure) => failure.or_ignored(found.webhook),
            }
        });
        join_all(asked).await.into_iter().collect()
    }

    /// One question; no verdict where the object cannot be asked about.
    async fn ask(
        &self,
        found: &Match<'_>,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
        mutating: bool,
    ) -> Result<Option<Verdict>, Failure> {
        let webhook = found.webhook;
        if request.dry_run && webhook.has_side_effects {
            return Err(Failure::Refused(review::no_dry_run(&webhook.name)));
        }
        let (object, old) = views(request, found, object).await.map_err(Failure::Refused)?;
        let verdict = ask::ask(webhook, request, found.other.as_deref(), object.as_deref(), old.as_deref(), mutating);
        let verdict = verdict.await.map_err(Failure::Unreachable)?;
        for warning in &verdict.warnings {
            warnings::add(warning);
        }
        if !verdict.allowed {
            return Err(Failure::Refused(review::denied(&webhook.name, &verdict.result)));
        }
        Ok(Some(verdict))
    }
}

/// Why a webhook did not say yes.
enum Failure {
    /// It said no.
    Refused(Box<Status>),
    /// It said nothing that makes sense.
    Unreachable(String),
}

impl Failure {
    fn or_ignored(self, webhook: &Webhook) -> ApiResult<()> {
        match self {
            Self::Refused(status) => Err(status),
            Self::Unreachable(why) if webhook.ignores_failures => {
                tracing::warn!(webhook = webhook.name, why, "failed calling webhook, failing open");
                Ok(())
            }
            Self::Unreachable(why) => Err(review::failed(&webhook.name, &why)),
        }
    }
}

/// Whether the object is the resource itself and not what a subresource speaks.
fn is_whole(request: &AdmissionRequest<'_>) -> bool {
    request.operation != Operation::Connect
        && request.served.subresource(request.subresource).is_none_or(|sub| sub.speaks.is_none())
}

/// The object in the version that the webhook speaks.
async fn view<'a>(request: &AdmissionRequest<'_>, found: &Match<'_>, object: &'a Value) -> ApiResult<Cow<'a, Value>> {
    in_version(request, found.other.as_deref(), object).await
}

/// The new and the old object in the version that the webhook speaks.
async fn views<'a>(
    request: &AdmissionRequest<'a>,
    found: &Match<'_>,
    object: Option<&'a Value>,
) -> ApiResult<(Option<Cow<'a, Value>>, Option<Cow<'a, Value>>)> {
    let object = match object {
        Some(object) => Some(view(request, found, object).await?),
        None => None,
    };
    let old = match request.old {
        Some(old) => Some(view(request, found, old).await?),
        None => None,
    };
    Ok((object, old))
}

/// An object of a request in another version of its resource.
pub async fn in_version<'a>(
    request: &AdmissionRequest<'_>,
    other: Option<&Served>,
    object: &'a Value,
) -> ApiResult<Cow<'a, Value>> {
    match other {
        Some(other) if is_whole(request) => {
            let value = convert::between(&request.engine.cache, request.served, other, object).await?;
            Ok(Cow::Owned(value))
        }
        _ => Ok(Cow::Borrowed(object)),
    }
}

/// What a patch made, decoded like any body.
fn decode(request: &AdmissionRequest<'_>, served: &Served, value: Value) -> ApiResult<Value> {
    if request.operation == Operation::Connect {
        return Ok(value);
    }
    let decoded = match is_whole(request) {
        true => codec::check(served, value, FieldValidation::Ignore),
        false => codec::check(request.kind(), value, FieldValidation::Ignore),
    };
    decoded.map(|decoded| decoded.value).map_err(|status| Status::internal(status.message))
}

/// Whether a webhook is about this write, and in which version.
async fn matches<'a>(
    webhook: &'a Webhook,
    request: &AdmissionRequest<'_>,
    object: Option<&Value>,
) -> ApiResult<Option<Match<'a>>> {
    let target = object_target(request);
    let Some(other) = version(&webhook.rules, webhook.equivalent, request, &target) else { return Ok(None) };
    let fits = webhook.namespaces.is_everything()
        || namespace_labels(request, object)?.is_none_or(|labels| webhook.namespaces.matches(&labels));
    if !fits || !webhook.objects.matches_object(object, request.old) {
        return Ok(None);
    }
    let found = Match { webhook, other };
    if found.webhook.conditions.is_empty() {
        return Ok(Some(found));
    }
    let (object, old) = views(request, &found, object).await?;
    let met = conditions_met(&found, request, object.as_deref(), old.as_deref())?;
    Ok(met.then_some(found))
}

/// Whether the conditions of a webhook hold; where they cannot be told, its failure policy decides.
fn conditions_met(
    found: &Match<'_>,
    request: &AdmissionRequest<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<bool> {
    let webhook = found.webhook;
    let facts = Facts::new(request, found.other.as_deref(), object, old);
    match webhook.conditions.met(&facts.variables()) {
        Met::Yes => Ok(true),
        Met::No => Ok(false),
        Met::Unknown(_) if webhook.ignores_failures => Ok(false),
        Met::Unknown(why) => Err(Status::forbidden(&request.served.resource(), request.name, &why)),
    }
}

/// The version of the resource that rules name: the request's own where they do, or one that shows the same objects.
/// The outer `None`: the rules are about something else.
pub fn version(
    rules: &[matching::Rule],
    equivalent: bool,
    request: &AdmissionRequest<'_>,
    target: &Target<'_>,
) -> Option<Option<Arc<Served>>> {
    if rules.iter().any(|rule| rule.matches(target)) {
        return Some(None);
    }
    if !equivalent || rules.is_empty() {
        return None;
    }
    let registry = request.engine.registry();
    let mut others = registry.all().filter(|row| row.stored_as == request.served.stored_as);
    let found = others.find(|row| {
        let kind = &row.kind;
        let (group, version, resource) = (&*kind.group, &*kind.version, &*kind.plural);
        rules.iter().any(|rule| rule.matches(&Target { group, version, resource, ..*target }))
    });
    found.cloned().map(Some)
}

/// Names the namespace of a request as webhooks see it: a namespace is in itself.
pub fn namespace_of<'a>(request: &AdmissionRequest<'a>) -> &'a str {
    let kind = &request.served.kind;
    if kind.group.is_empty() && kind.plural == "namespaces" { request.name } else { request.namespace }
}
