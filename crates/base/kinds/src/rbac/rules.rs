//! The rules that Role and ClusterRole share.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use crate::json::list;

/// Every rule names verbs, and either resources of some groups or URLs; URLs belong to no namespace.
pub fn validate(role: &Value, is_namespaced: bool) -> FieldErrors {
    let mut errors = Vec::new();
    for (i, rule) in list(role, "rules").iter().enumerate() {
        validate_rule(rule, &FieldPath::new("rules").index(i), is_namespaced, &mut errors);
    }
    errors
}

fn validate_rule(rule: &Value, path: &FieldPath, is_namespaced: bool, errors: &mut FieldErrors) {
    let is_given = |field: &str| !list(rule, field).is_empty();
    if !is_given("verbs") {
        errors.push(FieldError::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if is_given("nonResourceURLs") {
        let mut refuse = |why: &str| {
            errors.push(FieldError::invalid(&path.child("nonResourceURLs"), rule["nonResourceURLs"].clone(), why));
        };
        if is_namespaced {
            refuse("namespaced rules cannot apply to non-resource URLs");
        }
        if is_given("apiGroups") || is_given("resources") || is_given("resourceNames") {
            refuse("rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if !is_given("apiGroups") {
        errors
            .push(FieldError::required(&path.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if !is_given("resources") {
        errors.push(FieldError::required(&path.child("resources"), "resource rules must supply at least one resource"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(rule: Value, is_namespaced: bool) -> Vec<String> {
        let errors = validate(&json!({"rules": [rule]}), is_namespaced);
        errors.iter().map(|error| error.cause().field).collect()
    }

    #[test]
    fn a_rule_names_verbs_and_either_resources_or_urls() {
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        assert!(fields(pods, true).is_empty());
        assert_eq!(fields(json!({}), true), ["rules[0].verbs", "rules[0].apiGroups", "rules[0].resources"]);
        let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]});
        assert!(fields(urls.clone(), false).is_empty());
        assert_eq!(fields(urls, true), ["rules[0].nonResourceURLs"]);
        let both = json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]});
        assert_eq!(fields(both, false), ["rules[0].nonResourceURLs"]);
    }
}
