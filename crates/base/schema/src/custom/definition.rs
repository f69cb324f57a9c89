//! The rules of a CustomResourceDefinition's own fields.

use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use super::check;

/// Selectable fields of one version.
const SELECTABLE_MAX: usize = 8;
const APPROVAL: &str = "api-approved.kubernetes.io";

/// Every complaint about a definition.
pub fn validate_definition(definition: &Value) -> FieldErrors {
    let mut errors = validate_spec(definition);
    errors.extend(stored_versions(definition));
    errors.extend(approval(definition));
    errors
}

/// Warnings for whoever writes a definition.
pub fn warnings(definition: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for version in list(&definition["spec"], "versions") {
        check::unknown_formats(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    found.into_iter().map(|format| format!("unrecognized format {format:?}")).collect()
}

/// What a change of a definition may not do.
pub fn validate_definition_update(new: &Value, old: &Value) -> FieldErrors {
    let conditions = list(&old["status"], "conditions");
    let established = conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True");
    let spec = FieldPath::new("spec");
    let fixed: &[(&str, FieldPath)] = &[
        ("/spec/group", spec.child("group")),
        ("/spec/names/plural", spec.child("names").child("plural")),
        ("/spec/scope", spec.child("scope")),
        ("/spec/names/kind", spec.child("names").child("kind")),
    ];
    let fixed = if established { fixed } else { &fixed[..2] };
    let changed = fixed.iter().filter(|(at, _)| new.pointer(at) != old.pointer(at));
    let error = |(at, path): &(&str, FieldPath)| {
        FieldError::invalid(path, new.pointer(at).cloned().unwrap_or_default(), "field is immutable")
    };
    changed.map(error).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn validate_spec(definition: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&definition["spec"], FieldPath::new("spec"));
    let (group, plural) = (text(spec, "group"), text(&spec["names"], "plural"));
    let name = text(&definition["metadata"], "name");
    if name != format!("{plural}.{group}") {
        let place = FieldPath::new("metadata").child("name");
        errors.push(FieldError::invalid(&place, name, r#"must be spec.names.plural+"."+spec.group"#));
    }
    let broken = names::dns_subdomain(group);
    let place = path.child("group");
    if group.is_empty() {
        errors.push(FieldError::required(&place, ""));
    } else if !broken.is_empty() {
        errors.push(FieldError::invalid(&place, group, broken.join(",")));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid(&place, group, "should be a domain with at least one dot"));
    }
    match text(spec, "scope") {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(FieldError::required(&path.child("scope"), "")),
        other => errors.push(FieldError::not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"])),
    }
    if spec["preserveUnknownFields"] == true {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&path.child("preserveUnknownFields"), true, why));
    }
    versions(spec, &path.child("versions"), &mut errors);
    accepted_names(&spec["names"], &path.child("names"), &mut errors);
    conversion(&spec["conversion"], &path.child("conversion"), &mut errors);
    errors
}

fn versions(spec: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let versions = list(spec, "versions");
    for (at, version) in versions.iter().enumerate() {
        one_version(version, &path.index(at), errors);
    }
    let names: Vec<&str> = versions.iter().map(|version| text(version, "name")).collect();
    if names.iter().enumerate().any(|(at, name)| names[..at].contains(name)) {
        errors.push(FieldError::invalid(path, versions, "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(path, versions, why));
    }
}

fn one_version(version: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let name = text(version, "name");
    let broken = names::dns1035_label(name);
    if !broken.is_empty() {
        errors.push(FieldError::invalid(&path.child("name"), name, broken.join(",")));
    }
    let warning = text(version, "deprecationWarning");
    if !version["deprecationWarning"].is_null() {
        if version["deprecated"] != true {
            let why = "can only be set for deprecated versions";
            errors.push(FieldError::invalid(&path.child("deprecationWarning"), warning, why));
        } else if warning.is_empty() {
            let why = "must not be an empty string";
            errors.push(FieldError::invalid(&path.child("deprecationWarning"), warning, why));
        }
    }
    let schema = &version["schema"]["openAPIV3Schema"];
    let place = path.child("schema").child("openAPIV3Schema");
    match schema {
        Value::Null => errors.push(FieldError::required(&place, "")),
        schema => errors.extend(check::check_schema(schema, &place)),
    }
    subresources(&version["subresources"], &path.child("subresources"), errors);
    for (at, column) in list(version, "additionalPrinterColumns").iter().enumerate() {
        one_column(column, &path.child("additionalPrinterColumns").index(at), errors);
    }
    selectable(version, &path.child("selectableFields"), errors);
}

fn subresources(value: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let scale = &value["scale"];
    if scale.is_null() {
        return;
    }
    let under = |parents: &[&str], text: &str| parents.iter().any(|parent| text.starts_with(parent));
    let rules: [(&str, &[&str], bool, &str); 3] = [
        ("specReplicasPath", &[".spec."], true, "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], true, "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], false, "should be a json path under either .spec or .status"),
    ];
    for (key, parents, required, why) in rules {
        let place = path.child(&format!("scale.{key}"));
        match text(scale, key) {
            "" if required => errors.push(FieldError::required(&place, "")),
            "" => {}
            text if text.contains(['[', ']', '*']) || text.contains("..") => {
                errors.push(FieldError::invalid(&place, text, "must be a json path in the dot notation"));
            }
            text if !under(parents, text) => errors.push(FieldError::invalid(&place, text, why)),
            _ => {}
        }
    }
}

fn one_column(column: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    if text(column, "name").is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    let (kind, format) = (text(column, "type"), text(column, "format"));
    let why = format!("must be one of {}", TYPES.join(","));
    match kind {
        "" => errors.push(FieldError::required(&path.child("type"), &why)),
        kind if !TYPES.contains(&kind) => errors.push(FieldError::invalid(&path.child("type"), kind, why)),
        _ => {}
    }
    if !format.is_empty() && !FORMATS.contains(&format) {
        let why = format!("must be one of {}", FORMATS.join(","));
        errors.push(FieldError::invalid(&path.child("format"), format, why));
    }
    let place = path.child("JSONPath");
    match text(column, "jsonPath") {
        "" => errors.push(FieldError::required(&place, "")),
        text if !text.starts_with('.') => {
            errors.push(FieldError::invalid(&place, text, "must be a simple json path starting with ."));
        }
        _ => {}
    }
}

fn selectable(version: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let fields = list(version, "selectableFields");
    let mut seen: Vec<&str> = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let place = path.index(at).child("jsonPath");
        let wanted = text(field, "jsonPath");
        if wanted.is_empty() {
            errors.push(FieldError::required(&place, ""));
            continue;
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        let steps = wanted.trim_start_matches('.').split('.');
        let found = steps.fold(schema, |schema, step| &schema["properties"][step]);
        if wanted.starts_with(".metadata") {
            errors.push(FieldError::invalid(&place, wanted, "must not point to fields in metadata"));
        } else if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(&place, wanted, why));
        }
        if seen.contains(&wanted) {
            errors.push(FieldError::duplicate(&place, wanted));
        }
        seen.push(wanted);
    }
    if seen.len() > SELECTABLE_MAX {
        errors.push(FieldError::too_many(path, seen.len(), SELECTABLE_MAX));
    }
}

fn accepted_names(value: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let mut label = |place: FieldPath, text: &str, prefix: &str| {
        let broken = names::dns1035_label(&text.to_lowercase());
        if text.is_empty() {
            errors.push(FieldError::required(&place, ""));
        } else if !broken.is_empty() || prefix.is_empty() && text != text.to_lowercase() {
            let broken = if broken.is_empty() { names::dns1035_label(text) } else { broken };
            errors.push(FieldError::invalid(&place, text, format!("{prefix}{}", broken.join(","))));
        }
    };
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    label(path.child("plural"), text(value, "plural"), "");
    label(path.child("singular"), text(value, "singular"), "");
    label(path.child("kind"), text(value, "kind"), MIXED);
    label(path.child("listKind"), text(value, "listKind"), MIXED);
    for key in ["shortNames", "categories"] {
        for (at, name) in list(value, key).iter().enumerate() {
            label(path.child(key).index(at), name.as_str().unwrap_or_default(), "");
        }
    }
    let (kind, list_kind) = (text(value, "kind"), text(value, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        errors.push(FieldError::invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same"));
    }
}

fn conversion(value: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let webhook = &value["webhook"];
    let client = path.child("webhookClientConfig");
    match text(value, "strategy") {
        "None" | "" => {
            if !webhook["clientConfig"].is_null() {
                let why = "should not be set when strategy is not set to Webhook";
                errors.push(FieldError::forbidden(&client, why));
            }
        }
        "Webhook" => {
            let config = &webhook["clientConfig"];
            if config.is_null() {
                errors.push(FieldError::required(&client, "required when strategy is set to Webhook"));
            } else if config["url"].is_null() == config["service"].is_null() {
                errors.push(FieldError::required(&client, "exactly one of url or service is required"));
            }
            let reviews = list(webhook, "conversionReviewVersions");
            let place = path.child("conversionReviewVersions");
            if reviews.is_empty() {
                errors.push(FieldError::required(&place, ""));
            } else if !reviews.iter().any(|one| matches!(one.as_str(), Some("v1" | "v1beta1"))) {
                let why = "must include at least one of v1, v1beta1";
                errors.push(FieldError::invalid(&place, reviews, why));
            }
        }
        other => errors.push(FieldError::not_supported(&path.child("strategy"), other, &["None", "Webhook"])),
    }
}

fn stored_versions(definition: &Value) -> FieldErrors {
    let path = FieldPath::new("status").child("storedVersions");
    let stored = list(&definition["status"], "storedVersions");
    if stored.is_empty() {
        return vec![FieldError::invalid(&path, stored, "must have at least one stored version")];
    }
    let versions = list(&definition["spec"], "versions");
    let mut errors = Vec::new();
    let storage = versions.iter().find(|version| version["storage"] == true).map(|version| &version["name"]);
    if let Some(storage) = storage.filter(|storage| !stored.contains(storage)) {
        let why = format!("must have the storage version {}", storage.as_str().unwrap_or_default());
        errors.push(FieldError::invalid(&path, stored, why));
    }
    for (at, one) in stored.iter().enumerate().filter(|(_, one)| !versions.iter().any(|v| v["name"] == **one)) {
        let name = one.as_str().unwrap_or_default();
        let why = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        errors.push(FieldError::invalid(&path.index(at), name, why));
    }
    errors
}

/// Groups of the Kubernetes community need an approval to be named.
fn approval(definition: &Value) -> FieldErrors {
    let group = text(&definition["spec"], "group");
    let protected = ["k8s.io", "kubernetes.io"];
    if !protected.iter().any(|own| group == *own || group.ends_with(&format!(".{own}"))) {
        return Vec::new();
    }
    let path = FieldPath::new("metadata").child("annotations").key(APPROVAL);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let given = text(&definition["metadata"]["annotations"], APPROVAL);
    let is_url = given.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty());
    match given {
        "" => {
            let why = format!("protected groups must have approval annotation {APPROVAL:?}, {see}");
            vec![FieldError::required(&path, &why)]
        }
        given if given.starts_with("unapproved") || is_url => Vec::new(),
        given => {
            let why = format!(
                "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason starting with \"unapproved\", {see}"
            );
            vec![FieldError::invalid(&path, given, why)]
        }
    }
}
