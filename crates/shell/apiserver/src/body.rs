//! Bodies of requests and answers: one boxed type for bytes and for streams.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use meta::{ApiResult, Reason, Status};

use crate::limits::{DISCARDED_BYTES_MAX, REQUEST_BODY_BYTES_MAX};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every request and answer inside the server.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body that sends each item as soon as it comes.
pub fn stream(items: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(items.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync()
}

/// Reads a whole request body, at most `REQUEST_BODY_BYTES_MAX`.
pub async fn read(mut body: Body) -> ApiResult<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("unable to read the request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > REQUEST_BODY_BYTES_MAX {
            discard(body).await;
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Reads on for a while: a client that is still sending when the connection ends reports that, and never sees the answer.
async fn discard(mut body: Body) {
    let mut left = DISCARDED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(bytes);
        if left == 0 {
            return;
        }
    }
}

pub fn too_large() -> Box<Status> {
    let message = format!("Request entity too large: limit is {REQUEST_BODY_BYTES_MAX}");
    Status::failure(Reason::RequestEntityTooLarge, message)
}

/// An answer with a body of one type.
pub fn response(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

pub fn json(code: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    response(code, "application/json", bytes)
}

pub fn text(code: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut response = response(code, "text/plain; charset=utf-8", message.into());
    response.headers_mut().insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    response
}

/// A Status as an HTTP answer, with `Retry-After` where the Status names seconds.
pub fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::OK);
    let bytes = serde_json::to_vec(status).unwrap_or_default();
    let mut response = json(code, bytes);
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from(seconds));
    }
    response
}
