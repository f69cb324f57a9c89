//! What the server itself does to the `metadata` of every kind; the rules for it are in `metadata_rules`.

use meta::{ApiResult, FieldError, FieldErrors, FieldPath, Status};
use rand::Rng;
use serde_json::{Map, Value};

use crate::limits::GENERATED_BASE_CHARS_MAX;
use crate::registry::Served;

/// Letters of generated name suffixes: no vowels, so no words.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CHARS: usize = 5;

pub fn metadata(value: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
    value.get("metadata").and_then(Value::as_object).unwrap_or_else(|| EMPTY.get_or_init(Map::new))
}

/// The metadata of an object, made if it is missing.
pub fn metadata_mut(value: &mut Value) -> Option<&mut Map<String, Value>> {
    let fields = value.as_object_mut()?;
    fields.entry("metadata").or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    metadata(value).get(field).and_then(Value::as_str).unwrap_or("")
}

pub fn finalizers(value: &Value) -> Vec<String> {
    let list = metadata(value).get("finalizers").and_then(Value::as_array);
    list.map(|list| list.iter().filter_map(|f| f.as_str().map(str::to_owned)).collect()).unwrap_or_default()
}

pub fn set_finalizers(value: &mut Value, finalizers: &[String]) {
    let Some(metadata) = metadata_mut(value) else { return };
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), finalizers.to_vec().into());
    }
}

pub fn now() -> String {
    timestamp(jiff::Timestamp::now())
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub fn timestamp(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Takes the namespace from the URL; another one in the body is refused.
pub fn settle_namespace(served: &Served, url_namespace: &str, value: &mut Value) -> ApiResult<()> {
    let own = text(value, "namespace").to_owned();
    if !served.is_namespaced() {
        if let Some(metadata) = metadata_mut(value) {
            metadata.remove("namespace");
        }
        return Ok(());
    }
    if !own.is_empty() && own != url_namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if let Some(metadata) = metadata_mut(value) {
        metadata.insert("namespace".to_owned(), url_namespace.into());
    }
    Ok(())
}

/// Fills what the server decides about a new object.
pub fn start(served: &Served, value: &mut Value) {
    let Some(metadata) = metadata_mut(value) else { return };
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"] {
        metadata.remove(field);
    }
    drop_empty(metadata);
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), now().into());
    if served.kind.has_generation {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// Go's encoders leave out what is empty.
fn drop_empty(metadata: &mut Map<String, Value>) {
    metadata.retain(|key, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty() || key == "managedFields",
        _ => true,
    });
}

/// Puts a fresh suffix behind `generateName`; true if the name was generated.
pub fn generate_name(value: &mut Value) -> bool {
    let base: String = text(value, "generateName").chars().take(GENERATED_BASE_CHARS_MAX).collect();
    if base.is_empty() {
        return false;
    }
    let mut rng = rand::rng();
    let letter = |_| char::from(SUFFIX_LETTERS[rng.random_range(0..SUFFIX_LETTERS.len())]);
    let suffix: String = (0..SUFFIX_CHARS).map(letter).collect();
    if let Some(metadata) = metadata_mut(value) {
        metadata.insert("name".to_owned(), format!("{base}{suffix}").into());
    }
    true
}

/// Keeps what an update may not change, silently or with an error, as upstream does.
pub fn carry_over(served: &Served, new: &mut Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let old_metadata = metadata(old);
    let root = FieldPath::new("metadata");
    let Some(metadata) = metadata_mut(new) else { return errors };
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "uid", "generateName"] {
        let given = metadata.get(field).filter(|value| !value.is_null()).cloned();
        let kept = old_metadata.get(field);
        if field == "uid" && given.as_ref().is_some_and(|given| Some(given) != kept) {
            errors.push(FieldError::invalid(&root.child(field), given.unwrap_or_default(), "field is immutable"));
        }
        match kept {
            Some(kept) => drop(metadata.insert(field.to_owned(), kept.clone())),
            None => drop(metadata.remove(field)),
        }
    }
    metadata.remove("selfLink");
    drop_empty(metadata);
    match old_metadata.get("generation") {
        Some(generation) => drop(metadata.insert("generation".to_owned(), generation.clone())),
        None => drop(metadata.remove("generation")),
    }
    if old_metadata.contains_key("deletionTimestamp") {
        let before = finalizers(old);
        for added in finalizers(new).iter().filter(|finalizer| !before.contains(finalizer)) {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added:?}}}"
            );
            errors.push(FieldError::forbidden(&root.child("finalizers"), &why));
        }
    }
    if served.kind.has_generation && desired_changed(served, new, old) {
        let generation = old_metadata.get("generation").and_then(Value::as_i64).unwrap_or(0) + 1;
        if let Some(metadata) = metadata_mut(new) {
            metadata.insert("generation".to_owned(), generation.into());
        }
    }
    errors
}

/// Whether anything outside metadata and status differs; a status that anybody may write is desired as well.
fn desired_changed(served: &Served, new: &Value, old: &Value) -> bool {
    let status_counts = served.custom.is_some() && !served.kind.has_status;
    let empty = Map::new();
    let parts = |value: &Value| -> Map<String, Value> {
        let fields = value.as_object().unwrap_or(&empty);
        let desired = fields.iter().filter(|(key, _)| match key.as_str() {
            "metadata" => false,
            "status" => status_counts,
            _ => true,
        });
        desired.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    parts(new) != parts(old)
}
