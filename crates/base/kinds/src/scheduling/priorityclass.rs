//! scheduling.k8s.io/v1 PriorityClass: a named pod priority.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

use super::V1;
use crate::columns;
use crate::json::{fill, flag, int, text};
use crate::kind::{Column, Kind, texts};
use crate::rules;

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["pc"]),
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Value", "integer", "The priority.", |o, _| columns::number(o, "value")),
            Column::new("Global-Default", "boolean", "Whether pods without a class get it.", |o, _| {
                flag(o, "globalDefault").into()
            }),
            columns::age(),
            Column::new("PreemptionPolicy", "string", "Whether its pods push others out.", |o, _| {
                text(o, "preemptionPolicy").into()
            })
            .wide(),
        ]
        .into(),
        default: |o| fill(o, "preemptionPolicy", "PreemptLowerPriority"),
        validate,
        validate_update,
        ..Kind::cluster(V1, "PriorityClass", "priorityclasses")
    }
}

/// Users may set priorities up to this; those above are the system's.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

fn validate(class: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (name, value) = (text(class, "metadata.name"), int(class, "value"));
    if name.starts_with(SYSTEM_PREFIX) {
        let known = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let error = match known {
            None => Some(format!("{name} is not a known system priority class")),
            Some(own) if own != value => Some(format!("value of {name} PriorityClass must be {own}")),
            Some(_) if flag(class, "globalDefault") => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(error) = error {
            let why = "priority class names with 'system-' prefix are reserved for system use only. error:";
            errors.push(FieldError::forbidden(&FieldPath::new("metadata").child("name"), format!("{why} {error}")));
        }
    } else if value > USER_PRIORITY_MAX {
        let why = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        errors.push(FieldError::forbidden(&FieldPath::new("value"), why));
    }
    let policies = ["Never", "PreemptLowerPriority"];
    let policy = text(class, "preemptionPolicy");
    if !policies.contains(&policy) && !policy.is_empty() {
        errors.push(FieldError::not_supported(&FieldPath::new("preemptionPolicy"), policy, &policies));
    }
    errors
}

/// Pods carry the number of their class, so it never changes.
fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    if int(new, "value") != int(old, "value") {
        errors.push(FieldError::forbidden(&FieldPath::new("value"), "may not be changed in an update."));
    }
    if text(new, "preemptionPolicy") != text(old, "preemptionPolicy") {
        rules::immutable(
            &mut errors,
            &new["preemptionPolicy"],
            &old["preemptionPolicy"],
            &FieldPath::new("preemptionPolicy"),
        );
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_number_is_bounded_and_stays() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        assert!(validate(&class("high", USER_PRIORITY_MAX)).is_empty());
        assert_eq!(validate(&class("high", USER_PRIORITY_MAX + 1)).len(), 1);
        assert!(validate(&class("system-node-critical", 2_000_001_000)).is_empty());
        assert_eq!(validate(&class("system-mine", 1)).len(), 1);
        assert_eq!(validate_update(&class("a", 1), &class("a", 2)).len(), 1);
    }
}
