//! The 403 that a denied request gets, worded as Kubernetes words it.

use meta::{GroupResource, Status};

use crate::attributes::Attributes;

/// The Status of a denied request; `reason` is the authorizers' (may be empty).
pub fn forbidden(asked: &Attributes, reason: &str) -> Box<Status> {
    let message = sanitize(&denial(asked));
    let message = if reason.is_empty() { message } else { format!("{message}: {reason}") };
    let resource = GroupResource::new(asked.group.clone(), asked.resource.clone());
    Status::forbidden(&resource, &asked.name, &message)
}

/// `User "x" cannot list resource "pods" in API group "" in the namespace "default"`.
pub fn denial(asked: &Attributes) -> String {
    let (user, verb) = (&asked.user.name, &asked.verb);
    if !asked.is_resource_request() {
        return format!("User {user:?} cannot {verb} path {:?}", asked.path);
    }
    let resource = match asked.subresource.as_str() {
        "" => asked.resource.clone(),
        subresource => format!("{}/{subresource}", asked.resource),
    };
    let scope = match asked.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?} {scope}", asked.group)
}

/// The message may reach a browser.
fn sanitize(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
