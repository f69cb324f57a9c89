//! Whether the user may: the configured authorizer, asked once for every request.

use access::{Attributes, Decision, User};
use meta::{ApiResult, GroupResource, Reason, Status, StatusDetails};

use crate::engine::Engine;
use crate::info::{Query, RequestInfo};

pub async fn authorize(engine: &Engine, info: &RequestInfo, query: &Query, user: &User) -> ApiResult<()> {
    let mut attributes = attributes(info, user);
    if info.is_resource {
        attributes.field_selector = equalities(query.get("fieldSelector"));
    }
    match engine.config.authorizer.authorize(&attributes).await {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(refusal(&attributes, &reason)),
    }
}

/// The equalities of a field selector; one that does not parse is refused later, by the verb.
fn equalities(selector: &str) -> Vec<(String, String)> {
    let parts = selector.split(',').filter(|part| !part.contains("!="));
    let pairs = parts.filter_map(|part| part.split_once('='));
    pairs.map(|(field, value)| (field.to_owned(), value.trim_start_matches('=').to_owned())).collect()
}

pub fn attributes(info: &RequestInfo, user: &User) -> Attributes {
    let mut attributes = Attributes { user: user.clone(), verb: info.verb.clone(), ..Attributes::default() };
    if info.is_resource {
        attributes.group.clone_from(&info.group);
        attributes.version.clone_from(&info.version);
        attributes.resource.clone_from(&info.resource);
        attributes.subresource.clone_from(&info.subresource);
        attributes.namespace.clone_from(&info.namespace);
        attributes.name.clone_from(&info.name);
    } else {
        attributes.path.clone_from(&info.path);
    }
    attributes
}

/// 403 in upstream's words.
pub fn refusal(attributes: &Attributes, reason: &str) -> Box<Status> {
    let Attributes { user, verb, group, resource, subresource, namespace, name, path, .. } = attributes;
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if resource.is_empty() {
        let message = format!("forbidden: User {:?} cannot {verb} path {path:?}{because}", user.name);
        let mut status = Status::failure(Reason::Forbidden, message);
        status.details = Some(StatusDetails::default());
        return status;
    }
    let what = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
    let scope = match namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!("User {:?} cannot {verb} resource {what:?} in API group {group:?} {scope}{because}", user.name);
    Status::forbidden(&GroupResource::new(group.clone(), resource.clone()), name, &why)
}
