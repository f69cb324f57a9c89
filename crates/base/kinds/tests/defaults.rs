//! What each kind fills in: a manifest, and the object that a reference API server made of it, less what its
//! admission plugins and allocators add.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use kinds::Kind;
use meta::GroupVersion;
use serde_json::Value;

fn row(object: &Value) -> &'static Kind {
    let version = GroupVersion::parse(object["apiVersion"].as_str().unwrap()).unwrap();
    kinds::find(&version.group, &version.version, object["kind"].as_str().unwrap()).unwrap()
}

/// Go prints an empty object for an unset struct; both mean the same.
fn tidy(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(tidy);
        fields.retain(|_, value| value.as_object().is_none_or(|fields| !fields.is_empty()));
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(tidy);
    }
}

#[test]
fn defaults_are_upstreams() {
    let fixtures = include_str!("fixtures/defaults.txt");
    let mut wrong = Vec::new();
    for case in fixtures.split("\n\n") {
        let (manifest, expected) = case.trim().split_once('\n').unwrap();
        let mut object: Value = serde_json::from_str(manifest).unwrap();
        let mut expected: Value = serde_json::from_str(expected).unwrap();
        let row = row(&object);
        (row.default)(&mut object);
        let mut again = object.clone();
        (row.default)(&mut again);
        assert_eq!(object, again, "defaulting twice changes a {}", row.kind);
        if row.kind != "Job" {
            (row.prepare_create)(&mut object);
        } else {
            object["status"] = serde_json::json!({});
        }
        tidy(&mut object);
        tidy(&mut expected);
        if object != expected {
            wrong.push(format!("{}\n  have {object}\n  want {expected}", row.kind));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
