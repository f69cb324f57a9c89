//! Fields of an apply configuration that its schema does not declare: nobody could own them.

use schema::{Shape, Type};
use serde_json::Value;

use crate::fieldset::{element, step};

/// The paths of undeclared fields as upstream prints them: `.spec.containers[name="a"].colour`.
///
/// ```
/// let pod = schema::builtin().type_of(&meta::Gvk::new("", "v1", "Pod")).unwrap();
/// let config = serde_json::json!({"spec": {"containers": [{"name": "a", "colour": 1}], "size": 2}});
/// assert_eq!(objects::undeclared(pod, &config), [r#".spec.containers[name="a"].colour"#, ".spec.size"]);
/// ```
pub fn undeclared(ty: &Type, config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(ty, config, "", &mut found);
    found
}

fn walk(ty: &Type, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let of = ty.as_struct();
            let custom = ty.custom.as_ref();
            // Metadata is that of every object, whatever else may stand beside it.
            let is_metadata = of.is_some_and(|of| of.gvk.is_none() && &*of.name == METADATA);
            let keeps = custom.is_some_and(|custom| custom.preserves_unknown) && !is_metadata;
            for (key, child) in map {
                let place = format!("{path}.{key}");
                match ty.child(key) {
                    Some(_) if of.is_some_and(|of| of.field(key).is_none()) && !keeps => found.push(place),
                    Some(ty) => walk(ty, child, &place, found),
                    None if of.is_some() && !keeps => found.push(place),
                    None => {}
                }
            }
        }
        Value::Array(list) => {
            let Shape::List { kind, item } = &ty.shape else { return };
            for (at, child) in list.iter().enumerate() {
                let place = match kind {
                    schema::ListKind::Map(_) => step(&element(kind, item, child)),
                    _ => format!("[{at}]"),
                };
                walk(item, child, &format!("{path}{place}"), found);
            }
        }
        _ => {}
    }
}

const METADATA: &str = "apimachinery.pkg.apis.meta.v1.ObjectMeta";
