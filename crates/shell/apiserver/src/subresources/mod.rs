//! Subresources that do more than write a part of their object, and resources that code answers.

mod binding;
mod eviction;
mod parts;
pub mod scale;

use access::User;
use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use meta::{ApiResult, Status};
use serde_json::{Value, json};

use crate::admission::chain;
use crate::body::{self, Body};
use crate::call::{Call, WriteOptions};
use crate::codec;
use crate::engine::Engine;
use crate::info::RequestInfo;
use crate::route::method_not_allowed;
use crate::verbs::{create, list, patch, update};

pub use parts::taken;

/// A create that is answered by code: token requests, access reviews. Nothing is stored unless the code stores it.
#[async_trait]
pub trait VirtualResource: Send + Sync + 'static {
    /// Group, resource and subresource (empty for a whole resource) that this answers `create` for.
    fn place(&self) -> (&'static str, &'static str, &'static str);

    /// The answer (201) to a decoded body.
    async fn create(&self, engine: &Engine, user: &User, info: &RequestInfo, body: Value) -> ApiResult<Value>;
}

/// Answers a subresource that is not a stream.
pub async fn answer(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let (subresource, verb) = (call.info.subresource.as_str(), call.info.verb.as_str());
    if let Some(handler) = call.engine.virtual_resource(call.info).filter(|_| verb == "create") {
        let (mut body, options) = read_body(call, request).await?;
        admit(call, &mut body, &options).await?;
        let answer = handler.create(call.engine, &call.user, call.info, body).await?;
        return call.output.value(StatusCode::CREATED, &answer);
    }
    match (subresource, verb) {
        ("scale", "get") => scale::get(call).await,
        ("scale", "update") => scale::update(call, request).await,
        ("scale", "patch") => scale::patch(call, request).await,
        ("binding", "create") => {
            let (mut body, options) = read_body(call, request).await?;
            admit(call, &mut body, &options).await?;
            binding::bind(call, &call.info.name, &body, &options).await
        }
        ("eviction", "create") => {
            let (mut body, options) = read_body(call, request).await?;
            admit(call, &mut body, &options).await?;
            eviction::evict(call, &body, &options).await
        }
        (name, "get") if name == "status" || taken(name).is_some() => list::get(call).await,
        (name, "update") if name == "status" || taken(name).is_some() => update::update(call, request).await,
        (name, "patch") if name == "status" || taken(name).is_some() => patch::patch(call, request).await,
        _ => Err(method_not_allowed()),
    }
}

/// Shows what is not stored as it came to webhooks and policies.
pub async fn admit(call: &Call<'_>, body: &mut Value, options: &WriteOptions) -> ApiResult<()> {
    let request = create::admission(call, &call.info.name, options, None);
    chain::outside(&request, body).await
}

/// Answers a create of a kind that is never stored.
pub async fn create_only(call: &Call<'_>, body: Value, options: &WriteOptions) -> ApiResult<Response<Body>> {
    if call.served.kind.group.is_empty() && call.served.kind.plural == "bindings" {
        let pods = call.engine.registry();
        let pods = pods.find("", "v1", "pods").ok_or_else(method_not_allowed)?;
        let name = crate::verbs::metadata::text(&body, "name").to_owned();
        let info =
            RequestInfo { name, resource: "pods".to_owned(), subresource: "binding".to_owned(), ..call.info.clone() };
        let call = Call { served: pods, info: &info, user: call.user.clone(), output: call.output.clone(), ..*call };
        let mut body = body;
        admit(&call, &mut body, options).await?;
        return binding::bind(&call, &info.name, &body, options).await;
    }
    Err(method_not_allowed())
}

/// Decodes the body of a create on a subresource, in the kind that it speaks.
async fn read_body(call: &Call<'_>, request: Request<Body>) -> ApiResult<(Value, WriteOptions)> {
    let options = call.write_options()?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(body).await?;
    let speaks = call.served.subresource(&call.info.subresource).and_then(|sub| sub.speaks.clone());
    let gvk = speaks.unwrap_or_else(|| call.served.kind.gvk());
    if bytes.is_empty() {
        return Ok((json!({"apiVersion": gvk.api_version(), "kind": gvk.kind, "metadata": {}}), options));
    }
    if codec::media_type(&parts.headers) == codec::PROTOBUF {
        return Ok((codec::decode(gvk, &parts.headers, &bytes, options.field_validation)?.value, options));
    }
    let mut value = codec::parse(&parts.headers, &bytes)?;
    if gvk.kind == "Eviction" && value.get("apiVersion").and_then(Value::as_str) == Some("policy/v1beta1") {
        value["apiVersion"] = "policy/v1".into();
    }
    Ok((codec::check(gvk, value, options.field_validation)?.value, options))
}

/// The plain success that binding and eviction answer.
fn done(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    call.output.value(StatusCode::CREATED, &status)
}

/// A name that the body gives must be the one in the URL.
fn check_name(body: &Value, name: &str) -> ApiResult<()> {
    let found = crate::verbs::metadata::text(body, "name");
    if found.is_empty() || found == name {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "name in URL does not match name in {} object",
        body["kind"].as_str().unwrap_or("")
    )))
}
