//! Whether an `openAPIV3Schema` is structural: complete in itself, so that pruning, defaults and apply can rely on it.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Map, Value};

use super::{compile, expression_check, fit, validate};
use crate::model::Shape;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Where in a schema a node stands.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Every complaint about the schema of one version, in upstream's words.
pub fn check_schema(schema: &Value, path: &FieldPath) -> FieldErrors {
    let mut errors = Vec::new();
    forms(schema, path, &mut errors);
    if schema["nullable"] == true {
        errors.push(FieldError::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let mut structural = Vec::new();
    node(schema, Level::Root, path, &mut structural);
    structural.sort_by_key(ToString::to_string);
    errors.extend(structural);
    if errors.is_empty() {
        defaults(schema, true, path, &mut errors);
        expression_check::compiled("self", schema, path, &mut errors);
    }
    errors
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema[key].as_str().unwrap_or_default()
}

fn flag(schema: &Value, key: &str) -> bool {
    schema[key] == true
}

fn map<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema[key].as_object().into_iter().flatten()
}

fn list<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Everything directly below a node, value rules included, with where it stands.
fn below<'a>(schema: &'a Value, path: &FieldPath) -> Vec<(&'a Value, FieldPath)> {
    let mut all = Vec::new();
    for key in ["items", "additionalProperties", "not"] {
        if schema[key].is_object() {
            all.push((&schema[key], path.child(key)));
        }
    }
    all.extend(map(schema, "properties").map(|(name, one)| (one, path.child("properties").key(name))));
    for key in ["allOf", "anyOf", "oneOf"] {
        all.extend(list(schema, key).iter().enumerate().map(|(at, one)| (one, path.child(key).index(at))));
    }
    all
}

/// What OpenAPI allows and Kubernetes does not, anywhere in a schema.
fn forms(schema: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let mut forbid = |key: &str, why: &str| errors.push(FieldError::forbidden(&path.child(key), why));
    if flag(schema, "uniqueItems") {
        forbid("uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    }
    let has_properties = map(schema, "properties").next().is_some();
    if has_properties && matches!(&schema["additionalProperties"], Value::Object(_) | Value::Bool(false)) {
        forbid("additionalProperties", "additionalProperties and properties are mutual exclusive");
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if !schema[key].is_null() && schema[key] != "" {
            forbid(key, &format!("{key} is not supported"));
        }
    }
    if text(schema, "type") == "null" {
        forbid("type", "type cannot be set to null, use nullable as an alternative");
    }
    if schema["items"].is_array() {
        forbid("items", "items must be a schema object and not an array");
    }
    let of = text(schema, "type");
    if !of.is_empty() && of != "null" && !TYPES.contains(&of) {
        errors.push(FieldError::not_supported(&path.child("type"), of, &TYPES));
    }
    if let (false, Err(error)) = (text(schema, "pattern").is_empty(), regex::Regex::new(text(schema, "pattern"))) {
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default();
        let why = format!("must be a valid regular expression, but isn't: {last}");
        errors.push(FieldError::invalid(&path.child("pattern"), text(schema, "pattern"), why));
    }
    extensions(schema, path, errors);
    expression_check::forms(schema, path, errors);
    for (one, path) in below(schema, path) {
        forms(one, &path, errors);
    }
}

/// The rules of `x-kubernetes-*`.
fn extensions(schema: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
    const LIST_TYPE: &str = "x-kubernetes-list-type";
    const MAP_TYPE: &str = "x-kubernetes-map-type";
    const KEYS: &str = "x-kubernetes-list-map-keys";
    if schema[PRESERVE] == false {
        errors.push(FieldError::invalid(&path.child(PRESERVE), false, "must be true or undefined"));
    }
    let of_type = |wanted: &str, extension: &str, errors: &mut FieldErrors| {
        let why = format!("must be {wanted} if {extension} is specified");
        match text(schema, "type") {
            "" => errors.push(FieldError::required(&path.child("type"), &why)),
            found if found != wanted => errors.push(FieldError::invalid(&path.child("type"), found, why)),
            _ => {}
        }
    };
    if !schema[MAP_TYPE].is_null() {
        of_type("object", MAP_TYPE, errors);
        if !matches!(text(schema, MAP_TYPE), "atomic" | "granular") {
            let known = ["atomic".to_owned(), "granular".to_owned()];
            errors.push(FieldError::unsupported(&path.child(MAP_TYPE), text(schema, MAP_TYPE), &known));
        }
    }
    let kind = text(schema, LIST_TYPE);
    if !schema[LIST_TYPE].is_null() {
        of_type("array", LIST_TYPE, errors);
        let known = ["atomic".to_owned(), "set".to_owned(), "map".to_owned()];
        if !known.iter().any(|one| one == kind) {
            errors.push(FieldError::unsupported(&path.child(LIST_TYPE), kind, &known));
        }
    }
    let items = &schema["items"];
    if kind == "set" {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let place = path.child("items");
        match text(items, "type") {
            "array" if text(items, LIST_TYPE) != "atomic" && !items[LIST_TYPE].is_null() => {
                errors.push(FieldError::invalid(&place.child(LIST_TYPE), items[LIST_TYPE].clone(), why));
            }
            "object" if text(items, MAP_TYPE) != "atomic" => {
                errors.push(FieldError::invalid(&place.child(MAP_TYPE), items[MAP_TYPE].clone(), why));
            }
            _ => {}
        }
    }
    let keys = list(schema, KEYS);
    if !keys.is_empty() && kind != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match kind {
            "" => FieldError::required(&path.child(LIST_TYPE), why),
            _ => FieldError::invalid(&path.child(LIST_TYPE), kind, why),
        });
    }
    if kind == "map" {
        keyed(schema, keys, path, errors);
    }
}

/// A list of objects that are known by keys.
fn keyed(schema: &Value, keys: &[Value], path: &FieldPath, errors: &mut FieldErrors) {
    let place = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.push(FieldError::required(&place, "must not be empty if x-kubernetes-list-type is map"));
    }
    let items = &schema["items"];
    if items.is_null() {
        let why = "must have a schema if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&path.child("items"), why));
        return;
    }
    if text(items, "type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&path.child("items").child("type"), text(items, "type"), why));
    }
    if flag(items, "nullable") {
        let why = "cannot be nullable when x-kubernetes-list-type is map";
        errors.push(FieldError::forbidden(&path.child("items").child("nullable"), why));
    }
    for (at, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let property = &items["properties"][name];
        let below = path.child("items").child("properties").key(name);
        if keys[..at].contains(key) {
            errors.push(FieldError::invalid(&place, keys, "must not contain duplicate entries"));
        }
        if property.is_null() {
            errors.push(FieldError::invalid(&place, keys, "entries must all be names of item properties"));
            continue;
        }
        if matches!(text(property, "type"), "array" | "object") {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.push(FieldError::invalid(&below.child("type"), text(property, "type"), why));
        }
        if property["default"].is_null() && !list(items, "required").contains(key) {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(&below.child("default"), why));
        }
        if flag(property, "nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(&below.child("nullable"), why));
        }
    }
}

/// A node that gives structure: typed, and with everything that its value rules speak of.
fn node(schema: &Value, level: Level, path: &FieldPath, errors: &mut FieldErrors) {
    let of = text(schema, "type");
    let (embedded, either) = (flag(schema, "x-kubernetes-embedded-resource"), flag(schema, INT_OR_STRING));
    let preserves = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let at_type = path.child("type");
    if of == "array" && schema["items"].is_null() {
        errors.push(FieldError::required(&path.child("items"), "must be specified"));
    }
    if level == Level::Root && !schema["additionalProperties"].is_null() {
        errors.push(FieldError::forbidden(&path.child("additionalProperties"), "must not be used at the root"));
    }
    if embedded && of != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match of {
            "" => FieldError::required(&at_type, why),
            of => FieldError::invalid(&at_type, of, why),
        });
    } else if of.is_empty() && !either && !preserves {
        let what = match level {
            Level::Root => "at the root",
            Level::Item => "for specified array items",
            Level::Field => "for specified object fields",
        };
        errors.push(FieldError::required(&at_type, &format!("must not be empty {what}")));
    }
    if level == Level::Root && !of.is_empty() && of != "object" {
        errors.push(FieldError::invalid(&at_type, of, "must be object at the root"));
    }
    if either && !of.is_empty() {
        let why = "must be empty if x-kubernetes-int-or-string is true";
        errors.push(FieldError::invalid(&at_type, of, why));
    }
    if embedded {
        if !schema["additionalProperties"].is_null() {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(FieldError::forbidden(&path.child("additionalProperties"), why));
        }
        if !preserves && map(schema, "properties").next().is_none() {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            errors.push(FieldError::required(&path.child("properties"), why));
        }
    }
    if embedded || level == Level::Root {
        resource_fields(schema, level, path, errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (at, one) in list(schema, key).iter().enumerate() {
            value_rules(one, schema, either, path, &path.child(key).index(at), errors);
        }
    }
    if schema["not"].is_object() {
        value_rules(&schema["not"], schema, either, path, &path.child("not"), errors);
    }
    if schema["items"].is_object() {
        node(&schema["items"], Level::Item, &path.child("items"), errors);
    }
    if schema["additionalProperties"].is_object() {
        node(&schema["additionalProperties"], Level::Field, &path.child("additionalProperties"), errors);
    }
    for (name, one) in map(schema, "properties") {
        node(one, Level::Field, &path.child("properties").key(name), errors);
    }
}

const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// The fields that every resource has may not be made into something else.
fn resource_fields(schema: &Value, level: Level, path: &FieldPath, errors: &mut FieldErrors) {
    let properties = &schema["properties"];
    let place = |name: &str| path.child("properties").key(name);
    for name in ["kind", "apiVersion"] {
        let found = text(&properties[name], "type");
        if !properties[name].is_null() && found != "string" {
            errors.push(FieldError::invalid(&place(name).child("type"), found, "must be string"));
        }
    }
    let metadata = &properties["metadata"];
    if metadata.is_null() {
        return;
    }
    if text(metadata, "type") != "object" {
        errors.push(FieldError::invalid(&place("metadata").child("type"), text(metadata, "type"), "must be object"));
    }
    let only_names = map(metadata, "properties").all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let others = metadata.as_object().into_iter().flatten().any(|(key, _)| {
        key.starts_with("x-kubernetes-") || matches!(key.as_str(), "additionalProperties" | "items" | "nullable")
    });
    if level == Level::Root && (!only_names || others) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(&place("metadata"), why));
    }
}

/// A node below `allOf` and its kin: it restricts values and gives no structure of its own.
fn value_rules(
    rules: &Value,
    structure: &Value,
    either: bool,
    path: &FieldPath,
    at: &FieldPath,
    errors: &mut FieldErrors,
) {
    let either_type = either && matches!(text(rules, "type"), "integer" | "string");
    let empty = |key: &str| match &rules[key] {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || key == "type" && either_type,
        _ => false,
    };
    let forbidden = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        (INT_OR_STRING, "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    for (key, why) in forbidden.into_iter().filter(|(key, _)| !empty(key)) {
        errors.push(FieldError::forbidden(&at.child(key), why));
    }
    let missing =
        |place: FieldPath, from: FieldPath| FieldError::required(&place, &format!("because it is defined in {from}"));
    for (name, one) in map(rules, "properties") {
        let own = &structure["properties"][name];
        let (place, from) = (path.child("properties").key(name), at.child("properties").key(name));
        if own.is_null() {
            errors.push(missing(place, from));
        } else {
            value_rules(one, own, flag(own, INT_OR_STRING), &place, &from, errors);
        }
    }
    if rules["items"].is_object() {
        let own = &structure["items"];
        let (place, from) = (path.child("items"), at.child("items"));
        if own.is_null() {
            errors.push(missing(place, from));
        } else {
            value_rules(&rules["items"], own, flag(own, INT_OR_STRING), &place, &from, errors);
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (place, one) in list(rules, key).iter().enumerate() {
            value_rules(one, structure, either, path, &at.child(key).index(place), errors);
        }
    }
    if rules["not"].is_object() {
        value_rules(&rules["not"], structure, either, path, &at.child("not"), errors);
    }
}

/// Defaults must be values that the schema itself accepts.
fn defaults(schema: &Value, root: bool, path: &FieldPath, errors: &mut FieldErrors) {
    let default = &schema["default"];
    if !default.is_null() {
        let place = path.child("default");
        let whole = Value::Object(wrapped(schema));
        let ty = compile("default", Some(&whole));
        let mut object = serde_json::json!({"x": default});
        let gone = fit::prune(&ty, &mut object);
        if !gone.is_empty() {
            errors.push(FieldError::invalid(&place, default.clone(), "must not have unknown fields"));
        }
        let inner = ty.field("x").map(|field| &field.ty).filter(|inner| !matches!(inner.shape, Shape::Deduced));
        for error in inner.map(|inner| validate(inner, default)).unwrap_or_default() {
            let field = match error.field.as_str() {
                "" => place.clone(),
                field if field.starts_with('[') => FieldPath::new(&format!("{place}{field}")),
                field => place.child(field),
            };
            errors.push(FieldError { field, ..error });
        }
    }
    let nodes = below(schema, path).into_iter();
    for (one, path) in nodes.filter(|(_, path)| !root || !path.as_str().ends_with("properties[metadata]")) {
        defaults(one, false, &path, errors);
    }
}

fn wrapped(schema: &Value) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("type".to_owned(), "object".into());
    map.insert("properties".to_owned(), serde_json::json!({"x": schema}));
    map
}

/// Formats of strings that mean nothing here, for the warnings of a definition's writer.
pub(super) fn unknown_formats(schema: &Value, found: &mut Vec<String>) {
    let format = text(schema, "format");
    let of_text = matches!(text(schema, "type"), "" | "string");
    let known = super::format::KNOWN.contains(&super::format::normalized(format).as_str()) || format == "k8s-long-name";
    if of_text && !format.is_empty() && !known && !found.iter().any(|one| one == format) {
        found.push(format.to_owned());
    }
    for (one, _) in below(schema, &FieldPath::default()) {
        unknown_formats(one, found);
    }
}
