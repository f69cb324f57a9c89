//! What a failed API call means to its caller: which Status it was, and whether trying again can help.

use kube::core::Status;

/// Questions that callers ask of a `kube::Error`.
pub trait ApiErrorExt {
    /// The Status the API server answered, when it answered one.
    fn status(&self) -> Option<&Status>;

    fn has_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }
    fn is_not_found(&self) -> bool {
        self.has_reason("NotFound")
    }
    fn is_conflict(&self) -> bool {
        self.has_reason("Conflict")
    }
    fn is_already_exists(&self) -> bool {
        self.has_reason("AlreadyExists")
    }
    fn is_forbidden(&self) -> bool {
        self.has_reason("Forbidden")
    }
    fn is_invalid(&self) -> bool {
        self.has_reason("Invalid")
    }
    fn is_method_not_supported(&self) -> bool {
        self.has_reason("MethodNotAllowed")
    }
    /// The resource version asked for is no longer kept: list again.
    fn is_expired(&self) -> bool {
        self.status().is_some_and(|status| status.code == 410 || status.reason == "Expired" || status.reason == "Gone")
    }
    /// The object was refused because its namespace is being deleted; creating again cannot help.
    fn is_namespace_terminating(&self) -> bool {
        self.is_forbidden()
            && self
                .status()
                .and_then(|status| status.details.as_ref())
                .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
    }
    /// Trying the same call later may succeed: overload, timeouts, conflicts and lost connections.
    fn is_retryable(&self) -> bool {
        match self.status() {
            None => true,
            Some(status) => matches!(status.code, 409 | 410 | 429) || status.code >= 500,
        }
    }
    /// The message for events and conditions, as the server worded it.
    fn api_message(&self) -> String;
}

impl ApiErrorExt for kube::Error {
    fn status(&self) -> Option<&Status> {
        match self {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    fn api_message(&self) -> String {
        match self {
            kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
            other => other.to_string(),
        }
    }
}

/// An error of this crate: what was tried, and the client's cause.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error("reading kubeconfig {path}: check that the file exists and is valid")]
    Kubeconfig { path: String, source: kube::config::KubeconfigError },
    #[error("building the API client for {path}")]
    Client { path: String, source: kube::Error },
}
