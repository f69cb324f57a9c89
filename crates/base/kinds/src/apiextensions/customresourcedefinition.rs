//! apiextensions.k8s.io/v1 CustomResourceDefinition: a kind defined at run time.

use serde_json::{Value, json};

use super::V1;
use crate::json::{child, ensure, fill, fill_empty, flag, list, set, text};
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["crd", "crds"]),
        categories: texts(&["api-extensions"]),
        has_status: true,
        has_generation: true,
        default,
        prepare_create,
        prepare_update,
        validate: schema::custom::validate_definition,
        validate_update: schema::custom::validate_definition_update,
        warnings: schema::custom::warnings,
        ..Kind::cluster(V1, "CustomResourceDefinition", "customresourcedefinitions")
    }
}

fn default(definition: &mut Value) {
    let Some(spec) = child(definition, "spec") else { return };
    fill_empty(spec, "scope", "Namespaced");
    if let Some(conversion) = ensure(spec, "conversion") {
        fill_empty(conversion, "strategy", "None");
        if let Some(service) =
            child(conversion, "webhook").and_then(|w| child(w, "clientConfig")).and_then(|c| child(c, "service"))
        {
            fill(service, "port", 443);
        }
    }
    let Some(names) = child(spec, "names") else { return };
    let kind = text(names, "kind").to_owned();
    fill_empty(names, "singular", kind.to_lowercase());
    fill_empty(names, "listKind", format!("{kind}List"));
}

/// The storage version joins the versions that objects may be stored in.
fn prepare_update(definition: &mut Value, _: &Value) {
    let versions = list(definition, "spec.versions").iter().filter(|version| flag(version, "storage"));
    let Some(name) = versions.map(|version| version["name"].clone()).next() else { return };
    let Some(status) = ensure(definition, "status") else { return };
    let mut stored = list(status, "storedVersions").to_vec();
    if !stored.contains(&name) {
        stored.push(name);
        set(status, "storedVersions", stored);
    }
}

fn prepare_create(definition: &mut Value) {
    let stored = list(definition, "spec.versions").iter().filter(|version| flag(version, "storage"));
    let stored: Vec<Value> = stored.map(|version| version["name"].clone()).collect();
    let status = json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": stored});
    set(definition, "status", status);
}
