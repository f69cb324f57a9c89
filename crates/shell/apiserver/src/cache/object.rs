//! One object as it is stored and sent: immutable JSON bytes with the resourceVersion spliced in.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use meta::{ApiResult, Status};
use serde_json::{Map, Value};

use crate::registry::FieldReader;

/// Follows apiVersion and kind in every stored object; the resourceVersion is spliced in behind it.
const METADATA_OPEN: &[u8] = b"\"metadata\":{";

/// An object of the cache.
#[derive(Debug)]
pub struct Object {
    /// JSON with its resourceVersion.
    pub bytes: Bytes,
    pub revision: u64,
    selectable: OnceLock<Selectable>,
}

/// What selectors read, taken out of the bytes once and only when somebody selects.
#[derive(Debug, Default)]
pub struct Selectable {
    pub labels: BTreeMap<String, String>,
    /// Values of the kind's selectable fields, in the order of its readers.
    pub fields: Vec<String>,
}

/// One revision of one key has one content: snapshots are compared by this.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

impl Object {
    /// From stored bytes, which hold no resourceVersion.
    pub fn new(stored: &[u8], revision: u64) -> Self {
        Self { bytes: splice(stored, revision), revision, selectable: OnceLock::new() }
    }

    /// The same object at another revision: what a deletion's event shows.
    pub fn at_revision(&self, revision: u64) -> Self {
        let text = format!("\"resourceVersion\":\"{}\",", self.revision);
        let stored = match find(&self.bytes, text.as_bytes()) {
            Some(at) => [&self.bytes[..at], &self.bytes[at + text.len()..]].concat(),
            None => self.bytes.to_vec(),
        };
        Self::new(&stored, revision)
    }

    /// The same object, with nothing read from it yet.
    pub fn fresh(&self) -> Self {
        Self { bytes: self.bytes.clone(), revision: self.revision, selectable: OnceLock::new() }
    }

    pub fn selectable(&self, readers: &[FieldReader]) -> &Selectable {
        self.selectable.get_or_init(|| {
            let object: Value = serde_json::from_slice(&self.bytes).unwrap_or_default();
            let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
            let text = |(key, value): (&String, &Value)| (key.clone(), value.as_str().unwrap_or("").to_owned());
            Selectable {
                labels: labels.map(|labels| labels.iter().map(text).collect()).unwrap_or_default(),
                fields: readers.iter().map(|reader| reader.read(&object)).collect(),
            }
        })
    }

    pub fn value(&self) -> ApiResult<Value> {
        serde_json::from_slice(&self.bytes).map_err(|error| Status::internal(format!("stored object: {error}")))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Puts the resourceVersion into stored bytes.
pub fn splice(stored: &[u8], revision: u64) -> Bytes {
    let Some(at) = find(stored, METADATA_OPEN).map(|at| at + METADATA_OPEN.len()) else {
        return Bytes::copy_from_slice(stored);
    };
    let comma = if stored.get(at) == Some(&b'}') { "" } else { "," };
    let version = format!("\"resourceVersion\":\"{revision}\"{comma}");
    let mut bytes = BytesMut::with_capacity(stored.len() + version.len());
    bytes.extend_from_slice(&stored[..at]);
    bytes.extend_from_slice(version.as_bytes());
    bytes.extend_from_slice(&stored[at..]);
    bytes.freeze()
}

/// The form objects are stored in: apiVersion, kind and metadata first, no resourceVersion, keys in order.
pub fn encode_stored(object: &Value) -> ApiResult<Bytes> {
    let empty = Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    let mut out = Vec::with_capacity(1024);
    let write = |out: &mut Vec<u8>, value: &Value| {
        serde_json::to_writer(out, value).map_err(|error| Status::internal(format!("encoding an object: {error}")))
    };
    out.extend_from_slice(b"{\"apiVersion\":");
    write(&mut out, fields.get("apiVersion").unwrap_or(&Value::Null))?;
    out.extend_from_slice(b",\"kind\":");
    write(&mut out, fields.get("kind").unwrap_or(&Value::Null))?;
    out.extend_from_slice(b",\"metadata\":{");
    let metadata = fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut first = true;
    for (key, value) in metadata.iter().filter(|(key, _)| key.as_str() != "resourceVersion") {
        field(&mut out, &mut first, key, value)?;
    }
    out.push(b'}');
    let mut first = false;
    for (key, value) in fields.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata")) {
        field(&mut out, &mut first, key, value)?;
    }
    out.push(b'}');
    Ok(Bytes::from(out))
}

fn field(out: &mut Vec<u8>, first: &mut bool, key: &str, value: &Value) -> ApiResult<()> {
    if !std::mem::take(first) {
        out.push(b',');
    }
    let failed = |error| Status::internal(format!("encoding an object: {error}"));
    serde_json::to_writer(&mut *out, key).map_err(failed)?;
    out.push(b':');
    serde_json::to_writer(out, value).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_version_is_spliced_in_and_replaced() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "{"},
            "metadata": {"name": "a", "resourceVersion": "7"}});
        let stored = encode_stored(&object).unwrap();
        assert!(find(&stored, b"resourceVersion").is_none());
        let cached = Object::new(&stored, 12);
        assert_eq!(cached.value().unwrap()["metadata"]["resourceVersion"], "12");
        let later = cached.at_revision(13).value().unwrap();
        assert_eq!(later["metadata"], json!({"name": "a", "resourceVersion": "13"}));
    }
}
