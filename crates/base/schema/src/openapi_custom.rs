//! Schemas of custom kinds in OpenAPI documents: what clients of each dialect can read, with the fields of every resource.

use serde_json::{Map, Value, json};

const PRESERVES: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const SELECTABLE: &str = "x-kubernetes-selectable-fields";
/// What only the author reads.
const UNPUBLISHED: [&str; 4] = ["$schema", "id", "example", "externalDocs"];
/// Combinations of schemas, which kubectl's reader of v2 does not know.
const JUNCTORS: [&str; 4] = ["allOf", "oneOf", "anyOf", "not"];

fn flag(schema: &Map<String, Value>, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

/// A schema as its kind publishes it; `resource` are the fields that every resource has, and those of an embedded one.
/// Where nothing but the type of the root is known, or clients would refuse unknown fields, the type stands alone.
pub(crate) fn published(document: &Value, v2: bool, resource: &Map<String, Value>) -> Value {
    let bare = || {
        let mut bare = json!({"type": "object"});
        if let Some(fields) = document.get(SELECTABLE) {
            bare[SELECTABLE] = fields.clone();
        }
        bare
    };
    let Some(schema) = document.as_object().filter(|schema| schema.keys().any(|key| key != SELECTABLE)) else {
        return bare();
    };
    if v2 && flag(schema, PRESERVES) {
        return bare();
    }
    let mut schema = schema.clone();
    node(&mut schema, v2, resource);
    add_resource_fields(&mut schema, resource);
    Value::Object(schema)
}

fn add_resource_fields(schema: &mut Map<String, Value>, resource: &Map<String, Value>) {
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.extend(resource.clone());
    }
}

fn node(schema: &mut Map<String, Value>, v2: bool, resource: &Map<String, Value>) {
    UNPUBLISHED.iter().for_each(|key| drop(schema.remove(*key)));
    if v2 {
        simplify(schema);
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().filter_map(Value::as_object_mut).for_each(|below| node(below, v2, resource));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get_mut(key).and_then(Value::as_object_mut) {
            node(below, v2, resource);
        }
    }
    if flag(schema, EMBEDDED) && !(v2 && flag(schema, PRESERVES)) {
        add_resource_fields(schema, resource);
        let mut required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        for field in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known == field) {
                required.push(field.into());
            }
        }
        schema.insert("required".to_owned(), Value::Array(required));
    }
}

/// Takes out what readers of v2 would misunderstand: they take a listed field for the only ones allowed, and a type
/// for one that null does not have.
fn simplify(schema: &mut Map<String, Value>) {
    JUNCTORS.iter().for_each(|key| drop(schema.remove(*key)));
    require_no_nullable(schema);
    if flag(schema, "nullable") {
        ["type", "nullable", "items", "properties"].iter().for_each(|key| drop(schema.remove(*key)));
    }
    let preserves = flag(schema, PRESERVES);
    if preserves {
        ["items", "properties"].iter().for_each(|key| drop(schema.remove(*key)));
    }
    let of = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    if of == "array" && !schema.contains_key("items") || of == "object" && preserves {
        schema.remove("type");
    }
}

fn require_no_nullable(schema: &mut Map<String, Value>) {
    let nullable = |below: Option<&Value>| below.and_then(|below| below.get("nullable")) == Some(&Value::Bool(true));
    let any = nullable(schema.get("additionalProperties"));
    let properties = schema.get("properties").cloned().unwrap_or_default();
    let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) else { return };
    required.retain(|field| !any && !nullable(field.as_str().and_then(|field| properties.get(field))));
    if required.is_empty() {
        schema.remove("required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(document: &Value) -> (Value, Value) {
        let resource = json!({"kind": {"type": "string"}});
        let resource = resource.as_object().unwrap();
        (published(document, true, resource), published(document, false, resource))
    }

    #[test]
    fn who_keeps_unknown_fields_publishes_only_its_type_in_v2() {
        let preserving = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-selectable-fields": [{"fieldPath": "a"}], "description": "d"});
        let (v2, v3) = both(&preserving);
        assert_eq!(v2, json!({"type": "object", "x-kubernetes-selectable-fields": [{"fieldPath": "a"}]}));
        assert_eq!((&v3["description"], &v3["properties"]["kind"]["type"]), (&json!("d"), &json!("string")));
        let nothing = json!({"type": "object"});
        assert_eq!(both(&Value::Null), (nothing.clone(), nothing));
    }

    #[test]
    fn v2_holds_what_its_readers_know() {
        let document = json!({"type": "object", "properties": {"a": {"type": "object", "required": ["b", "c"],
            "anyOf": [{"required": ["b"]}], "properties": {
                "b": {"type": "string", "nullable": true},
                "c": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                "d": {"type": "object", "x-kubernetes-embedded-resource": true, "example": 1}}}}});
        let (v2, v3) = both(&document);
        let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"kind": {"type": "string"}}, "required": ["kind", "apiVersion"]});
        let wanted = json!({"type": "object", "required": ["c"], "properties": {
            "b": {}, "d": embedded,
            "c": {"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": true}}}});
        assert_eq!(v2["properties"]["a"], wanted);
        assert_eq!(v3["properties"]["a"]["required"], json!(["b", "c"]));
        assert_eq!(v3["properties"]["a"]["properties"]["d"], embedded);
    }
}
