//! One call of a webhook.

use access::admission::review::{self, Question, Verdict};
use meta::GroupVersion;
use serde_json::Value;

use super::super::AdmissionRequest;
use super::list::Webhook;
use super::namespace_of;
use crate::registry::Served;

/// Asks a webhook; `other` is the version that it speaks where that is not the request's.
///
/// # Errors
/// Why there is no answer that makes sense.
pub async fn ask(
    webhook: &Webhook,
    request: &AdmissionRequest<'_>,
    other: Option<&Served>,
    object: Option<&Value>,
    old: Option<&Value>,
    mutating: bool,
) -> Result<Verdict, String> {
    if webhook.review_version.is_empty() {
        let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return Err(format!("could not create admission objects: {why}"));
    }
    let backend = webhook.backend.as_ref().map_err(|why| format!("could not get REST client: {why}"))?;
    let body = question(webhook, request, other, object, old);
    let (uid, body) = body.map_err(|error| format!("could not create admission objects: {error}"))?;
    let answer = backend.post(&request.engine.cache, body, webhook.timeout).await;
    let answer = answer.map_err(|why| format!("failed to call webhook: {why}"))?;
    let verdict = review::verdict(&answer, webhook.review_version, &uid, mutating);
    verdict.map_err(|why| format!("received invalid webhook response: {why}"))
}

fn question(
    webhook: &Webhook,
    request: &AdmissionRequest<'_>,
    other: Option<&Served>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> serde_json::Result<(String, Vec<u8>)> {
    let uid = uuid::Uuid::new_v4().to_string();
    let review = with_question(request, other, object, old, &uid, |question| question.review(webhook.review_version));
    Ok((uid, serde_json::to_vec(&review)?))
}

/// Describes a write as webhooks and policies read it.
pub fn with_question<T>(
    request: &AdmissionRequest<'_>,
    other: Option<&Served>,
    object: Option<&Value>,
    old: Option<&Value>,
    uid: &str,
    read: impl FnOnce(&Question<'_>) -> T,
) -> T {
    let (request_kind, row) = (request.kind(), &request.served.kind);
    let speaks_own = request.served.subresource(request.subresource).is_some_and(|sub| sub.speaks.is_some());
    let kind = other.filter(|_| !speaks_own).map_or_else(|| request_kind.clone(), |other| other.kind.gvk());
    let shown = other.map_or(row, |other| &other.kind);
    let of: GroupVersion = shown.group_version();
    read(&Question {
        uid,
        kind: &kind,
        resource: (&of, &shown.plural),
        request_kind: &request_kind,
        request_resource: (&row.group_version(), &row.plural),
        subresource: request.subresource,
        name: request.name,
        namespace: namespace_of(request),
        operation: request.operation.as_str(),
        user: request.user,
        object,
        old,
        dry_run: request.dry_run,
        options: &request.options(),
    })
}
