//! What this server serves, as clients discover it: group by group, or all at once (aggregated).

use http::{HeaderMap, Response, StatusCode};
use kinds::{Kind, Scope, Subresource};
use meta::{ApiResult, Status};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::body::{self, Body};
use crate::engine::Engine;
use crate::registry::{Registry, Served};
use crate::route::not_found;

pub fn answer(engine: &Engine, path: &str, headers: &HeaderMap) -> ApiResult<Response<Body>> {
    let registry = engine.registry();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let aggregated = aggregated_version(headers);
    match (parts.as_slice(), aggregated) {
        (["api"], Some(version)) => send(headers, &aggregated_type(version), &aggregate(engine, version, true)),
        (["apis"], Some(version)) => send(headers, &aggregated_type(version), &aggregate(engine, version, false)),
        (["api"], None) => send(
            headers,
            JSON,
            &json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]}),
        ),
        (["apis"], None) => {
            let groups = groups(engine);
            let groups = groups.iter().filter(|(group, _)| !group.is_empty()).map(|(g, v)| group_value(g, v));
            send(
                headers,
                JSON,
                &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>()}),
            )
        }
        (["apis", group], _) => match groups(engine).iter().find(|(name, _)| name == group) {
            Some((name, versions)) => {
                let mut value = group_value(name, versions);
                value["kind"] = "APIGroup".into();
                value["apiVersion"] = "v1".into();
                send(headers, JSON, &value)
            }
            None => Ok(not_found()),
        },
        (["api", "v1"], _) => send(headers, JSON, &resources(&registry, "", "v1")),
        (["apis", group, version], _) if registry.has_version(group, version) => {
            send(headers, JSON, &resources(&registry, group, version))
        }
        _ => Ok(not_found()),
    }
}

const JSON: &str = "application/json";

/// `v2` or `v2beta1` where the client accepts the aggregated form.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(http::header::ACCEPT)?.to_str().ok()?;
    for clause in accept.split(',') {
        if !clause.trim_start().starts_with(JSON) {
            continue;
        }
        if !clause.contains("as=APIGroupDiscoveryList") || !clause.contains("g=apidiscovery.k8s.io") {
            return None;
        }
        if clause.contains("v=v2beta1") {
            return Some("v2beta1");
        }
        if clause.contains("v=v2") {
            return Some("v2");
        }
    }
    None
}

fn aggregated_type(version: &str) -> String {
    format!("{JSON};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
}

/// Sends a document with its hash, and only the hash to who has it.
pub fn send(headers: &HeaderMap, content_type: &str, value: &Value) -> ApiResult<Response<Body>> {
    let bytes = serde_json::to_vec(value).map_err(Status::internal)?;
    let hash = Sha256::digest(&bytes);
    let etag = format!("\"{}\"", hash.iter().map(|byte| format!("{byte:02X}")).collect::<String>());
    let known = headers.get(http::header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known.split(',').any(|known| known.trim() == etag)) {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        body::json(StatusCode::OK, bytes)
    };
    let mut set = |name: http::HeaderName, text: &str| {
        if let Ok(value) = http::HeaderValue::from_str(text) {
            response.headers_mut().insert(name, value);
        }
    };
    set(http::header::CONTENT_TYPE, content_type);
    set(http::header::ETAG, &etag);
    set(http::header::VARY, "Accept");
    Ok(response)
}

fn group_value(group: &str, versions: &[String]) -> Value {
    let version = |version: &String| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({
        "name": group,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// The subresources of a kind as discovery lists them: `status` and those of the row.
pub fn subresources(kind: &Kind) -> Vec<Subresource> {
    let mut all: Vec<Subresource> = kind.subresources.to_vec();
    if kind.has_status && !all.iter().any(|sub| sub.name == "status") {
        all.push(Subresource { name: "status".into(), speaks: None, verbs: &["get", "patch", "update"] });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn resources(registry: &Registry, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for served in registry.in_version(group, version) {
        let kind = &served.kind;
        let mut entry = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.scope == Scope::Namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs.list(),
        });
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        if kind.verbs.allows("watch") {
            entry["storageVersionHash"] = storage_hash(served).into();
        }
        list.push(entry);
        for sub in subresources(kind) {
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.scope == Scope::Namespaced,
                "kind": sub.speaks.as_ref().map_or(&kind.kind, |gvk| &gvk.kind),
                "verbs": sub.verbs,
            });
            if let Some(gvk) = &sub.speaks {
                entry["group"] = gvk.group.as_ref().into();
                entry["version"] = gvk.version.as_ref().into();
            }
            list.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

fn storage_hash(served: &Served) -> String {
    use base64::Engine as _;
    let stored = &served.storage;
    let hash = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    base64::engine::general_purpose::STANDARD.encode(&hash[..8])
}

/// Groups with their versions, most preferred first; those of other servers come last.
pub fn groups(engine: &Engine) -> Vec<(String, Vec<String>)> {
    let registry = engine.registry();
    let mut all: Vec<(String, Vec<String>)> =
        registry.groups().into_iter().map(|(group, versions)| (group.to_owned(), versions.to_vec())).collect();
    let mut extensions = engine.aggregation.all().to_vec();
    extensions.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.group.cmp(&b.group)));
    for extension in extensions {
        match all.iter_mut().find(|(group, _)| *group == extension.group) {
            Some((_, versions)) if versions.contains(&extension.version) => {}
            Some((_, versions)) => versions.push(extension.version.clone()),
            None => all.push((extension.group.clone(), vec![extension.version.clone()])),
        }
    }
    all
}

fn aggregate(engine: &Engine, version: &str, core: bool) -> Value {
    let registry = engine.registry();
    let groups = groups(engine).into_iter().filter(|(group, _)| group.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(group, versions)| {
            let versions = versions.iter().map(|version| {
                if let Some(extension) = engine.aggregation.find(&format!("/apis/{group}/{version}")) {
                    let resources = aggregated_list(&extension.resources, &group, version);
                    let freshness = if extension.available { "Current" } else { "Stale" };
                    return json!({"version": version, "resources": resources, "freshness": freshness});
                }
                let resources = registry.in_version(&group, version).map(|served| aggregated_resource(&served.kind));
                json!({"version": version, "resources": resources.collect::<Vec<_>>(), "freshness": "Current"})
            });
            let mut metadata = Map::new();
            if !group.is_empty() {
                metadata.insert("name".to_owned(), group.as_str().into());
            }
            metadata.insert("creationTimestamp".to_owned(), Value::Null);
            json!({"metadata": metadata, "versions": versions.collect::<Vec<_>>()})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

/// The resources of another server's own list in the aggregated form.
fn aggregated_list(resources: &[Value], group: &str, version: &str) -> Vec<Value> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let kind = |value: &Value| {
        let or =
            |key: &str, other: &str| value[key].as_str().filter(|text| !text.is_empty()).unwrap_or(other).to_owned();
        json!({"group": or("group", group), "version": or("version", version), "kind": value["kind"]})
    };
    let mut all: Vec<Value> = Vec::new();
    for one in resources {
        let name = text(one, "name");
        let Some((resource, sub)) = name.split_once('/') else {
            let mut entry = json!({"resource": name, "responseKind": kind(one), "singularResource": one["singularName"],
                "scope": if one["namespaced"] == true { "Namespaced" } else { "Cluster" }, "verbs": one["verbs"]});
            for key in ["shortNames", "categories"] {
                if one[key].is_array() {
                    entry[key] = one[key].clone();
                }
            }
            all.push(entry);
            continue;
        };
        let entry = json!({"subresource": sub, "responseKind": kind(one), "verbs": one["verbs"]});
        if let Some(parent) = all.iter_mut().find(|known| known["resource"] == resource) {
            match parent["subresources"].as_array_mut() {
                Some(list) => list.push(entry),
                None => parent["subresources"] = vec![entry].into(),
            }
        }
    }
    all
}

fn aggregated_resource(kind: &Kind) -> Value {
    let response_kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut entry = json!({
        "resource": kind.plural,
        "responseKind": response_kind(&kind.group, &kind.version, &kind.kind),
        "scope": if kind.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs.list(),
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    let all = subresources(kind);
    let all = all.iter().map(|sub| {
        let speaks = match &sub.speaks {
            Some(gvk) => response_kind(&gvk.group, &gvk.version, &gvk.kind),
            None => response_kind(&kind.group, &kind.version, &kind.kind),
        };
        json!({"subresource": sub.name, "responseKind": speaks, "verbs": sub.verbs})
    });
    let all: Vec<Value> = all.collect();
    if !all.is_empty() {
        entry["subresources"] = all.into();
    }
    entry
}
