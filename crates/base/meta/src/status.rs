//! The `Status` object: every answer of the API that is not the object asked for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{FieldError, GroupResource};

/// Machine-readable reason of a failure, with its HTTP code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    ServerTimeout,
    Timeout,
}

impl Reason {
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError | Self::ServerTimeout => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// `metav1.Status`, serialised as the wire wants it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub kind: String,
    pub api_version: String,
    #[serde(default)]
    pub metadata: ListMeta,
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    #[serde(default, skip_serializing_if = "is_zero_code")]
    pub code: u16,
}

/// List metadata; a Status carries a continue token in it when a list's token expired.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(default, rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "is_zero_seconds")]
    pub retry_after_seconds: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn is_zero_code(code: &u16) -> bool {
    *code == 0
}

fn is_zero_seconds(seconds: &u32) -> bool {
    *seconds == 0
}

impl Status {
    /// A failure with a free message.
    pub fn failure(reason: Reason, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: ListMeta::default(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: format!("{reason:?}"),
            details: None,
            code: reason.code(),
        })
    }

    fn about(reason: Reason, resource: &GroupResource, name: &str, message: String) -> Box<Self> {
        let mut status = Self::failure(reason, message);
        status.details = Some(StatusDetails {
            name: name.to_owned(),
            group: resource.group.to_string(),
            kind: resource.resource.to_string(),
            ..StatusDetails::default()
        });
        status
    }

    /// What a finished deletion answers: `Success` with the object's coordinates and uid.
    pub fn success(resource: &GroupResource, name: &str, uid: &str) -> Box<Self> {
        let mut status = Self::about(Reason::BadRequest, resource, name, String::new());
        status.status = "Success".to_owned();
        status.reason.clear();
        status.code = 0;
        if let Some(details) = &mut status.details {
            details.uid = uid.to_owned();
        }
        status
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Box<Self> {
        Self::about(Reason::NotFound, resource, name, format!("{resource} {name:?} not found"))
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Box<Self> {
        Self::about(Reason::AlreadyExists, resource, name, format!("{resource} {name:?} already exists"))
    }

    /// Optimistic concurrency failed or a precondition did not hold; `why` is the sentence after the colon.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Box<Self> {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::about(Reason::Conflict, resource, name, message)
    }

    /// The conflict that every client knows how to retry: the object changed between its read and its write.
    pub fn modified(resource: &GroupResource, name: &str) -> Box<Self> {
        const WHY: &str = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, WHY)
    }

    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Box<Self> {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Self::about(Reason::Forbidden, resource, name, message)
    }

    /// 422: the object is well-formed but breaks rules; `kind` is the kind's name, not the resource's.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Box<Self> {
        let all = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let what = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut status = Self::failure(Reason::Invalid, format!("{what} {name:?} is invalid: {all}"));
        status.details = Some(StatusDetails {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes: errors.iter().map(FieldError::cause).collect(),
            ..StatusDetails::default()
        });
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Box<Self> {
        Self::failure(Reason::BadRequest, message)
    }

    pub fn unauthorized() -> Box<Self> {
        Self::failure(Reason::Unauthorized, "Unauthorized")
    }

    /// 410: the resourceVersion or continue token asked for is no longer kept.
    pub fn expired(message: impl Into<String>) -> Box<Self> {
        Self::failure(Reason::Expired, message)
    }

    pub fn internal(cause: impl fmt::Display) -> Box<Self> {
        let mut status = Self::failure(Reason::InternalError, format!("Internal error occurred: {cause}"));
        let cause = Cause { message: cause.to_string(), ..Cause::default() };
        status.details = Some(StatusDetails { causes: vec![cause], ..StatusDetails::default() });
        status
    }

    /// 500 whose message is the cause alone, as upstream answers errors that it did not foresee.
    pub fn internal_as_is(message: impl Into<String>) -> Box<Self> {
        let mut status = Self::failure(Reason::InternalError, message);
        status.reason.clear();
        status
    }

    /// 429 with the seconds after which a client should come back.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Box<Self> {
        let mut status = Self::failure(Reason::TooManyRequests, message);
        status.details = Some(StatusDetails { retry_after_seconds, ..StatusDetails::default() });
        status
    }

    pub fn is(&self, reason: Reason) -> bool {
        self.code == reason.code() && self.reason == format!("{reason:?}")
    }

    /// Whether the same request may succeed later without being changed.
    pub fn is_retryable(&self) -> bool {
        matches!(self.code, 429 | 500 | 503 | 504) || self.is(Reason::Conflict)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldPath;

    #[test]
    fn messages_are_worded_as_clients_expect() {
        let pods = GroupResource::new("", "pods");
        let deployments = GroupResource::new("apps", "deployments");
        assert_eq!(Status::not_found(&deployments, "web").message, "deployments.apps \"web\" not found");
        assert_eq!(Status::already_exists(&pods, "a").message, "pods \"a\" already exists");
        let image = FieldPath::new("spec").child("containers").index(0).child("image");
        let invalid = Status::invalid("", "Pod", "a", &[FieldError::required(&image, "")]);
        assert_eq!(invalid.message, "Pod \"a\" is invalid: spec.containers[0].image: Required value");
        assert_eq!(invalid.code, 422);
        assert_eq!(Status::success(&pods, "a", "u").code, 0);
    }
}
