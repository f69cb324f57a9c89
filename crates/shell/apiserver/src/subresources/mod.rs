//! Subresources that do more than write a part of their object, and resources that code answers.

use access::User;
use async_trait::async_trait;
use http::{Request, Response};
use meta::ApiResult;
use serde_json::Value;

use crate::body::Body;
use crate::call::Call;
use crate::engine::Engine;
use crate::info::RequestInfo;
use crate::route::method_not_allowed;
use crate::verbs::{list, patch, update};

/// A create that is answered by code: token requests, access reviews. Nothing is stored unless the code stores it.
#[async_trait]
pub trait VirtualResource: Send + Sync + 'static {
    /// Group, resource and subresource (empty for a whole resource) that this answers `create` for.
    fn place(&self) -> (&'static str, &'static str, &'static str);

    /// The answer (201) to a decoded and defaulted body.
    async fn create(&self, engine: &Engine, user: &User, info: &RequestInfo, body: Value) -> ApiResult<Value>;
}

/// Answers a subresource that is not a stream.
pub async fn answer(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    match (call.info.subresource.as_str(), call.info.verb.as_str()) {
        ("status", "get") => list::get(call).await,
        ("status", "update") => update::update(call, request).await,
        ("status", "patch") => patch::patch(call, request).await,
        _ => Err(method_not_allowed()),
    }
}
