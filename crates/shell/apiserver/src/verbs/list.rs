//! get and list: bytes from the cache, at the freshness the client asks for, in pages if it likes.

use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use meta::{ApiResult, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::cache::{Filter, Object, ResourceCache, Snapshot};
use crate::call::Call;
use crate::convert;
use crate::output::{Form, metadata_only, table};

pub async fn get(call: &Call<'_>) -> ApiResult<Response<Body>> {
    match call.query.get("resourceVersion") {
        "" => {
            call.engine.cache.wait_current().await?;
        }
        version => call.engine.cache.wait_for(parse_version(version)?).await?,
    }
    let key = call.served.local_key(call.namespace(), &call.info.name);
    let object = call.engine.resource(call.served).get(&key);
    let object = object.ok_or_else(|| Status::not_found(&call.served.resource(), &call.info.name))?;
    let stored = vec![object.bytes.clone()];
    let bytes = convert::bytes_from_stored(&call.engine.cache, call.served, stored).await?;
    let bytes = bytes.into_iter().next().unwrap_or_default();
    if call.output.form == Form::Object {
        return call.output.bytes(StatusCode::OK, bytes);
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(Status::internal)?;
    call.output.object(call.served, call.query, StatusCode::OK, &value)
}

pub fn parse_version(text: &str) -> ApiResult<u64> {
    if text.is_empty() {
        return Ok(0);
    }
    let failed = |_| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    };
    text.parse().map_err(failed)
}

/// Where the next page starts, and the revision that all pages show; -1 where the revision is the current one.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

impl Token {
    fn encode(revision: i64, start: &str) -> String {
        let token = Self { v: "meta.k8s.io/v1".to_owned(), rv: revision, start: start.to_owned() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn decode(text: &str) -> ApiResult<Self> {
        let failed = |why: String| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| failed(error.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(failed("server does not recognize this encoded version".to_owned()));
        }
        Ok(token)
    }
}

/// What part of what state a list shows.
struct Cut {
    snapshot: Snapshot,
    start: Option<String>,
}

pub async fn list(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let filter = call.filter()?;
    let limit = match call.query.get("limit") {
        "" => 0,
        text => text.parse::<i64>().map_err(|_| Status::bad_request(format!("limit: Invalid value: {text:?}")))?,
    };
    let limit = usize::try_from(limit).unwrap_or(0);
    let resource = call.engine.resource(call.served);
    let cut = cut(call, &resource, limit).await?;
    let page = select(&resource, &filter, &cut, limit);
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), cut.snapshot.revision.to_string().into());
    if let Some(next) = &page.next {
        let token = Token::encode(i64::try_from(cut.snapshot.revision).unwrap_or(i64::MAX), next);
        metadata.insert("continue".to_owned(), token.into());
        if filter.is_by_key() && filter.name.is_none() {
            metadata.insert("remainingItemCount".to_owned(), page.remaining.into());
        }
        resource.keep_page(cut.snapshot);
    }
    answer(call, &page.objects, &filter, metadata).await
}

/// Finds the state that the parameters ask for.
async fn cut(call: &Call<'_>, resource: &Arc<ResourceCache>, limit: usize) -> ApiResult<Cut> {
    let (version, matching) = (call.query.get("resourceVersion"), call.query.get("resourceVersionMatch"));
    let token = call.query.get("continue");
    let cache = &call.engine.cache;
    let now = |start| Cut { snapshot: resource.snapshot(cache.reached()), start };
    let forbid = |why: &str| Err(Status::bad_request(format!("resourceVersionMatch: Forbidden: {why}")));
    if !matches!(matching, "" | "Exact" | "NotOlderThan") {
        return Err(Status::bad_request(format!(
            "resourceVersionMatch: Unsupported value: {matching:?}: supported values: \"Exact\", \"NotOlderThan\""
        )));
    }
    if !matching.is_empty() && version.is_empty() {
        return forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if !token.is_empty() {
        if !matching.is_empty() {
            return forbid("resourceVersionMatch is forbidden when continue is provided");
        }
        if !version.is_empty() && version != "0" {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        return continued(call, resource, &Token::decode(token)?).await;
    }
    match (parse_version(version)?, matching) {
        (0, "Exact") => forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        (_, "") if version.is_empty() => {
            cache.wait_current().await?;
            Ok(now(None))
        }
        (0, _) => Ok(now(None)),
        (revision, matching) => {
            cache.wait_for(revision).await?;
            // Pages of a list at a version without a match rule are exact, as they always were.
            if matching == "Exact" || (matching.is_empty() && limit > 0) {
                let expired = || Status::expired(format!("too old resource version: {revision}"));
                return Ok(Cut { snapshot: resource.snapshot_at(revision).ok_or_else(expired)?, start: None });
            }
            Ok(now(None))
        }
    }
}

async fn continued(call: &Call<'_>, resource: &Arc<ResourceCache>, token: &Token) -> ApiResult<Cut> {
    let start = Some(token.start.clone());
    let Ok(revision) = u64::try_from(token.rv) else {
        call.engine.cache.wait_current().await?;
        return Ok(Cut { snapshot: resource.snapshot(call.engine.cache.reached()), start });
    };
    if let Some(snapshot) = resource.page(revision) {
        return Ok(Cut { snapshot, start });
    }
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
    let mut status = Status::expired(message);
    status.metadata.continue_token = Token::encode(-1, &token.start);
    Err(status)
}

struct Page {
    objects: Vec<Arc<Object>>,
    /// The key the next page starts with.
    next: Option<String>,
    remaining: u64,
}

fn select(resource: &ResourceCache, filter: &Filter, cut: &Cut, limit: usize) -> Page {
    let readers = resource.readers.load();
    let (low, high) = match &filter.namespace {
        Some(namespace) => (format!("{namespace}/"), Some(format!("{namespace}0"))),
        None => (String::new(), None),
    };
    let low = cut.start.as_deref().filter(|start| **start > *low).unwrap_or(&low);
    let bounds = (Bound::Included(low), high.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
    let mut page = Page { objects: Vec::new(), next: None, remaining: 0 };
    let mut range = cut.snapshot.objects.range::<_, str>(bounds);
    for (key, object) in range.by_ref() {
        if !filter.matches(key, object, &readers) {
            continue;
        }
        if limit > 0 && page.objects.len() == limit {
            page.next = Some(key.to_string());
            page.remaining = 1;
            break;
        }
        page.objects.push(object.clone());
    }
    if page.next.is_some() {
        page.remaining += range.count() as u64;
    }
    page
}

/// Room for the fields of a list around its items.
const LIST_HEAD_BYTES: usize = 512;

async fn answer(
    call: &Call<'_>,
    objects: &[Arc<Object>],
    filter: &Filter,
    metadata: Map<String, Value>,
) -> ApiResult<Response<Body>> {
    let served = call.served;
    let stored = objects.iter().map(|object| object.bytes.clone()).collect();
    let mut items = convert::bytes_from_stored(&call.engine.cache, served, stored).await?;
    if !filter.converted.is_empty() {
        // A page may so hold fewer objects than asked for: clients go on while they are told to.
        let read = |item: &Bytes| serde_json::from_slice::<Value>(item).unwrap_or_default();
        items.retain(|item| convert::passes(served, &filter.converted, &read(item)));
    }
    if call.output.form == Form::Object {
        return call
            .output
            .bytes(StatusCode::OK, concatenate(&served.list_kind(), &served.api_version(), &metadata, &items)?);
    }
    let parse = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).map_err(Status::internal);
    let values = items.iter().map(parse).collect::<ApiResult<Vec<_>>>()?;
    let value = match &call.output.form {
        Form::Table(version) => table(served, version, call.query.get("includeObject"), &values, metadata, true),
        Form::Metadata(version) | Form::MetadataList(version) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": metadata,
            "items": values.iter().map(|value| metadata_only(version, value)).collect::<Vec<_>>(),
        }),
        Form::Object => Value::Null,
    };
    call.output.value(StatusCode::OK, &value)
}

fn concatenate(kind: &str, api_version: &str, metadata: &Map<String, Value>, items: &[Bytes]) -> ApiResult<Bytes> {
    let size: usize = items.iter().map(|item| item.len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + LIST_HEAD_BYTES);
    let metadata = serde_json::to_string(metadata).map_err(Status::internal)?;
    let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[");
    out.extend_from_slice(head.as_bytes());
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(item);
    }
    out.extend_from_slice(b"]}\n");
    Ok(out.freeze())
}
