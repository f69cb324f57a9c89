//! Answers of the proxy itself, each a status and one line that says why.

use http::{HeaderValue, Response, StatusCode, header};

use crate::body::Body;

pub fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(Body::text(format!("{} {text}\n", status.as_u16())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

pub fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "no route for this host and path")
}

pub fn too_large() -> Response<Body> {
    let mut answer = plain(StatusCode::PAYLOAD_TOO_LARGE, "the request body is larger than allowed");
    // The rest of the body is not read, so the connection cannot be used again.
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

pub fn redirect(status: StatusCode, location: &str) -> Response<Body> {
    let Ok(location) = HeaderValue::from_str(location) else {
        return plain(StatusCode::BAD_REQUEST, "the path cannot be written into a redirect");
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::LOCATION, location);
    answer
}
