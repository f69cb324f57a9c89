//! Validation of admission policies and their bindings: expressions are compiled as they would run.

use std::collections::HashSet;

use cel::{Env, Type};
use meta::labels::validate_label_selector;
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use super::webhook_rules::{conditions_in, resource_rule};
use crate::json::{has, list, text};
use crate::{expressions, rules};

const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_EXPRESSION_BYTES_MAX: usize = 5 * 1024;
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

pub fn validating(policy: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&policy["spec"], FieldPath::new("spec"));
    let env = common(&mut errors, spec, &path);
    let (validations, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for key in ["validations", "auditAnnotations"] {
            let why = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(&path.child(key), why));
        }
    }
    for (at, one) in validations.iter().enumerate() {
        validation(&mut errors, one, &env, &path.child("validations").index(at));
    }
    if annotations.len() > ANNOTATIONS_MAX {
        let why = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.push(FieldError::invalid(&path.child("auditAnnotations"), annotations, why));
    }
    let mut seen = HashSet::new();
    for (at, one) in annotations.iter().enumerate() {
        let place = path.child("auditAnnotations").index(at);
        annotation(&mut errors, one, text(policy, "metadata.name"), &env, &place);
        if !seen.insert(text(one, "key")) {
            errors.push(FieldError::duplicate(&place.child("key"), text(one, "key")));
        }
    }
    errors
}

pub fn mutating(policy: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&policy["spec"], FieldPath::new("spec"));
    let env = common(&mut errors, spec, &path);
    let mutations = list(spec, "mutations");
    if mutations.is_empty() {
        errors.push(FieldError::required(&path.child("mutations"), "mutations must contain at least one item"));
    }
    for (at, one) in mutations.iter().enumerate() {
        mutation(&mut errors, one, &env, &path.child("mutations").index(at));
    }
    match text(spec, "reinvocationPolicy") {
        "" => errors.push(FieldError::required(&path.child("reinvocationPolicy"), "")),
        _ => rules::one_of(&mut errors, spec, &path, "reinvocationPolicy", &["IfNeeded", "Never"]),
    }
    for rule in list(spec, "matchConstraints.resourceRules") {
        for operation in list(rule, "operations").iter().filter_map(Value::as_str) {
            if !matches!(operation, "CREATE" | "UPDATE" | "*") {
                let place = path.child("matchConstraints").child("resourceRules").child("operations");
                errors.push(FieldError::not_supported(&place, operation, &["*", "CREATE", "UPDATE"]));
            }
        }
    }
    errors
}

/// What both kinds of policy have; answers what expressions may name.
fn common(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) -> Env {
    match text(spec, "failurePolicy") {
        "" => errors.push(FieldError::required(&path.child("failurePolicy"), "")),
        _ => rules::one_of(errors, spec, path, "failurePolicy", &["Fail", "Ignore"]),
    }
    let has_params = has(spec, "paramKind");
    if has_params {
        param_kind(errors, &spec["paramKind"], &path.child("paramKind"));
    }
    let place = path.child("matchConstraints");
    if has(spec, "matchConstraints") {
        match_resources(errors, &spec["matchConstraints"], &place);
        if list(spec, "matchConstraints.resourceRules").is_empty() {
            errors.push(FieldError::required(&place.child("resourceRules"), ""));
        }
    } else {
        errors.push(FieldError::required(&place, ""));
    }
    let mut env = expressions::env(has_params);
    conditions_in(errors, spec, &env, &path.child("matchConditions"));
    let mut known: Vec<(String, Type)> = Vec::new();
    let base = env.clone();
    for (at, variable) in list(spec, "variables").iter().enumerate() {
        env = base.clone().variable("variables", Type::object("kubernetes.variables", known.iter().cloned()));
        let place = path.child("variables").index(at);
        let (name, expression) = (text(variable, "name"), text(variable, "expression"));
        let first = name.chars().next();
        let is_name = first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.trim().is_empty() {
            errors.push(FieldError::required(&place.child("name"), "name is not specified"));
        } else if !is_name {
            errors.push(FieldError::invalid(&place.child("name"), name, "must be a valid CEL identifier"));
        }
        let mut ty = Type::Dyn;
        if expression.trim().is_empty() {
            errors.push(FieldError::required(&place.child("expression"), "expression is not specified"));
        } else {
            match expressions::compile(expression, &env, &[]) {
                Ok(program) => ty = program.result().clone(),
                Err(why) => errors.push(FieldError::invalid(&place.child("expression"), expression, why)),
            }
        }
        known.push((name.to_owned(), ty));
    }
    base.variable("variables", Type::object("kubernetes.variables", known))
}

fn param_kind(errors: &mut FieldErrors, kind: &Value, path: &FieldPath) {
    let api_version = text(kind, "apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let place = path.child("apiVersion");
    if api_version.is_empty() {
        errors.push(FieldError::required(&place, ""));
    } else if version.contains('/') {
        let why = format!("unexpected GroupVersion string: {api_version}");
        errors.push(FieldError::invalid(&place, api_version, why));
    } else {
        let broken = names::dns_subdomain(group);
        if !group.is_empty() && !broken.is_empty() {
            errors.push(FieldError::invalid(&place, group, broken.join(",")));
        }
        let broken = names::dns1035_label(version);
        if version.is_empty() {
            errors.push(FieldError::invalid(&place, api_version, "version must be specified"));
        } else if !broken.is_empty() {
            errors.push(FieldError::invalid(&place, version, broken.join(",")));
        }
    }
    let name = text(kind, "kind");
    let broken = names::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("kind"), ""));
    } else if !broken.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", broken.join(","));
        errors.push(FieldError::invalid(&path.child("kind"), name, why));
    }
}

fn match_resources(errors: &mut FieldErrors, resources: &Value, path: &FieldPath) {
    match text(resources, "matchPolicy") {
        "" => errors.push(FieldError::required(&path.child("matchPolicy"), "")),
        _ => rules::one_of(errors, resources, path, "matchPolicy", &["Equivalent", "Exact"]),
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        if has(resources, selector) {
            errors.extend(validate_label_selector(&resources[selector], &path.child(selector)));
        } else {
            errors.push(FieldError::required(&path.child(selector), ""));
        }
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for (at, rule) in list(resources, key).iter().enumerate() {
            let place = path.child(key).index(at);
            let mut seen = HashSet::new();
            for (at, name) in list(rule, "resourceNames").iter().enumerate() {
                let name = name.as_str().unwrap_or_default();
                rules::name(errors, &place.child("resourceNames").index(at), name, names::path_segment);
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(&place.child("resourceNames").index(at), name));
                }
            }
            resource_rule(errors, rule, &place);
        }
    }
}

fn validation(errors: &mut FieldErrors, one: &Value, env: &Env, path: &FieldPath) {
    let (expression, message, computed) =
        (text(one, "expression"), text(one, "message"), text(one, "messageExpression"));
    if expression.trim().is_empty() {
        errors.push(FieldError::required(&path.child("expression"), "expression is not specified"));
    } else {
        expressions::check(errors, expression, env, &[Type::Bool], &path.child("expression"));
    }
    let why = "must be non-empty if specified";
    if !computed.is_empty() && computed.trim().is_empty() {
        errors.push(FieldError::invalid(&path.child("messageExpression"), computed, why));
    } else if !computed.is_empty() {
        expressions::check(errors, computed, env, &[Type::String], &path.child("messageExpression"));
    }
    if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(&path.child("message"), message, why));
    } else if message.trim().contains(['\n', '\r']) {
        errors.push(FieldError::invalid(&path.child("message"), message, "must not contain line breaks"));
    }
    rules::one_of(errors, one, path, "reason", &REASONS);
}

fn annotation(errors: &mut FieldErrors, one: &Value, policy: &str, env: &Env, path: &FieldPath) {
    let (key, expression) = (text(one, "key"), text(one, "valueExpression").trim());
    if policy.is_empty() {
        errors.push(FieldError::invalid(&path.child("key"), key, "requires metadata.name be non-empty"));
    } else {
        rules::name(errors, &path.child("key"), &format!("{policy}/{key}"), names::qualified_name);
    }
    let place = path.child("valueExpression");
    if expression.is_empty() {
        errors.push(FieldError::required(&place, "valueExpression is not specified"));
    } else if expression.len() > ANNOTATION_EXPRESSION_BYTES_MAX {
        let why = format!("must not exceed {ANNOTATION_EXPRESSION_BYTES_MAX} bytes in length");
        errors.push(FieldError::required(&place, &why));
    } else {
        expressions::check(errors, expression, env, &[Type::String, Type::Null], &place);
    }
}

fn mutation(errors: &mut FieldErrors, one: &Value, env: &Env, path: &FieldPath) {
    let (own, other, wanted) = match text(one, "patchType") {
        "" => {
            errors.push(FieldError::required(&path.child("patchType"), ""));
            return;
        }
        "JSONPatch" => ("jsonPatch", "applyConfiguration", Type::list(Type::Dyn)),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Type::map(Type::String, Type::Dyn)),
        found => {
            let known = ["ApplyConfiguration", "JSONPatch"];
            errors.push(FieldError::not_supported(&path.child("patchType"), found, &known));
            return;
        }
    };
    let kind = text(one, "patchType");
    if has(one, other) {
        let why = format!("must not be specified when patchType is {kind}");
        errors.push(FieldError::invalid(&path.child(other), format!("{{{other}}}"), why));
    }
    if !has(one, own) {
        errors.push(FieldError::required(&path.child(own), &format!("must be specified when patchType is {kind}")));
        return;
    }
    let place = path.child(own).child("expression");
    let expression = text(&one[own], "expression");
    if expression.trim().is_empty() {
        errors.push(FieldError::required(&place, ""));
    } else {
        expressions::check(errors, expression, env, &[wanted], &place);
    }
}

pub fn validating_binding(binding: &Value) -> FieldErrors {
    let mut errors = bound(binding);
    let path = FieldPath::new("spec").child("validationActions");
    let actions = list(binding, "spec.validationActions");
    for (at, action) in actions.iter().enumerate() {
        let known = ["Audit", "Deny", "Warn"];
        let found = action.as_str().unwrap_or_default();
        if !known.contains(&found) {
            errors.push(FieldError::not_supported(&path.index(at), found, &known));
        }
        if actions[..at].contains(action) {
            errors.push(FieldError::duplicate(&path.index(at), found));
        }
    }
    let has = |wanted: &str| actions.iter().any(|action| action == wanted);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid(&path, actions, why));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(&path, "at least one validation action is required"));
    }
    errors
}

/// What bindings of both kinds have.
pub fn bound(binding: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&binding["spec"], FieldPath::new("spec"));
    rules::required_name(&mut errors, &path.child("policyName"), text(spec, "policyName"), names::dns_subdomain);
    if has(spec, "paramRef") {
        param_ref(&mut errors, &spec["paramRef"], &path.child("paramRef"));
    }
    if has(spec, "matchResources") {
        match_resources(&mut errors, &spec["matchResources"], &path.child("matchResources"));
    }
    errors
}

fn param_ref(errors: &mut FieldErrors, param: &Value, path: &FieldPath) {
    let why = "name and selector are mutually exclusive";
    let name = text(param, "name");
    if !name.is_empty() {
        rules::name(errors, &path.child("name"), name, names::path_segment);
        if has(param, "selector") {
            errors.push(FieldError::forbidden(&path.child("name"), why));
        }
    }
    if has(param, "selector") {
        errors.extend(validate_label_selector(&param["selector"], &path.child("selector")));
        if !name.is_empty() {
            errors.push(FieldError::forbidden(&path.child("selector"), why));
        }
    } else if name.is_empty() {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    match text(param, "parameterNotFoundAction") {
        "" => errors.push(FieldError::required(&path.child("parameterNotFoundAction"), "")),
        _ => rules::one_of(errors, param, path, "parameterNotFoundAction", &["Deny", "Allow"]),
    }
}
