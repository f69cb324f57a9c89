//! Server-side apply and update tracking against upstream's answers to the same requests.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use meta::Gvk;
use objects::{Manager, apply, conflict_status, track_update};
use schema::{FieldValidation, builtin, conform};
use serde_json::{Value, json};

fn answer(verb: &str, name: &str, live: Option<&Value>, body: &Value) -> String {
    let api_version = body["apiVersion"].as_str().expect("an apiVersion");
    let group = if body["kind"] == "Deployment" { "apps" } else { "" };
    let kind = body["kind"].as_str().expect("a kind").to_owned();
    let ty = builtin().type_of(&Gvk::new(group, "v1", kind)).expect("a known kind");
    let manager = Manager { name, api_version, subresource: "" };
    let mut object = if verb == "update" {
        let mut new = body.clone();
        track_update(ty, live, &mut new, &manager, "2027-01-01T00:00:00Z");
        new
    } else {
        // The server names the namespace and applies the kind's defaults before it stores.
        let mut body = body.clone();
        body["metadata"]["namespace"] = "schema".into();
        match apply(ty, live, &body, &manager, "2027-01-01T00:00:00Z", verb == "force") {
            Ok(object) => conform(ty, object, FieldValidation::Ignore).expect("still of its type").value,
            Err(conflicts) => {
                let status = conflict_status(&conflicts);
                let causes: Vec<Value> =
                    status.details.iter().flat_map(|d| &d.causes).map(|c| json!(c.field)).collect();
                return format!("! {} {} {}", status.code, status.message.replace('\n', "\\n"), Value::Array(causes));
            }
        }
    };
    let meta = object["metadata"].as_object_mut().expect("metadata");
    for key in ["resourceVersion", "creationTimestamp", "uid", "generation"] {
        meta.remove(key);
    }
    for entry in meta.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
        entry.as_object_mut().expect("an entry").remove("time");
    }
    // The one default of these objects that an apply can bring back.
    if let Some(spec) = object.pointer_mut("/template/spec").and_then(Value::as_object_mut) {
        spec.entry("terminationGracePeriodSeconds").or_insert(30.into());
    }
    by_manager(&mut object);
    object.to_string()
}

/// Entries of one second are ordered by manager; the answers carry no times, so all are.
fn by_manager(object: &mut Value) {
    if let Some(Value::Array(entries)) = object.pointer_mut("/metadata/managedFields") {
        entries.sort_by_key(|entry| (entry["operation"].to_string(), entry["manager"].to_string()));
    }
}

#[test]
fn owners_and_conflicts_are_upstreams() {
    let mut wrong = Vec::new();
    for line in include_str!("apply.txt").lines().filter(|line| !line.starts_with('#')) {
        let [verb, name, live, body, expected] = line.splitn(5, " | ").collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let live: Option<Value> = serde_json::from_str(live).ok();
        let body: Value = serde_json::from_str(body).expect("a body");
        let got = answer(verb, name, live.as_ref(), &body);
        let expected = serde_json::from_str(expected).map_or(expected.to_owned(), |mut object: Value| {
            by_manager(&mut object);
            object.to_string()
        });
        if got != expected {
            wrong.push(format!("{verb} {name} {body}\n  want {expected}\n  got  {got}"));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
