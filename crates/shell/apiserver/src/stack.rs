//! The path of a request, top to bottom. Each step is one file of `layers`.

use std::sync::Arc;

use http::{Request, Response};

use crate::body::Body;
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};
use crate::layers::{authentication, authorization, flow, isolation, observation, time};
use crate::{output, route, warnings};

/// Answers one request; never fails and never panics.
pub async fn answer(engine: Arc<Engine>, request: Request<Body>) -> Response<Body> {
    let query = Query::parse(request.uri().query());
    let mut info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let agent = request.headers().get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    info.user_agent = agent.unwrap_or("").to_owned();
    info.wants_protobuf = info.is_resource && output::wants_protobuf(request.headers());
    let observed = observation::Observed::start(&engine, &info);
    let response = isolation::isolate(&engine, &info, async {
        time::limit(&info, &query, inner(&engine, &info, &query, request)).await
    });
    let response = response.await.unwrap_or_else(|status| output::failure(info.wants_protobuf, &status));
    observed.finish(response)
}

async fn inner(
    engine: &Arc<Engine>,
    info: &RequestInfo,
    query: &Query,
    request: Request<Body>,
) -> meta::ApiResult<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let user = authentication::authenticate(engine, &parts).await?;
    let user = authentication::impersonate(engine, &parts, user).await?;
    let class = flow::classify(engine, info, &user);
    let response = async {
        let seat = flow::admit(engine, info, class.clone()).await?;
        authorization::authorize(engine, info, query, &user).await?;
        parts.extensions.insert(user.clone());
        let response = route::route(engine, info, query, user, Request::from_parts(parts, body));
        let response = warnings::collect(response, info.wants_protobuf).await;
        drop(seat);
        response
    };
    let mut response = response.await.unwrap_or_else(|status| output::failure(info.wants_protobuf, &status));
    if let Some(class) = &class {
        flow::mark(&mut response, class);
    }
    Ok(response)
}
