//! Whether the user may: the configured authorizer, asked once for every request.

use access::{Attributes, Decision, User};
use meta::ApiResult;

use crate::engine::Engine;
use crate::info::{Query, RequestInfo};

pub async fn authorize(engine: &Engine, info: &RequestInfo, query: &Query, user: &User) -> ApiResult<()> {
    let mut attributes = attributes(info, user);
    if info.is_resource {
        attributes.field_selector = equalities(query.get("fieldSelector"));
    }
    match engine.config.authorizer.authorize(&attributes).await {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(access::forbidden(&attributes, &reason)),
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
