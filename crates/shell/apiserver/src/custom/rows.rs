//! From a CustomResourceDefinition to the rows that serve its kind, one for each version.

use std::borrow::Cow;
use std::sync::Arc;

use kinds::{Kind, Scope, Subresource};
use meta::{GroupResource, Gvk};
use schema::TypeRef;
use schema::custom::compile;
use serde_json::{Value, json};

use super::{Converter, CustomType, PrinterColumn, ScalePaths};
use crate::registry::Served;

pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The resource that a definition defines.
pub fn resource(definition: &Value) -> GroupResource {
    GroupResource::new(text(definition, "/spec/group").to_owned(), text(definition, "/spec/names/plural").to_owned())
}

/// The rows of all versions, served or not; the caller picks.
pub fn rows(definition: &Value) -> Vec<(bool, Served)> {
    let versions = list(definition, "/spec/versions");
    let kind = text(definition, "/spec/names/kind");
    let group = text(definition, "/spec/group");
    let schemas: Vec<TypeRef> =
        versions.iter().map(|version| compile(kind, version.pointer("/schema/openAPIV3Schema"))).collect();
    let storage = versions.iter().position(|version| version["storage"] == true).unwrap_or_default();
    let Some(stored) = versions.get(storage) else { return Vec::new() };
    let storage_gvk = Gvk::new(group.to_owned(), text(stored, "/name").to_owned(), kind.to_owned());
    let changed = definition.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(1) > 1;
    let indexed: Vec<String> = versions.iter().flat_map(selectable).collect();
    let converter = Converter::of(definition).map(Arc::new);
    let row = |(version, schema): (&Value, &TypeRef)| {
        let custom = CustomType {
            list_kind: text(definition, "/spec/names/listKind").to_owned(),
            selectable: selectable(version),
            indexed: indexed.clone(),
            schema: Some(schema.clone()),
            storage_schema: schemas.get(storage).cloned(),
            document: document(version),
            scale: scale(version),
            columns: columns(version),
            reshapes: changed || versions.len() > 1,
            converter: converter.clone(),
            terminating: definition.pointer("/metadata/deletionTimestamp").is_some(),
            deprecation: deprecation(group, kind, version),
        };
        let served = Served {
            kind: Arc::new(row_of(definition, version)),
            storage: storage_gvk.clone(),
            stored_as: resource(definition),
            custom: Some(Arc::new(custom)),
        };
        (version["served"] == true, served)
    };
    versions.iter().zip(&schemas).map(row).collect()
}

fn row_of(definition: &Value, version: &Value) -> Kind {
    let owned = |path: &str| Cow::Owned(text(definition, path).to_owned());
    let words = |path: &str| -> Cow<'static, [Cow<'static, str>]> {
        list(definition, path).iter().filter_map(Value::as_str).map(|word| Cow::Owned(word.to_owned())).collect()
    };
    let mut subresources = Vec::new();
    if version.pointer("/subresources/scale").is_some() {
        let verbs = &["get", "patch", "update"];
        subresources.push(Subresource::speaking("scale", Gvk::new("autoscaling", "v1", "Scale"), verbs));
    }
    Kind {
        group: owned("/spec/group"),
        version: Cow::Owned(text(version, "/name").to_owned()),
        kind: owned("/spec/names/kind"),
        plural: owned("/spec/names/plural"),
        singular: owned("/spec/names/singular"),
        short_names: words("/spec/names/shortNames"),
        categories: words("/spec/names/categories"),
        scope: if text(definition, "/spec/scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        has_status: version.pointer("/subresources/status").is_some(),
        has_generation: true,
        subresources: Cow::Owned(subresources),
        columns: Cow::Owned(vec![kinds::columns::name()]),
        ..Kind::namespaced(("", ""), "", "")
    }
}

/// The author's schema with the fields that selectors may name.
fn document(version: &Value) -> Value {
    let mut document = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
    let fields: Vec<Value> = selectable(version).into_iter().map(|path| json!({"fieldPath": path})).collect();
    if !fields.is_empty() {
        document["x-kubernetes-selectable-fields"] = Value::Array(fields);
    }
    document
}

fn selectable(version: &Value) -> Vec<String> {
    let fields = list(version, "/selectableFields").iter();
    fields.map(|field| text(field, "/jsonPath").trim_start_matches('.').to_owned()).collect()
}

fn columns(version: &Value) -> Vec<PrinterColumn> {
    let own = list(version, "/additionalPrinterColumns");
    if own.is_empty() { vec![PrinterColumn::age()] } else { own.iter().map(PrinterColumn::new).collect() }
}

fn scale(version: &Value) -> Option<ScalePaths> {
    let scale = version.pointer("/subresources/scale")?;
    let pointer = |key: &str| text(scale, key).replace('.', "/");
    let selector = pointer("/labelSelectorPath");
    Some(ScalePaths {
        spec_replicas: pointer("/specReplicasPath"),
        status_replicas: pointer("/statusReplicasPath"),
        selector: (!selector.is_empty()).then_some(selector),
    })
}

fn deprecation(group: &str, kind: &str, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    let own = version["deprecationWarning"].as_str().map(str::to_owned);
    Some(own.unwrap_or_else(|| format!("{group}/{} {kind} is deprecated", text(version, "/name"))))
}
