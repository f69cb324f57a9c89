//! Validation of webhooks and of the rules that say which requests a webhook or a policy is about.

use std::collections::HashSet;

use cel::{Env, Type};
use meta::labels::validate_label_selector;
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use crate::json::{has, list, text};
use crate::{expressions, rules};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const URL_FORM: &str = "; desired format: https://host[:port]/path";
/// Match conditions of one webhook or policy.
const CONDITIONS_MAX: usize = 64;

/// Every complaint about a webhook configuration.
pub fn configuration(configuration: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    for (at, hook) in list(configuration, "webhooks").iter().enumerate() {
        let path = FieldPath::new("webhooks").index(at);
        webhook(&mut errors, hook, &path);
        let name = text(hook, "name");
        if !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
    }
    errors
}

fn webhook(errors: &mut FieldErrors, hook: &Value, path: &FieldPath) {
    full_name(errors, text(hook, "name"), &path.child("name"));
    for (at, rule) in list(hook, "rules").iter().enumerate() {
        resource_rule(errors, rule, &path.child("rules").index(at));
    }
    rules::one_of(errors, hook, path, "failurePolicy", &["Fail", "Ignore"]);
    rules::one_of(errors, hook, path, "matchPolicy", &["Equivalent", "Exact"]);
    rules::one_of(errors, hook, path, "reinvocationPolicy", &["IfNeeded", "Never"]);
    match hook["sideEffects"].as_str() {
        None => errors.push(FieldError::required(&path.child("sideEffects"), "must specify one of None, NoneOnDryRun")),
        Some(_) => rules::one_of(errors, hook, path, "sideEffects", &["None", "NoneOnDryRun"]),
    }
    if let Some(seconds) = hook["timeoutSeconds"].as_i64().filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(&path.child("timeoutSeconds"), seconds, why));
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        errors.extend(validate_label_selector(&hook[selector], &path.child(selector)));
    }
    client(errors, &hook["clientConfig"], &path.child("clientConfig"));
    conditions(errors, hook, &path.child("matchConditions"));
    review_versions(errors, list(hook, "admissionReviewVersions"), &path.child("admissionReviewVersions"));
}

fn full_name(errors: &mut FieldErrors, name: &str, path: &FieldPath) {
    let broken = names::dns_subdomain(name);
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !broken.is_empty() {
        errors.push(FieldError::invalid(path, name, broken.join(",")));
    } else if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, name, why));
    }
}

fn review_versions(errors: &mut FieldErrors, versions: &[Value], path: &FieldPath) {
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        errors.push(FieldError::required(path, &format!("must specify one of {known}")));
        return;
    }
    for (at, version) in versions.iter().enumerate() {
        let name = version.as_str().unwrap_or_default();
        if versions[..at].contains(version) {
            errors.push(FieldError::invalid(&path.index(at), name, "duplicate version"));
        } else {
            rules::name(errors, &path.index(at), name, names::dns1035_label);
        }
    }
    if !versions.iter().any(|version| REVIEW_VERSIONS.iter().any(|known| version == known)) {
        errors.push(FieldError::invalid(path, versions, format!("must include at least one of {known}")));
    }
}

/// How a webhook is reached; definitions with a conversion webhook say it the same way.
fn client(errors: &mut FieldErrors, config: &Value, path: &FieldPath) {
    match (has(config, "url"), has(config, "service")) {
        (true, false) => url(errors, text(config, "url"), &path.child("url")),
        (false, true) => service(errors, &config["service"], &path.child("service")),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

fn url(errors: &mut FieldErrors, url: &str, path: &FieldPath) {
    let mut bad = |value: &str, why: String| errors.push(FieldError::invalid(path, value, why));
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        bad(scheme, format!("'https' is the only allowed URL scheme{URL_FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        bad(host, format!("host must be specified{URL_FORM}"));
    }
    if !user.is_empty() {
        bad(user, "user information is not permitted in the URL".to_owned());
    }
    if !fragment.is_empty() {
        bad(fragment, "fragments are not permitted in the URL".to_owned());
    }
    if !query.is_empty() {
        bad(query, "query parameters are not permitted in the URL".to_owned());
    }
}

fn service(errors: &mut FieldErrors, service: &Value, path: &FieldPath) {
    rules::required(errors, service, path, "name");
    rules::required(errors, service, path, "namespace");
    let port = service["port"].as_i64().unwrap_or(443);
    let broken = names::port_number(port);
    if !broken.is_empty() {
        let why = format!("port is not valid: {}", broken.join(", "));
        errors.push(FieldError::invalid(&path.child("port"), port, why));
    }
    let Some(url_path) = service["path"].as_str() else { return };
    let path = path.child("path");
    match url_path {
        "" | "/" => return,
        "//" => errors.push(FieldError::invalid(&path, url_path, "segment[0] may not be empty")),
        other if !other.starts_with('/') => {
            errors.push(FieldError::invalid(&path, url_path, "must start with a '/'"));
        }
        _ => {}
    }
    let steps: Vec<&str> = url_path.trim_start_matches('/').trim_end_matches('/').split('/').collect();
    for (at, step) in steps.iter().enumerate() {
        if step.is_empty() {
            errors.push(FieldError::invalid(&path, url_path, format!("segment[{at}] may not be empty")));
            return;
        }
        for why in names::dns_subdomain(step) {
            errors.push(FieldError::invalid(&path, url_path, format!("segment[{at}]: {why}")));
        }
    }
}

/// The conditions of a webhook.
fn conditions(errors: &mut FieldErrors, parent: &Value, path: &FieldPath) {
    if !list(parent, "matchConditions").is_empty() {
        conditions_in(errors, parent, &expressions::env(false), path);
    }
}

/// The conditions of a webhook or a policy, whose expressions may name what `env` has.
pub fn conditions_in(errors: &mut FieldErrors, parent: &Value, env: &Env, path: &FieldPath) {
    let conditions = list(parent, "matchConditions");
    if conditions.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, conditions.len(), CONDITIONS_MAX));
    }
    let mut seen = HashSet::new();
    for (at, condition) in conditions.iter().enumerate() {
        let path = path.index(at);
        let (name, expression) = (text(condition, "name"), text(condition, "expression").trim());
        if expression.is_empty() {
            errors.push(FieldError::required(&path.child("expression"), ""));
        } else {
            expressions::check(errors, expression, env, &[Type::Bool], &path.child("expression"));
        }
        rules::required_name(errors, &path.child("name"), name, names::qualified_name);
        if !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
    }
}

/// One rule of a webhook or a policy.
pub fn resource_rule(errors: &mut FieldErrors, rule: &Value, path: &FieldPath) {
    let star = |key: &str| list(rule, key).len() > 1 && list(rule, key).iter().any(|one| one == "*");
    let operations = list(rule, "operations");
    let place = path.child("operations");
    if operations.is_empty() {
        errors.push(FieldError::required(&place, ""));
    }
    if star("operations") {
        let why = "if '*' is present, must not specify other operations";
        errors.push(FieldError::invalid(&place, operations, why));
    }
    for (at, operation) in operations.iter().enumerate() {
        let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        if !known.iter().any(|one| operation == one) {
            let found = operation.as_str().unwrap_or_default();
            errors.push(FieldError::not_supported(&place.index(at), found, &known));
        }
    }
    for (key, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        rules::required(errors, rule, path, key);
        if star(key) {
            let why = format!("if '*' is present, must not specify other {what}");
            errors.push(FieldError::invalid(&path.child(key), list(rule, key), why));
        }
    }
    for (at, _) in list(rule, "apiVersions").iter().enumerate().filter(|(_, version)| **version == "") {
        errors.push(FieldError::required(&path.child("apiVersions").index(at), ""));
    }
    resources(errors, list(rule, "resources"), &path.child("resources"));
    rules::one_of(errors, rule, path, "scope", &["*", "Cluster", "Namespaced"]);
}

fn resources(errors: &mut FieldErrors, resources: &[Value], path: &FieldPath) {
    if resources.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut any_sub, mut any_resource) = (Vec::new(), Vec::new());
    let mut last_has_no_sub = false;
    for (at, one) in resources.iter().enumerate() {
        let one = one.as_str().unwrap_or_default();
        if one.is_empty() {
            errors.push(FieldError::required(&path.index(at), ""));
            continue;
        }
        let Some((resource, sub)) = one.split_once('/') else {
            last_has_no_sub = one != "*";
            continue;
        };
        if any_sub.contains(&resource) {
            let why = format!("if '{resource}/*' is present, must not specify {one}");
            errors.push(FieldError::invalid(&path.index(at), one, why));
        }
        if any_resource.contains(&sub) {
            let why = format!("if '*/{sub}' is present, must not specify {one}");
            errors.push(FieldError::invalid(&path.index(at), one, why));
        }
        if sub == "*" {
            any_sub.push(resource);
        }
        if resource == "*" {
            any_resource.push(sub);
        }
    }
    let has = |wanted: &str| resources.iter().any(|one| one == wanted);
    if resources.len() > 1 && has("*/*") {
        errors.push(FieldError::invalid(path, resources, "if '*/*' is present, must not specify other resources"));
    }
    if has("*") && last_has_no_sub {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, resources, why));
    }
}
