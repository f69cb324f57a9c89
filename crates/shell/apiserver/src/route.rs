//! From coordinates to a verb: the only place that looks a kind up for a request.

use std::sync::Arc;

use access::User;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use meta::{ApiResult, Reason, Status};

use crate::admission::{AdmissionRequest, Operation, chain};
use crate::body::{self, Body};
use crate::call::{Call, WriteOptions};
use crate::connect::{self, CONNECTED};
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};
use crate::kubelets::target_name;
use crate::verbs::{create, delete, list, patch, update, watch};
use crate::{aggregation, computed, output, pages, protobuf};

pub async fn route(
    engine: &Arc<Engine>,
    info: &RequestInfo,
    query: &Query,
    user: User,
    request: Request<Body>,
) -> ApiResult<Response<Body>> {
    let served_path = info.path.strip_prefix("/openapi/v3").unwrap_or(&info.path);
    if let Some(extension) = engine.aggregation.find(served_path) {
        return aggregation::proxy(engine, &extension, &user, request).await;
    }
    if !info.is_resource {
        return pages::answer(engine, info, query, &request.into_parts().0.headers).await;
    }
    let registry = engine.registry();
    let Some(served) = registry.find(&info.group, &info.version, &info.resource) else {
        return Ok(not_found());
    };
    // Whoever stands behind a proxy answers for itself.
    if info.verb == "options" && info.subresource != "proxy" {
        return Ok(body::text(StatusCode::OK, ""));
    }
    let is_head = request.method() == Method::HEAD;
    // What is never stored has neither a table nor metadata of its own.
    let forms = served.kind.verbs != kinds::Verbs::CreateOnly;
    let protobuf = served.custom.is_none() && protobuf::has_form(&served.kind.gvk());
    let output = output::negotiate(request.headers(), query.flag("pretty"), output::Offer { forms, protobuf })?;
    let call = Call { engine, served, info, query, user, output };
    if !call.info.subresource.is_empty() {
        return subresource(&call, request).await;
    }
    let verb = if info.verb == "watch" && !info.name.is_empty() { "watch" } else { info.verb.as_str() };
    if !served.kind.verbs.allows(verb) {
        return Err(method_not_allowed());
    }
    if let Some(computed) = engine.computed(info) {
        return computed::answer(&call, computed.as_ref()).await;
    }
    let answer: BoxFuture<'_, ApiResult<Response<Body>>> = match verb {
        "get" => list::get(&call).boxed(),
        "list" => list::list(&call).boxed(),
        "watch" => watch::watch(&call).boxed(),
        "create" => create::create(&call, request).boxed(),
        "update" | "patch" if call.info.name.is_empty() => return Err(method_not_allowed()),
        "update" => update::update(&call, request).boxed(),
        "patch" => patch::patch(&call, request).boxed(),
        "delete" => delete::delete(&call, request).boxed(),
        "deletecollection" => delete::delete_collection(&call, request).boxed(),
        _ => return Err(method_not_allowed()),
    };
    let response = answer.await;
    if is_head { response.map(|response| response.map(|_| body::empty())) } else { response }
}

async fn subresource(call: &Call<'_>, request: Request<Body>) -> ApiResult<Response<Body>> {
    let name = call.info.subresource.as_str();
    if !call.served.serves_subresource(name) {
        return Ok(not_found());
    }
    if CONNECTED.contains(&name) {
        let Some(connector) = &call.engine.config.connector else { return Ok(not_found()) };
        // The name in a proxy path may carry a scheme and a port.
        let object_name = if name == "proxy" { target_name(&call.info.name) } else { &call.info.name };
        let object = call.engine.read_existing(call.served, call.namespace(), object_name).await?;
        if name != "log" {
            admit_connection(call, object_name).await?;
        }
        return connector.connect(call.engine, call.info, call.query, &object.value, request).await;
    }
    crate::subresources::answer(call, request).boxed().await
}

/// Webhooks and policies see a connection as a CONNECT with the options that its query holds.
async fn admit_connection(call: &Call<'_>, name: &str) -> ApiResult<()> {
    let options = WriteOptions::default();
    let mut object = connect::options(call.info, call.query);
    let request = AdmissionRequest { operation: Operation::Connect, ..create::admission(call, name, &options, None) };
    chain::mutate(&request, &mut object).await?;
    chain::validate(&request, Some(&object)).await
}

/// What is served nowhere is answered in plain text, as upstream does.
pub fn not_found() -> Response<Body> {
    body::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

pub fn method_not_allowed() -> Box<Status> {
    Status::failure(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}
