//! Between the version a request speaks and the version that is stored.

use std::borrow::Cow;

use bytes::Bytes;
use meta::{ApiResult, Status};
use serde_json::Value;

use crate::registry::Served;

/// Turns an object of the served version into the stored one.
pub fn to_stored(served: &Served, value: &mut Value) {
    if served.is_storage_version() {
        return;
    }
    if let Some(view) = &served.kind.stored_as {
        (view.to_stored)(value);
    }
    name_version(value, &served.storage.api_version(), &served.storage.kind);
}

/// Turns a stored object into the served version.
pub fn from_stored(served: &Served, value: &mut Value) {
    let custom = served.custom.as_ref().filter(|custom| custom.reshapes);
    if let Some(custom) = custom {
        custom.settle_stored(value);
    }
    if let Some(view) = &served.kind.stored_as {
        (view.from_stored)(value);
    }
    name_version(value, &served.api_version(), &served.kind.kind);
    if let Some(custom) = custom.filter(|_| !served.is_storage_version()) {
        custom.settle(value);
    }
}

/// The bytes a client of this version reads.
pub fn bytes_from_stored(served: &Served, stored: &Bytes) -> ApiResult<Bytes> {
    if served.reads_as_stored() {
        return Ok(stored.clone());
    }
    let mut value: Value = serde_json::from_slice(stored).map_err(Status::internal)?;
    from_stored(served, &mut value);
    serde_json::to_vec(&value).map(Bytes::from).map_err(Status::internal)
}

fn name_version(value: &mut Value, api_version: &str, kind: &str) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.into());
    }
}

/// A stored object as the served version shows it, without a copy where they are the same.
pub fn view<'a>(served: &Served, stored: &'a Value) -> Cow<'a, Value> {
    if served.reads_as_stored() {
        return Cow::Borrowed(stored);
    }
    let mut value = stored.clone();
    from_stored(served, &mut value);
    Cow::Owned(value)
}
