//! Between the version a request speaks and the version that is stored.

use std::borrow::Cow;

use bytes::Bytes;
use meta::fields::FieldSelector;
use meta::{ApiResult, Status};
use serde_json::Value;

use crate::cache::Cache;
use crate::registry::Served;

/// Turns an object of the served version into the stored one.
pub async fn to_stored(cache: &Cache, served: &Served, value: &mut Value) -> ApiResult<()> {
    if served.is_storage_version() {
        return Ok(());
    }
    if let Some(view) = &served.kind.stored_as {
        (view.to_stored)(value);
    }
    let version = served.storage.api_version();
    if let Some(webhook) = webhook(served) {
        let taken = std::slice::from_mut(value);
        Box::pin(webhook.convert(cache, taken, &version)).await?;
        if let Some(custom) = &served.custom {
            custom.settle_stored(value);
        }
    }
    name_version(value, &version, &served.storage.kind);
    Ok(())
}

/// Turns a stored object into the served version.
pub async fn from_stored(cache: &Cache, served: &Served, value: &mut Value) -> ApiResult<()> {
    all_from_stored(cache, served, std::slice::from_mut(value)).await
}

/// Turns stored objects into the served version, all of them with one call where a webhook does it.
pub async fn all_from_stored(cache: &Cache, served: &Served, values: &mut [Value]) -> ApiResult<()> {
    let custom = served.custom.as_ref().filter(|custom| custom.reshapes);
    let version = served.api_version();
    let storage = served.storage.api_version();
    for value in values.iter_mut() {
        if let Some(custom) = custom.filter(|_| value["apiVersion"] == storage.as_str()) {
            custom.settle_stored(value);
        }
        if let Some(view) = &served.kind.stored_as {
            (view.from_stored)(value);
        }
    }
    if let Some(webhook) = webhook(served) {
        Box::pin(webhook.convert(cache, values, &version)).await?;
    }
    for value in values {
        name_version(value, &version, &served.kind.kind);
        if let Some(custom) = custom.filter(|_| !served.is_storage_version()) {
            custom.settle(value);
        }
    }
    Ok(())
}

fn webhook(served: &Served) -> Option<&crate::custom::Converter> {
    served.custom.as_ref()?.converter.as_deref()
}

/// The bytes that clients of this version read.
pub async fn bytes_from_stored(cache: &Cache, served: &Served, stored: Vec<Bytes>) -> ApiResult<Vec<Bytes>> {
    if served.reads_as_stored() {
        return Ok(stored);
    }
    let read = |bytes: &Bytes| serde_json::from_slice(bytes).map_err(Status::internal);
    let mut values = stored.iter().map(read).collect::<ApiResult<Vec<Value>>>()?;
    all_from_stored(cache, served, &mut values).await?;
    let written = values.iter().map(|value| serde_json::to_vec(value).map(Bytes::from).map_err(Status::internal));
    written.collect()
}

/// Whether an object in the served version fits the terms that only this version can answer.
pub fn passes(served: &Served, terms: &FieldSelector, value: &Value) -> bool {
    terms.matches(|path| served.field_reader(path).map(|reader| reader.read(value)).unwrap_or_default())
}

/// Turns an object of one served version into another of the same resource.
pub async fn between(cache: &Cache, from: &Served, to: &Served, value: &Value) -> ApiResult<Value> {
    let mut value = value.clone();
    to_stored(cache, from, &mut value).await?;
    from_stored(cache, to, &mut value).await?;
    Ok(value)
}

fn name_version(value: &mut Value, api_version: &str, kind: &str) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.into());
    }
}

/// A stored object as the served version shows it, without a copy where they are the same.
pub async fn view<'a>(cache: &Cache, served: &Served, stored: &'a Value) -> ApiResult<Cow<'a, Value>> {
    if served.reads_as_stored() {
        return Ok(Cow::Borrowed(stored));
    }
    let mut value = stored.clone();
    from_stored(cache, served, &mut value).await?;
    Ok(Cow::Owned(value))
}
