//! Rules of ConfigMaps and Secrets: keys, size, what a type needs, immutability.

use base64::{Engine, engine::general_purpose::STANDARD};
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use crate::json::{flag, map, text};
use crate::rules;

/// Most bytes that the values of one object may have together.
const BYTES_MAX: usize = 1024 * 1024;

fn keys(errors: &mut FieldErrors, object: &Value, field: &str) {
    for (key, _) in map(object, field).into_iter().flatten() {
        rules::name(errors, &FieldPath::new(field).key(key), key, names::config_map_key);
    }
}

fn decoded_size(value: &Value) -> usize {
    value.as_str().and_then(|text| STANDARD.decode(text).ok()).map_or(0, |bytes| bytes.len())
}

pub fn validate_config_map(object: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let empty = serde_json::Map::new();
    let (data, binary) = (map(object, "data").unwrap_or(&empty), map(object, "binaryData").unwrap_or(&empty));
    for key in data.keys() {
        let path = FieldPath::new("data").key(key);
        rules::name(&mut errors, &path, key, names::config_map_key);
        if binary.contains_key(key) {
            errors.push(FieldError::invalid(&path, key.as_str(), "duplicate of key present in binaryData"));
        }
    }
    keys(&mut errors, object, "binaryData");
    let size: usize = data.values().map(|value| value.as_str().map_or(0, str::len)).sum();
    if size + binary.values().map(decoded_size).sum::<usize>() > BYTES_MAX {
        errors.push(FieldError::too_long(&FieldPath::new(""), BYTES_MAX));
    }
    errors
}

pub fn validate_secret(secret: &Value) -> FieldErrors {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let mut errors = Vec::new();
    keys(&mut errors, secret, "data");
    let data = &secret["data"];
    if map(secret, "data").is_some_and(|data| data.values().map(decoded_size).sum::<usize>() > BYTES_MAX) {
        errors.push(FieldError::too_long(&FieldPath::new("data"), BYTES_MAX));
    }
    let mut need = |key: &str| {
        if data[key].is_null() {
            errors.push(FieldError::required(&FieldPath::new("data").key(key), ""));
        }
    };
    match text(secret, "type") {
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/basic-auth" if data["username"].is_null() && data["password"].is_null() => {
            need("username");
            need("password");
        }
        "kubernetes.io/dockercfg" => docker_config(&mut errors, data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => docker_config(&mut errors, data, ".dockerconfigjson"),
        "kubernetes.io/service-account-token"
            if secret["metadata"]["annotations"][ACCOUNT].as_str().unwrap_or_default().is_empty() =>
        {
            let path = FieldPath::new("metadata").child("annotations").key(ACCOUNT);
            errors.push(FieldError::required(&path, ""));
        }
        _ => {}
    }
    errors
}

fn docker_config(errors: &mut FieldErrors, data: &Value, key: &str) {
    let path = FieldPath::new("data").key(key);
    let Some(text) = data[key].as_str() else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    let content = STANDARD.decode(text).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&content) {
        errors.push(FieldError::invalid(&path, "<secret contents redacted>", error.to_string()));
    }
}

pub fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    const WHY: &str = "field is immutable when `immutable` is set";
    let mut errors = Vec::new();
    if flag(old, "immutable") {
        if !flag(new, "immutable") {
            errors.push(FieldError::forbidden(&FieldPath::new("immutable"), WHY));
        }
        for field in ["data", "binaryData"].iter().filter(|field| new[**field] != old[**field]) {
            errors.push(FieldError::forbidden(&FieldPath::new(field), WHY));
        }
    }
    errors
}

pub fn validate_secret_update(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = validate_update(new, old);
    rules::immutable(&mut errors, &new["type"], &old["type"], &FieldPath::new("type"));
    errors
}
