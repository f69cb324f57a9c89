//! Strategic merge against the answers that upstream gave to the same patches.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use meta::Gvk;
use objects::strategic_merge_patch;
use schema::{FieldValidation, builtin, conform};
use serde_json::Value;

fn answer(object: &str, patch: &str, path: &str) -> String {
    let mut object: Value = serde_json::from_str(object).expect("an object");
    let group = if object["kind"] == "Deployment" { "apps" } else { "" };
    let kind = object["kind"].as_str().expect("a kind").to_owned();
    let ty = builtin().type_of(&Gvk::new(group, "v1", kind)).expect("a known kind");
    if let Err(error) = strategic_merge_patch(ty, &mut object, patch.as_bytes()) {
        let status = error.status();
        return format!("! {} {}", status.code, status.message);
    }
    match conform(ty, object, FieldValidation::Ignore) {
        Ok(decoded) => decoded.value.pointer(path).unwrap_or(&Value::Null).to_string(),
        Err(error) => format!("! {error}"),
    }
}

#[test]
fn patches_merge_as_upstream_merges_them() {
    let mut wrong = Vec::new();
    for line in include_str!("strategic.txt").lines().filter(|line| !line.starts_with('#')) {
        let [object, patch, path, expected] = line.splitn(4, " | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        let got = answer(object, patch, path).replace('\n', "\\n");
        if got != expected {
            wrong.push(format!("{patch}\n  want {expected}\n  got  {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
