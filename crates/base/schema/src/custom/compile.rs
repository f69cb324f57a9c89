//! From `openAPIV3Schema` to the schema model.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Custom, Expressions, Rules};
use crate::model::{Field, ListKind, Omit, Patch, Shape, Struct, StructRef, Type, TypeRef};
use crate::table::builtin;

/// Compiles the schema of a custom resource's version. The schema has passed [`super::check_schema`]; where it has
/// not, the result is lenient rather than wrong. `None` is a version without a schema: everything is kept.
pub fn compile(kind: &str, schema: Option<&Value>) -> TypeRef {
    let empty = Map::new();
    let map = schema.and_then(Value::as_object);
    let ty = node(kind, map.unwrap_or(&empty), true);
    match map {
        Some(_) => ty,
        None => {
            let custom = Custom { preserves_unknown: true, embedded: true, ..Custom::default() };
            Arc::new(Type { shape: root_of(kind, Vec::new()), custom: Some(Box::new(custom)) })
        }
    }
}

fn node(name: &str, schema: &Map<String, Value>, root: bool) -> TypeRef {
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or_default();
    let custom = Custom {
        preserves_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: root || flag("x-kubernetes-embedded-resource"),
        nullable: flag("nullable"),
        default: schema.get("default").filter(|default| !default.is_null()).cloned(),
        rules: Rules::own(schema),
        expressions: Expressions::of(schema),
        has_expressions: false,
    };
    let shape = shape(name, schema, &custom);
    let has_expressions = custom.expressions.is_some() || expressions_below(&shape);
    Arc::new(Type { shape, custom: Some(Box::new(Custom { has_expressions, ..custom })) })
}

fn expressions_below(shape: &Shape) -> bool {
    match shape {
        Shape::Struct { of: StructRef::Own(own), .. } => own.fields.iter().any(|field| field.ty.has_expressions()),
        Shape::Map { value, .. } => value.has_expressions(),
        Shape::List { item, .. } => item.has_expressions(),
        _ => false,
    }
}

fn shape(name: &str, schema: &Map<String, Value>, custom: &Custom) -> Shape {
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return Shape::IntOrString;
    }
    let atomic = text("x-kubernetes-map-type") == "atomic";
    match text("type") {
        "boolean" => Shape::Bool,
        "integer" => Shape::Int64,
        "number" => Shape::Double,
        "string" => Shape::String,
        "array" => {
            let empty = Map::new();
            let item = schema.get("items").and_then(Value::as_object).unwrap_or(&empty);
            Shape::List { kind: list_kind(schema), item: node(name, item, false) }
        }
        "object" => object(name, schema, custom, atomic),
        _ => Shape::Deduced,
    }
}

fn object(name: &str, schema: &Map<String, Value>, custom: &Custom, atomic: bool) -> Shape {
    let properties = schema.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty());
    match schema.get("additionalProperties") {
        Some(Value::Object(value)) if properties.is_none() => {
            return Shape::Map { atomic, value: node(name, value, false) };
        }
        Some(Value::Bool(true)) if properties.is_none() => {
            return Shape::Map { atomic, value: Type::new(Shape::Deduced) };
        }
        _ => {}
    }
    let required = |field: &str| custom.rules.required.iter().any(|one| **one == *field);
    let fields = properties.into_iter().flatten().map(|(field, schema)| {
        let empty = Map::new();
        let ty = match (custom.embedded, field.as_str()) {
            (true, "metadata") => metadata(schema),
            _ => node(field, schema.as_object().unwrap_or(&empty), false),
        };
        one_field(field, ty, required(field))
    });
    let fields: Vec<Field> = fields.collect();
    if custom.embedded {
        return root_of(name, fields);
    }
    structure(name, fields, atomic)
}

/// An object that is a resource: its apiVersion, kind and metadata are implied.
fn root_of(name: &str, mut fields: Vec<Field>) -> Shape {
    let mut add = |field: &str, ty: TypeRef| {
        if !fields.iter().any(|known| *known.name == *field) {
            fields.push(one_field(field, ty, false));
        }
    };
    add("apiVersion", Type::new(Shape::String));
    add("kind", Type::new(Shape::String));
    add("metadata", metadata(&Value::Null));
    structure(name, fields, false)
}

fn structure(name: &str, mut fields: Vec<Field>, atomic: bool) -> Shape {
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let own = Struct { name: name.into(), gvk: None, atomic: false, fields: fields.into() };
    Shape::Struct { of: StructRef::Own(Arc::new(own)), atomic }
}

/// Metadata is that of every object; a schema may only restrict its name.
fn metadata(schema: &Value) -> TypeRef {
    let builtin = builtin().by_name("apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let shape = builtin.as_ref().map_or(Shape::Deduced, |meta| match &meta.shape {
        Shape::Struct { of, atomic } => Shape::Struct { of: of.clone(), atomic: *atomic },
        _ => Shape::Deduced,
    });
    let custom = Custom { preserves_unknown: true, rules: Rules::whole(schema), ..Custom::default() };
    Arc::new(Type { shape, custom: Some(Box::new(custom)) })
}

fn one_field(name: &str, ty: TypeRef, required: bool) -> Field {
    Field {
        name: name.into(),
        required,
        omit: Omit::Null,
        patch: Patch::default(),
        default: ty.custom.as_ref().and_then(|custom| custom.default.clone()),
        number: 0,
        values: Box::default(),
        ty,
    }
}

fn list_kind(schema: &Map<String, Value>) -> ListKind {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            ListKind::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect())
        }
        Some("atomic") => ListKind::Atomic,
        _ => ListKind::Unstated,
    }
}
