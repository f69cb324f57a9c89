//! JSON patch and merge patch: the answers that upstream gave to the same bodies.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use objects::{json_patch, merge_patch};
use serde_json::{Value, json};

fn run(kind: &str, patch: &str) -> String {
    let mut object = json!({"data": {"a": "1"}});
    let outcome = match kind {
        "json" => json_patch(&mut object, patch.as_bytes()),
        _ => merge_patch(&mut object, patch.as_bytes()),
    };
    match outcome {
        Ok(()) => object.to_string(),
        Err(error) => format!("{} {}", error.status().code, error.status().message),
    }
}

const CASES: &str = r#"
json | [{"op":"test","path":"/data/a","value":"2"}] | 422 the server rejected our request due to an error in our request
json | [{"op":"test","path":"/data/a","value":"1"},{"op":"add","path":"/data/b","value":"2"}] | {"data":{"a":"1","b":"2"}}
json | [{"op":"remove","path":"/data/zz"}] | 422 the server rejected our request due to an error in our request
json | [{"op":"replace","path":"/data/zz","value":"1"}] | {"data":{"a":"1","zz":"1"}}
json | [{"op":"add","path":"/x/zz","value":"1"}] | 422 the server rejected our request due to an error in our request
json | [{"op":"foo","path":"/x/zz","value":"1"}] | 422 the server rejected our request due to an error in our request
json | {"op":"foo"} | 400 error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp
merge | [1] | 400 error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}
merge | {"data":{"a":null,"c":{"d":null}}} | {"data":{"c":{}}}
"#;

#[test]
fn patches_answer_as_upstream_does() {
    for line in CASES.lines().filter(|line| !line.is_empty()) {
        let [kind, patch, expected] = line.splitn(3, " | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert_eq!(run(kind, patch), expected, "{patch}");
    }
}

#[test]
fn operations_and_depth_are_bounded() {
    let one = json!({"op": "test", "path": "/data/a", "value": "1"});
    let many = Value::Array(vec![one; objects::patch::JSON_PATCH_OPERATIONS_MAX + 1]).to_string();
    assert!(run("json", &many).starts_with("413 "));
    let double = |n| json!({"op": "copy", "from": "/data", "path": format!("/data/x{n}")});
    assert!(run("json", &Value::Array((0..100).map(double).collect()).to_string()).starts_with("422 "));
    // Each copy puts the whole object below itself, one level deeper.
    let copy = json!({"op": "copy", "from": "/data", "path": "/data/x"});
    assert!(run("json", &Value::Array(vec![copy; 200]).to_string()).starts_with("422 "));
}
