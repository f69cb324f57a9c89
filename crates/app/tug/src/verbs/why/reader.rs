//! Reads from the API what an explanation needs, as plain JSON.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde_json::Value;

use super::Kind;

/// Objects that one answer looks at, of one kind: more would not change what is said first.
const LISTED_MAX: usize = 5000;
/// How much of a log is read: its last lines, and bytes of them.
const LOG_LINES_MAX: usize = 20;
const LOG_BYTES_MAX: usize = 16 << 10;
/// Until the way to a pod's port is open, and until a closed port is told.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);
const DENIED_WITHIN: Duration = Duration::from_millis(500);

pub struct Reader {
    client: Client,
}

impl Reader {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// A path's answer; nothing where there is no such object.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        let request = http::Request::get(path).body(Vec::new()).with_context(|| format!("bad path {path}"))?;
        match self.client.request::<Value>(request).await {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
        }
    }

    pub async fn object(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        let place = if kind.namespaced { format!("/namespaces/{}", escaped(namespace)) } else { String::new() };
        self.get(&format!("{}{place}/{}/{}", kind.api, kind.plural, escaped(name))).await
    }

    /// The objects of a list; an empty namespace means all of them.
    pub async fn list(&self, api: &str, plural: &str, namespace: &str, query: &str) -> Result<Vec<Value>> {
        let place = if namespace.is_empty() { String::new() } else { format!("/namespaces/{}", escaped(namespace)) };
        let path = format!("{api}{place}/{plural}?limit={LISTED_MAX}{query}");
        let list = self.get(&path).await?.unwrap_or_default();
        Ok(match list {
            Value::Object(mut list) => match list.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        })
    }

    /// As `list`, of what only adds to an answer: empty where the caller may not read it.
    pub async fn list_if_allowed(&self, api: &str, plural: &str, namespace: &str, query: &str) -> Result<Vec<Value>> {
        self.list(api, plural, namespace, query).await.or_else(unless_forbidden)
    }

    /// Events about an object.
    pub async fn events(&self, namespace: &str, uid: &str) -> Result<Vec<Value>> {
        let query = format!("&fieldSelector=involvedObject.uid%3D{}", escaped(uid));
        self.list_if_allowed("/api/v1", "events", namespace, &query).await
    }

    /// Whether somebody listens on a TCP port of a pod; nothing where it cannot be found out. Nothing is sent to whoever
    /// listens.
    pub async fn knock(&self, namespace: &str, pod: &str, port: i64) -> Option<bool> {
        let port = u16::try_from(port).ok()?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut forwarder = tokio::time::timeout(CONNECTED_WITHIN, pods.portforward(pod, &[port])).await.ok()?.ok()?;
        let denied = forwarder.take_error(port)?;
        // Who listens says nothing until spoken to: silence is the good answer.
        match tokio::time::timeout(DENIED_WITHIN, denied).await {
            Ok(Some(message)) if message.contains("refused") => Some(false),
            Ok(Some(_)) => None,
            Ok(None) | Err(_) => Some(true),
        }
    }

    /// The end of a container's log; nothing where there is none, or its node does not answer: what else is known is
    /// told all the same.
    pub async fn log(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Option<String> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/log?container={}&previous={previous}&tailLines={LOG_LINES_MAX}&limitBytes={LOG_BYTES_MAX}",
            escaped(namespace),
            escaped(pod),
            escaped(container)
        );
        let request = http::Request::get(path).body(Vec::new()).ok()?;
        self.client.request_text(request).await.ok()
    }
}

/// Whether the API server refused an answer to this caller.
pub fn is_forbidden(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == 403)
}

fn unless_forbidden<T: Default>(error: anyhow::Error) -> Result<T> {
    if is_forbidden(&error) { Ok(T::default()) } else { Err(error) }
}

/// A word as a part of a path: names that need it are wrong, and the server is to say so.
fn escaped(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    word.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
