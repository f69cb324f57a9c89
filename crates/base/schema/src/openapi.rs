//! OpenAPI documents, v2 for everything and v3 per group and version, built from the rows when somebody asks.

use std::collections::BTreeMap;

use meta::{GroupVersion, Gvk};
use serde_json::{Map, Value, json};

use crate::describe::Descriptions;
use crate::model::{Field, ListKind, Shape, Struct, Type};
use crate::openapi_custom::published;
use crate::table::builtin;

/// One kind as it is served: what the documents need to know about its paths and, for custom kinds, its schema.
#[derive(Clone, Debug)]
pub struct Served {
    pub gvk: Gvk,
    pub plural: String,
    pub namespaced: bool,
    /// The verbs of discovery: `get`, `list`, `create`, ...
    pub verbs: Vec<String>,
    pub subresources: Vec<ServedSubresource>,
    /// The schema of a custom kind; a built-in one has its row.
    pub custom: Option<Value>,
}

#[derive(Clone, Debug)]
pub struct ServedSubresource {
    pub name: String,
    /// What its bodies are: the parent's kind, `Scale`, `Binding`, ...
    pub gvk: Gvk,
    pub verbs: Vec<String>,
}

/// The two dialects differ in where definitions live and in what may stand beside a reference.
#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, name: &str) -> Value {
        let place = if self == Self::V2 { "definitions" } else { "components/schemas" };
        json!({"$ref": format!("#/{place}/{name}")})
    }
}

/// The document at `/openapi/v2`. Large: compress it, and do not keep the value.
pub fn v2_document(served: &[Served], version: &str) -> Value {
    let mut writer = Writer::new(Dialect::V2);
    let paths = writer.paths(served);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": writer.definitions,
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
        "security": [{"BearerToken": []}],
    })
}

/// The document at `/openapi/v3/apis/GROUP/VERSION`; kinds of other versions are left out.
pub fn v3_document(served: &[Served], of: &GroupVersion, version: &str) -> Value {
    let mut writer = Writer::new(Dialect::V3);
    let own: Vec<Served> = served.iter().filter(|kind| kind.gvk.group_version() == *of).cloned().collect();
    let paths = writer.paths(&own);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {"schemas": writer.definitions},
    })
}

/// The path prefix of a group and version: `api/v1`, `apis/apps/v1`.
pub fn prefix(of: &GroupVersion) -> String {
    if of.group.is_empty() { format!("api/{}", of.version) } else { format!("apis/{}/{}", of.group, of.version) }
}

struct Writer {
    dialect: Dialect,
    descriptions: Descriptions,
    definitions: Map<String, Value>,
}

impl Writer {
    fn new(dialect: Dialect) -> Self {
        Self { dialect, descriptions: Descriptions::read(), definitions: Map::new() }
    }

    fn paths(&mut self, served: &[Served]) -> Map<String, Value> {
        let mut paths = Map::new();
        for kind in served {
            let body = self.definition_of(kind);
            let list = self.list_of(kind, &body);
            let all = format!("/{}/{}", prefix(&kind.gvk.group_version()), kind.plural);
            let scoped = match kind.namespaced {
                true => format!("/{}/namespaces/{{namespace}}/{}", prefix(&kind.gvk.group_version()), kind.plural),
                false => all.clone(),
            };
            let has = |verb: &str| kind.verbs.iter().any(|have| have == verb);
            let mut collection = Vec::new();
            if has("list") {
                collection.push(("get", "list", &list));
            }
            if has("create") {
                collection.push(("post", "post", &body));
            }
            if has("deletecollection") {
                collection.push(("delete", "deletecollection", &list));
            }
            if kind.namespaced && has("list") {
                paths.insert(all, self.path((kind, &kind.gvk), "", &[("get", "list", &list)]));
            }
            paths.insert(scoped.clone(), self.path((kind, &kind.gvk), &scoped, &collection));
            let one = format!("{scoped}/{{name}}");
            let methods = [("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")];
            let item: Vec<_> =
                methods.iter().filter(|(verb, _)| has(verb)).map(|(_, method)| (*method, *method, &body)).collect();
            if !item.is_empty() {
                paths.insert(one.clone(), self.path((kind, &kind.gvk), &one, &item));
            }
            for sub in &kind.subresources {
                let name = match sub.gvk == kind.gvk {
                    true => body.clone(),
                    false => self.builtin_name(&sub.gvk).unwrap_or_else(|| body.clone()),
                };
                let methods = [("get", "get"), ("create", "post"), ("update", "put"), ("patch", "patch")];
                let item: Vec<_> = methods
                    .iter()
                    .filter(|(verb, _)| sub.verbs.iter().any(|have| have == verb))
                    .map(|(_, method)| (*method, *method, &name))
                    .collect();
                let place = format!("{one}/{}", sub.name);
                paths.insert(place.clone(), self.path((kind, &sub.gvk), &place, &item));
            }
        }
        paths
    }

    /// One path with its operations: (HTTP method, action, definition of the body).
    fn path(&self, of: (&Served, &Gvk), template: &str, operations: &[(&str, &str, &String)]) -> Value {
        let (kind, gvk) = of;
        let mut path = Map::new();
        for (method, action, name) in operations {
            let reference = self.dialect.reference(name);
            let writes = matches!(*method, "post" | "put" | "patch");
            let mut parameters = Vec::new();
            if writes || *method == "delete" {
                parameters.extend(["dryRun", "fieldManager", "fieldValidation"].map(|name| self.query(name, "string")));
            }
            if *method == "patch" {
                parameters.push(self.query("force", "boolean"));
            }
            let patch_types = [
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ];
            // Custom kinds know no strategic merge; clients choose their patch by this list.
            let known = if kind.custom.is_some() { patch_types.len() - 1 } else { patch_types.len() };
            let patch_types = &patch_types[..known];
            let mut operation = json!({
                "operationId": format!("{action}{}", template.replace(['/', '{', '}', '.'], "_")),
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": {"group": gvk.group, "version": gvk.version, "kind": gvk.kind},
            });
            if self.dialect == Dialect::V2 {
                if writes {
                    let schema = if *method == "patch" { json!({"type": "object"}) } else { reference.clone() };
                    parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
                }
                let consumes = if *method == "patch" {
                    patch_types.to_vec()
                } else {
                    vec!["application/json", "application/yaml"]
                };
                operation["consumes"] = json!(consumes);
                operation["produces"] = json!(["application/json", "application/yaml"]);
                operation["responses"] = json!({"200": {"description": "OK", "schema": reference}});
            } else {
                if writes {
                    let types: &[&str] = if *method == "patch" { patch_types } else { &["application/json"] };
                    let schema = if *method == "patch" { json!({"type": "object"}) } else { reference.clone() };
                    let content: Map<String, Value> =
                        types.iter().map(|one| ((*one).to_owned(), json!({"schema": schema}))).collect();
                    operation["requestBody"] = json!({"content": content});
                }
                let content = json!({"application/json": {"schema": reference}});
                operation["responses"] = json!({"200": {"description": "OK", "content": content}});
            }
            // Clients that write a document again leave empty lists out.
            if !parameters.is_empty() {
                operation["parameters"] = Value::Array(parameters);
            }
            path.insert((*method).to_owned(), operation);
        }
        let names = ["namespace", "name"].into_iter().filter(|name| template.contains(&format!("{{{name}}}")));
        let parameters: Vec<Value> = names.map(|name| self.parameter(name, "path", true, "string")).collect();
        if !parameters.is_empty() {
            path.insert("parameters".into(), Value::Array(parameters));
        }
        Value::Object(path)
    }

    fn query(&self, name: &str, of: &str) -> Value {
        self.parameter(name, "query", false, of)
    }

    fn parameter(&self, name: &str, place: &str, required: bool, of: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place});
        if required {
            parameter["required"] = true.into();
        }
        match self.dialect {
            Dialect::V2 => parameter["type"] = of.into(),
            Dialect::V3 => parameter["schema"] = json!({"type": of}),
        }
        parameter
    }

    fn builtin_name(&mut self, gvk: &Gvk) -> Option<String> {
        let of = builtin().type_of(gvk)?.as_struct()?;
        self.define(of);
        Some(full_name(of))
    }

    /// Writes the definition of a served kind and answers its name.
    fn definition_of(&mut self, kind: &Served) -> String {
        let Some(custom) = &kind.custom else {
            return self.builtin_name(&kind.gvk).unwrap_or_else(|| self.custom(&kind.gvk, &Value::Null));
        };
        self.custom(&kind.gvk, custom)
    }

    fn custom(&mut self, gvk: &Gvk, document: &Value) -> String {
        let reversed = gvk.group.split('.').rev().collect::<Vec<_>>().join(".");
        let name = format!("{reversed}.{}.{}", gvk.version, gvk.kind);
        let resource = self.resource_fields();
        let mut schema = published(document, self.dialect == Dialect::V2, &resource);
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": gvk.group, "version": gvk.version, "kind": gvk.kind}]);
        self.definitions.insert(name.clone(), schema);
        name
    }

    /// The fields of every resource. What they mean is the same for every kind; any built-in one tells.
    fn resource_fields(&mut self) -> Map<String, Value> {
        let any = builtin().type_of(&Gvk::new("", "v1", "ConfigMap"));
        let fields = ["apiVersion", "kind", "metadata"].into_iter().filter_map(|name| any?.field(name));
        fields.map(|field| (field.name.to_string(), self.property("io.k8s.api.core.v1.ConfigMap", field))).collect()
    }

    fn list_of(&mut self, kind: &Served, body: &str) -> String {
        let list = Gvk { kind: format!("{}List", kind.gvk.kind).into(), ..kind.gvk.clone() };
        if let Some(name) = self.builtin_name(&list) {
            return name;
        }
        let meta = builtin().by_name("apimachinery.pkg.apis.meta.v1.ListMeta").map(|meta| self.value(&meta));
        let properties = json!({
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": meta,
            "items": {"type": "array", "items": self.dialect.reference(body)},
        });
        let name = format!("{body}List");
        let gvk = json!([{"group": list.group, "version": list.version, "kind": list.kind}]);
        let schema = json!({"type": "object", "required": ["items"], "properties": properties, "x-kubernetes-group-version-kind": gvk});
        self.definitions.insert(name.clone(), schema);
        name
    }

    /// Writes a struct and everything below it.
    fn define(&mut self, of: &Struct) {
        let name = full_name(of);
        if self.definitions.contains_key(&name) {
            return;
        }
        // Claimed before its fields are walked, because types may contain themselves.
        self.definitions.insert(name.clone(), Value::Null);
        let mut schema = json!({"type": "object"});
        if let Some(text) = self.descriptions.of_type(&name) {
            schema["description"] = text.into();
        }
        let properties: Map<String, Value> =
            of.fields.iter().map(|field| (field.name.to_string(), self.property(&name, field))).collect();
        if !properties.is_empty() {
            schema["properties"] = Value::Object(properties);
        }
        let required: Vec<&str> = of.fields.iter().filter(|field| field.required).map(|field| &*field.name).collect();
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if of.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(gvk) = &of.gvk {
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": gvk.group, "version": gvk.version, "kind": gvk.kind}]);
        }
        self.definitions.insert(name, schema);
    }

    fn property(&mut self, owner: &str, field: &Field) -> Value {
        let mut out = self.value(&field.ty);
        let mut beside = BTreeMap::new();
        if let Some(text) = self.descriptions.of_field(owner, &field.name) {
            beside.insert("description", Value::String(text));
        }
        if field.patch.merge || field.patch.retain_keys {
            let words = [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys")];
            let words: Vec<_> = words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
            beside.insert("x-kubernetes-patch-strategy", words.join(",").into());
        }
        if let Some(key) = &field.patch.key {
            beside.insert("x-kubernetes-patch-merge-key", key.to_string().into());
        }
        if let (Dialect::V3, Some(default)) = (self.dialect, &field.default) {
            beside.insert("default", default.clone());
        }
        if !field.values.is_empty() {
            beside.insert("enum", json!(field.values));
        }
        // OpenAPI v3 ignores what stands beside a reference.
        if self.dialect == Dialect::V3 && out.get("$ref").is_some() && !beside.is_empty() {
            out = json!({"allOf": [out]});
        }
        for (key, value) in beside {
            out[key] = value;
        }
        out
    }

    fn value(&mut self, ty: &Type) -> Value {
        match &ty.shape {
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::String => json!({"type": "string"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Any | Shape::Deduced => json!({}),
            Shape::Quantity => self.scalar("api.resource.Quantity", &["string", "number"], ""),
            Shape::IntOrString => self.scalar("util.intstr.IntOrString", &["string", "integer"], "int-or-string"),
            Shape::Time => self.scalar("apis.meta.v1.Time", &["string"], "date-time"),
            Shape::MicroTime => self.scalar("apis.meta.v1.MicroTime", &["string"], "date-time"),
            Shape::Raw => self.scalar("runtime.RawExtension", &["object"], ""),
            Shape::FieldsV1 => self.scalar("apis.meta.v1.FieldsV1", &["object"], ""),
            Shape::Struct { of, .. } => {
                self.define(of.get());
                self.dialect.reference(&full_name(of.get()))
            }
            Shape::List { kind, item } => {
                let mut list = json!({"type": "array", "items": self.value(item)});
                let word = match kind {
                    ListKind::Unstated => return list,
                    ListKind::Atomic => "atomic",
                    ListKind::Set => "set",
                    ListKind::Map(keys) => {
                        list["x-kubernetes-list-map-keys"] = json!(keys);
                        "map"
                    }
                };
                list["x-kubernetes-list-type"] = word.into();
                list
            }
            Shape::Map { atomic, value } => {
                let mut map = json!({"type": "object", "additionalProperties": self.value(value)});
                if *atomic {
                    map["x-kubernetes-map-type"] = "atomic".into();
                }
                map
            }
        }
    }

    /// A named scalar; v3 says which forms it takes, v2 names the first.
    fn scalar(&mut self, name: &str, forms: &[&str], format: &str) -> Value {
        let name = format!("io.k8s.apimachinery.pkg.{name}");
        if !self.definitions.contains_key(&name) {
            let mut schema = match (self.dialect, forms) {
                (Dialect::V3, [_, _, ..]) => {
                    json!({"oneOf": forms.iter().map(|one| json!({"type": one})).collect::<Vec<_>>()})
                }
                _ => json!({"type": forms[0]}),
            };
            if !format.is_empty() {
                schema["format"] = format.into();
            }
            if let Some(text) = self.descriptions.of_type(&name) {
                schema["description"] = text.into();
            }
            self.definitions.insert(name.clone(), schema);
        }
        self.dialect.reference(&name)
    }
}

fn full_name(of: &Struct) -> String {
    format!("io.k8s.{}", of.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployments() -> Served {
        let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
        let gvk = Gvk::new("apps", "v1", "Deployment");
        Served {
            plural: "deployments".into(),
            namespaced: true,
            verbs: verbs.map(Into::into).to_vec(),
            subresources: vec![ServedSubresource {
                name: "status".into(),
                gvk: gvk.clone(),
                verbs: vec!["get".into(), "patch".into()],
            }],
            gvk,
            custom: None,
        }
    }

    /// Every `$ref` of a document leads somewhere.
    fn check_references(document: &Value, at: &Value) {
        match at {
            Value::Array(items) => items.iter().for_each(|item| check_references(document, item)),
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let target = document.pointer(reference.trim_start_matches('#'));
                    assert!(target.is_some_and(Value::is_object), "{reference}");
                }
                map.values().for_each(|item| check_references(document, item));
            }
            _ => {}
        }
    }

    #[test]
    fn documents_hold_what_kubectl_reads() {
        let served = [deployments()];
        let v3 = v3_document(&served, &GroupVersion::new("apps", "v1"), "v1.36.0");
        check_references(&v3, &v3);
        let spec = &v3["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(spec["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["x-kubernetes-list-map-keys"][0], "name");
        assert!(spec["description"].as_str().is_some_and(|text| text.contains("containers")), "{spec}");
        let patch = &v3["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert!(
            patch["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "fieldValidation"))
        );
        let v2 = v2_document(&served, "v1.36.0");
        check_references(&v2, &v2);
        assert_eq!(
            v2["definitions"]["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"][0]["group"],
            "apps"
        );
    }

    /// Clients that read and write a document leave empty lists out, and expect to have read the same.
    #[test]
    fn no_list_is_empty() {
        fn check(at: &Value) {
            assert!(at.as_array().is_none_or(|list| !list.is_empty()));
            at.as_array().into_iter().flatten().for_each(check);
            at.as_object().into_iter().flatten().for_each(|(_, below)| check(below));
        }
        let gvk = Gvk::new("example.com", "v1", "Widget");
        let custom = Some(json!({"type": "object"}));
        let served = [Served { gvk, plural: "widgets".into(), namespaced: false, custom, ..deployments() }];
        check(&v3_document(&served, &GroupVersion::new("example.com", "v1"), "v1.36.0"));
    }

    /// kubectl sends a strategic merge to whoever is said to take one.
    #[test]
    fn custom_kinds_take_no_strategic_merge() {
        let gvk = Gvk::new("example.com", "v1", "Widget");
        let custom = Some(json!({"type": "object"}));
        let widgets = Served { gvk, plural: "widgets".into(), custom, ..deployments() };
        let served = [deployments(), widgets];
        let v2 = v2_document(&served, "v1.36.0");
        for (path, group, strategic) in [
            ("/apis/apps/v1/namespaces/{namespace}/deployments/{name}", "apps", true),
            ("/apis/example.com/v1/namespaces/{namespace}/widgets/{name}", "example.com", false),
        ] {
            let v3 = v3_document(&served, &GroupVersion::new(group, "v1"), "v1.36.0");
            let known = "application/strategic-merge-patch+json";
            let content = &v3["paths"][path]["patch"]["requestBody"]["content"];
            assert!(content["application/merge-patch+json"].is_object(), "{path}: {content}");
            assert_eq!(content.get(known).is_some(), strategic, "{path}: {content}");
            let consumes = v2["paths"][path]["patch"]["consumes"].as_array().cloned().unwrap_or_default();
            assert_eq!(consumes.contains(&json!(known)), strategic, "{path}: {consumes:?}");
        }
    }

    #[test]
    fn custom_kinds_bring_their_schema() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object"}}});
        let gvk = Gvk::new("example.com", "v1", "Widget");
        let served = [Served { gvk, plural: "widgets".into(), custom: Some(schema), ..deployments() }];
        let v2 = v2_document(&served, "v1.36.0");
        check_references(&v2, &v2);
        let widget = &v2["definitions"]["com.example.v1.Widget"]["properties"];
        assert_eq!(widget["spec"]["type"], "object");
        assert!(widget["metadata"]["description"].as_str().unwrap().starts_with("Standard object's metadata."));
    }

    /// The table against the typed API crate: the same types have the same fields, and what the table requires is required.
    #[test]
    fn the_table_agrees_with_the_typed_api() {
        let typed = Descriptions::read();
        let (mut compared, mut required_here_only) = (0, Vec::new());
        for of in builtin().structs() {
            let Some(schema) = typed.schema(&full_name(of)) else { continue };
            let Some(properties) = schema["properties"].as_object() else { continue };
            let mut theirs: Vec<&str> = properties.keys().map(String::as_str).collect();
            theirs.sort_unstable();
            let ours: Vec<&str> = of.fields.iter().map(|field| &*field.name).collect();
            assert_eq!(ours, theirs, "{}", of.name);
            // The typed crate requires a few fields more, those that its Rust types do not make optional.
            let needed = schema["required"].as_array();
            let ours = of.fields.iter().filter(|field| field.required && &*field.name != "metadata");
            for field in ours {
                let theirs = needed.is_some_and(|all| all.iter().any(|one| *one == *field.name));
                if !theirs {
                    required_here_only.push(format!("{}.{}", of.short_name(), field.name));
                }
            }
            compared += 1;
        }
        // The one field that the typed crate makes optional although the API requires it.
        assert_eq!(required_here_only, ["Event.eventTime"]);
        assert!(compared > 350, "only {compared} types are in both");
    }
}
