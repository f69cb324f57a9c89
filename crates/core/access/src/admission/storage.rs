//! The default class of claims, the protection of claims and volumes in use, and which claims may grow.

use meta::quantity::Quantity;
use serde_json::{Value, json};

pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Names the default class on a claim that names none. The empty name is a choice: no class.
pub fn settle_class(claim: &mut Value, classes: &[Value]) {
    let named = !claim["spec"]["storageClassName"].is_null() || !claim["metadata"]["annotations"][CLASS_BETA].is_null();
    if named {
        return;
    }
    let marked = |class: &&Value| DEFAULT_MARKS.iter().any(|mark| class["metadata"]["annotations"][*mark] == "true");
    let created = |class: &Value| class["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let name = |class: &Value| class["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    // The newest wins; among equals the first name.
    let newest = classes.iter().filter(marked).min_by_key(|class| (std::cmp::Reverse(created(class)), name(class)));
    if let (Some(class), Some(spec)) = (newest, claim["spec"].as_object_mut()) {
        spec.insert("storageClassName".to_owned(), name(class).into());
    }
}

/// Adds a finalizer.
pub fn protect(object: &mut Value, finalizer: &str) {
    match object["metadata"]["finalizers"].as_array_mut() {
        Some(known) if known.iter().any(|one| one == finalizer) => {}
        Some(known) => known.push(finalizer.into()),
        None => object["metadata"]["finalizers"] = json!([finalizer]),
    }
}

/// Why a claim may not ask for more.
///
/// # Errors
/// The words of the refusal.
pub fn judge_growth(claim: &Value, old: &Value, classes: &[Value]) -> Result<(), &'static str> {
    let size = |claim: &Value| Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]).ok();
    let (Some(new), Some(before)) = (size(claim), size(old)) else { return Ok(()) };
    if new <= before {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err("Only bound persistent volume claims can be expanded");
    }
    let annotated = claim["metadata"]["annotations"][CLASS_BETA].as_str();
    let class = annotated.or_else(|| claim["spec"]["storageClassName"].as_str()).unwrap_or_default();
    let found = classes.iter().find(|one| one["metadata"]["name"] == class);
    if found.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    Err(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, created: &str, is_default: bool) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": created,
                         "annotations": {DEFAULT_MARKS[0]: is_default.to_string()}},
            "allowVolumeExpansion": is_default,
        })
    }

    #[test]
    fn the_newest_default_is_taken() {
        let classes = [
            class("old", "2026-01-01T00:00:00Z", true),
            class("new", "2026-02-01T00:00:00Z", true),
            class("other", "2026-03-01T00:00:00Z", false),
        ];
        let settle = |spec: Value| {
            let mut claim = json!({"metadata": {}, "spec": spec});
            settle_class(&mut claim, &classes);
            claim["spec"]["storageClassName"].clone()
        };
        assert_eq!(settle(json!({})), "new");
        assert_eq!(settle(json!({"storageClassName": ""})), "");
        assert_eq!(settle(json!({"storageClassName": "other"})), "other");
    }

    #[test]
    fn growth_needs_a_bound_claim_and_a_class_that_allows_it() {
        let classes = [class("grows", "", true), class("fixed", "", false)];
        let claim = |size: &str, class: &str, phase: &str| {
            json!({"metadata": {}, "status": {"phase": phase},
                   "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
        };
        let judge = |size, name, phase| {
            judge_growth(&claim(size, name, phase), &claim("1Gi", name, phase), &classes).err().unwrap_or("allowed")
        };
        assert_eq!(judge("2Gi", "grows", "Bound"), "allowed");
        assert_eq!(judge("1Gi", "fixed", "Bound"), "allowed");
        assert!(judge("2Gi", "fixed", "Bound").starts_with("only dynamically provisioned pvc"));
        assert!(judge("2Gi", "grows", "Pending").starts_with("Only bound"));
    }
}
