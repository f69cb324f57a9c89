//! What a node is asked about its disks: through the API server, as everything that goes to a kubelet.

use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

/// Making a file system takes well under a second; a node that is silent for longer is asked again later.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What a node says.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Answer {
    /// Where the volume is on the node.
    pub path: String,
    pub bytes: i64,
    /// The disk has grown and its file system grows when it is mounted next.
    pub pending: bool,
    /// This node cannot, now and later, and why.
    pub refused: Option<String>,
}

/// Why a node did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    #[error("node {node:?} does not answer within {ANSWER_WITHIN:?}")]
    Late { node: String },
    #[error("node {node:?}: {source}")]
    Failed { node: String, source: kube::Error },
}

/// Makes the disk, or finds it made.
pub(super) async fn create(
    client: &Client,
    node: &str,
    disk: &str,
    bytes: i64,
    block: bool,
) -> Result<Answer, Silence> {
    let body = json!({"bytes": bytes, "block": block});
    ask(client, http::Method::POST, node, disk, body).await
}

/// Makes the disk larger.
pub(super) async fn grow(client: &Client, node: &str, disk: &str, bytes: i64) -> Result<Answer, Silence> {
    ask(client, http::Method::PUT, node, disk, json!({"bytes": bytes})).await
}

/// Removes the disk and what is on it.
pub(super) async fn remove(client: &Client, node: &str, disk: &str) -> Result<Answer, Silence> {
    ask(client, http::Method::DELETE, node, disk, Value::Null).await
}

async fn ask(client: &Client, method: http::Method, node: &str, disk: &str, body: Value) -> Result<Answer, Silence> {
    let failed = |source| Silence::Failed { node: node.to_owned(), source };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("/api/v1/nodes/{node}/proxy/tug/disks/{disk}"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(if body.is_null() { Vec::new() } else { body.to_string().into_bytes() })
        .map_err(|error| failed(kube::Error::HttpError(error)))?;
    match tokio::time::timeout(ANSWER_WITHIN, client.request::<Answer>(request)).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(Silence::Late { node: node.to_owned() }),
    }
}
