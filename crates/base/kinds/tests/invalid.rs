//! What each kind refuses: a manifest, and the errors that a reference API server answered, in any order.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use kinds::Kind;
use meta::GroupVersion;
use serde_json::Value;

fn row(object: &Value) -> &'static Kind {
    let version = GroupVersion::parse(object["apiVersion"].as_str().unwrap()).unwrap();
    kinds::find(&version.group, &version.version, object["kind"].as_str().unwrap()).unwrap()
}

/// Objects are shown as Go structs upstream and as JSON here: the text before and after them is what counts.
fn without_objects(error: &str) -> String {
    match (error.find("value: {"), error.rfind('}')) {
        (Some(start), Some(end)) if start < end => format!("{}{{}}{}", &error[..start + 7], &error[end + 1..]),
        _ => error.to_owned(),
    }
}

#[test]
fn errors_are_upstreams() {
    let mut wrong = Vec::new();
    for case in include_str!("fixtures/invalid.txt").split("\n\n") {
        let (manifest, expected) = case.trim().split_once('\n').unwrap_or((case.trim(), ""));
        let mut object: Value = serde_json::from_str(manifest).unwrap();
        let row = row(&object);
        (row.default)(&mut object);
        if row.kind == "Job" {
            object["metadata"]["uid"] = "u".into();
            (row.prepare_create)(&mut object);
        }
        let mut actual: Vec<String> = (row.validate)(&object).iter().map(|e| without_objects(&e.to_string())).collect();
        let mut expected: Vec<String> = expected.lines().map(without_objects).collect();
        actual.sort();
        expected.sort();
        if actual != expected {
            wrong.push(format!(
                "{manifest}\n  have {}\n  want {}",
                actual.join("\n       "),
                expected.join("\n       ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn running_pods_change_little() {
    let pod: Value =
        serde_json::from_str(r#"{"spec":{"containers":[{"name":"a","image":"i"}],"nodeName":"n"}}"#).unwrap();
    let row = kinds::find("", "v1", "Pod").unwrap();
    let update = |change: fn(&mut Value)| {
        let mut new = pod.clone();
        change(&mut new);
        (row.validate_update)(&new, &pod).first().map(ToString::to_string).unwrap_or_default()
    };
    assert_eq!(update(|pod| pod["spec"]["containers"][0]["image"] = "j".into()), "");
    assert_eq!(update(|pod| pod["spec"]["tolerations"] = serde_json::json!([{"operator": "Exists"}])), "");
    let refused = update(|pod| pod["spec"]["nodeName"] = "m".into());
    assert!(refused.starts_with("spec: Forbidden: pod updates may not change fields other than"), "{refused}");
}
