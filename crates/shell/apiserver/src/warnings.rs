//! Warnings that travel beside an answer.

use std::cell::RefCell;
use std::future::Future;

use http::{HeaderValue, Response};

use crate::body::Body;
use crate::output;

tokio::task_local! {
    /// What admission wants to tell the client of the request that runs in this task.
    static FOUND: RefCell<Vec<String>>;
}

/// Runs a request; what was added on its way is attached to its answer, also to a refusal.
pub async fn collect(
    request: impl Future<Output = meta::ApiResult<Response<Body>>>,
    protobuf: bool,
) -> meta::ApiResult<Response<Body>> {
    let (answer, found) = FOUND
        .scope(RefCell::default(), async {
            let answer = request.await;
            (answer, FOUND.with(RefCell::take))
        })
        .await;
    if found.is_empty() {
        return answer;
    }
    let mut response = answer.unwrap_or_else(|status| output::failure(protobuf, &status));
    attach(&mut response, &found);
    Ok(response)
}

/// Adds a warning for the client of the current request, once; outside of a request nobody would read it.
pub fn add(warning: &str) {
    let _ = FOUND.try_with(|found| {
        let mut found = found.borrow_mut();
        if !warning.is_empty() && !found.iter().any(|known| known == warning) {
            found.push(warning.to_owned());
        }
    });
}

/// Adds `Warning: 299 - "..."` headers.
pub fn attach(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let clean: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = format!("299 - \"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
