//! Whether the rules of a definition can be used: they are compiled against the types of the schema around them.

use cel::Type as Cel;
use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use super::cel_types::cel_type;
use super::cost::{Sizes, estimate};
use super::expressions::{compile_rule, env};
use super::{compile, cost};
use crate::model::Type;

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const RULES: &str = "x-kubernetes-validations";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// What can be said of a rule without its schema.
pub(super) fn forms(schema: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let rules = schema[RULES].as_array().map(Vec::as_slice).unwrap_or_default();
    for (at, rule) in rules.iter().enumerate() {
        let place = path.child(RULES).index(at);
        let (expression, message) = (text(rule, "rule").trim(), text(rule, "message"));
        let mut invalid =
            |key: &str, why: &str| errors.push(FieldError::invalid(&place.child(key), text(rule, key), why));
        if expression.is_empty() {
            errors.push(FieldError::required(&place.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            invalid("message", "must be non-empty if specified");
        } else if message.trim().contains('\n') {
            invalid("message", "must not contain line breaks");
        } else if expression.contains('\n') && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.push(FieldError::required(&place.child("message"), why));
        }
        let computed = text(rule, "messageExpression");
        if !computed.is_empty() && computed.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(FieldError::required(&place.child("messageExpression"), why));
        }
        if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
            errors.push(FieldError::not_supported(&place.child("reason"), reason, &REASONS));
        }
        let field = text(rule, "fieldPath");
        let mut invalid = |why: &str| errors.push(FieldError::invalid(&place.child("fieldPath"), field, why));
        if !field.is_empty() && field.trim().is_empty() {
            invalid("must be non-empty if specified");
        }
        if field.contains('\n') {
            invalid("must not contain line breaks");
        }
        if !field.is_empty() && !leads_somewhere(schema, field) {
            invalid("must be a valid path");
        }
    }
}

/// Whether a `fieldPath` names a field that the schema has.
fn leads_somewhere(schema: &Value, path: &str) -> bool {
    let mut at = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let (name, after) = if let Some(inside) = rest.strip_prefix("['") {
            let Some((name, after)) = inside.split_once("']") else { return false };
            (name.to_owned(), after)
        } else if let Some(inside) = rest.strip_prefix('.') {
            let end = inside.find(['.', '[']).unwrap_or(inside.len());
            (inside[..end].to_owned(), &inside[end..])
        } else {
            return false;
        };
        let below =
            if at["properties"][&name].is_object() { &at["properties"][&name] } else { &at["additionalProperties"] };
        if !below.is_object() {
            return false;
        }
        at = below;
        rest = after;
    }
    true
}

/// Compiles every rule of a schema that is structural.
pub(super) fn compiled(kind: &str, schema: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let ty = compile(kind, Some(schema));
    if !ty.has_expressions() {
        return;
    }
    let mut total = cost::Total::default();
    visit(schema, &ty, path, None, 1.0, &mut total, errors);
    total.report(path, errors);
}

/// `uncorrelated` is the place above which elements cannot be told apart; `many` how often this place may occur.
fn visit(
    schema: &Value,
    ty: &Type,
    path: &FieldPath,
    uncorrelated: Option<&FieldPath>,
    many: f64,
    total: &mut cost::Total,
    errors: &mut FieldErrors,
) {
    let rules = schema[RULES].as_array().map(Vec::as_slice).unwrap_or_default();
    let itself = (!rules.is_empty()).then(|| cel_type(ty, "self"));
    for (at, rule) in rules.iter().enumerate() {
        let Some(itself) = &itself else { break };
        let place = path.child(RULES).index(at);
        one_rule(rule, schema, itself, &place, uncorrelated, many, total, errors);
    }
    if let Some(properties) = schema["properties"].as_object() {
        let atomic = schema["x-kubernetes-map-type"] == "atomic";
        let inner = if atomic { uncorrelated.or(Some(path)) } else { uncorrelated };
        for (name, one) in properties {
            if let Some(ty) = ty.child(name).filter(|ty| ty.has_expressions()) {
                visit(one, ty, &path.child("properties").key(name), inner, many, total, errors);
            }
        }
    }
    if let (true, Some(ty)) = (schema["additionalProperties"].is_object(), ty.child("*")) {
        let atomic = schema["x-kubernetes-map-type"] == "atomic";
        let inner = if atomic { uncorrelated.or(Some(path)) } else { uncorrelated };
        let many = many * Sizes::entries(schema);
        visit(&schema["additionalProperties"], ty, &path.child("additionalProperties"), inner, many, total, errors);
    }
    if let (true, Some(ty)) = (schema["items"].is_object(), ty.item()) {
        let keyed = text(schema, "x-kubernetes-list-type") == "map";
        let inner = if keyed { uncorrelated } else { uncorrelated.or(Some(path)) };
        let many = many * Sizes::items(schema);
        visit(&schema["items"], ty, &path.child("items"), inner, many, total, errors);
    }
}

fn one_rule(
    rule: &Value,
    schema: &Value,
    itself: &Cel,
    place: &FieldPath,
    uncorrelated: Option<&FieldPath>,
    many: f64,
    total: &mut cost::Total,
    errors: &mut FieldErrors,
) {
    let optional = rule["optionalOldSelf"] == true;
    let env = env(itself, optional);
    match compile_rule(text(rule, "rule"), &env, &Cel::Bool) {
        Err(why) => errors.push(FieldError::invalid(&place.child("rule"), shown(rule), why)),
        Ok(program) => {
            let cost = estimate(&program, schema) * many;
            total.add(&place.child("rule"), cost, "estimated rule cost", errors);
            let uses_old = program.uses("oldSelf");
            if let Some(above) = uncorrelated.filter(|_| uses_old) {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
                errors.push(FieldError::invalid(&place.child("rule"), text(rule, "rule"), why));
            }
            if !uses_old && !rule["optionalOldSelf"].is_null() {
                let why = "may not be set if oldSelf is not used in rule";
                errors.push(FieldError::invalid(&place.child("optionalOldSelf"), optional, why));
            }
        }
    }
    let message = text(rule, "messageExpression");
    if !message.trim().is_empty()
        && let Err(why) = compile_rule(message, &env, &Cel::String)
    {
        let why = why.replacen("compilation failed", "messageExpression compilation failed", 1);
        errors.push(FieldError::invalid(&place.child("messageExpression"), shown(rule), why));
    }
}

/// A rule as upstream prints the whole of it.
fn shown(rule: &Value) -> Value {
    let mut whole = serde_json::Map::new();
    for (go, key) in [("Rule", "rule"), ("Message", "message"), ("MessageExpression", "messageExpression")] {
        whole.insert(go.to_owned(), text(rule, key).into());
    }
    whole.insert("Reason".to_owned(), rule["reason"].clone());
    whole.insert("FieldPath".to_owned(), text(rule, "fieldPath").into());
    whole.insert("OptionalOldSelf".to_owned(), rule["optionalOldSelf"].clone());
    Value::Object(whole)
}
