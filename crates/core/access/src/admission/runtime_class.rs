//! A pod that names a RuntimeClass gets the overhead and the scheduling rules of that class.

use serde_json::{Map, Value};

use super::json::{array, list, object, text};

fn map(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Applies `class`, the object that the pod's `runtimeClassName` names; `None` is a pod that names none.
///
/// # Errors
/// The pod says something else than its class: the words of the refusal.
pub fn apply(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let fixed = class.map(|class| class["overhead"]["podFixed"].clone()).unwrap_or_default();
    let own = &pod["spec"]["overhead"];
    let says = map(own).next().is_some();
    if map(&fixed).next().is_none() && says {
        return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned());
    }
    if says && *own != fixed {
        return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
    }
    let Some(class) = class else { return Ok(()) };
    let selector = merged(&pod["spec"]["nodeSelector"], &class["scheduling"]["nodeSelector"])?;
    let Some(spec) = object(pod, "spec") else { return Ok(()) };
    if map(&fixed).next().is_some() {
        spec["overhead"] = fixed;
    }
    if !selector.is_empty() {
        spec["nodeSelector"] = Value::Object(selector);
    }
    let wanted = list(&class["scheduling"], "tolerations");
    if !wanted.is_empty()
        && let Some(tolerations) = array(spec, "tolerations")
    {
        tolerations.extend(wanted.iter().cloned());
        *tolerations = without_redundant(tolerations);
    }
    Ok(())
}

/// Leaves out what another toleration, kept before or coming later, covers.
fn without_redundant(all: &[Value]) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        let later = all.iter().skip(i + 1).any(|other| other != one && covers(other, one));
        if !later && !kept.iter().any(|other| covers(other, one)) {
            kept.push(one.clone());
        }
    }
    kept
}

/// Whether `wide` tolerates at least what `narrow` does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    let key_differs = text(wide, "key") != text(narrow, "key");
    if key_differs && !(text(wide, "key").is_empty() && wide["operator"] == "Exists") {
        return wide == narrow;
    }
    let effect = text(wide, "effect");
    if !effect.is_empty() && effect != text(narrow, "effect") {
        return false;
    }
    if effect == "NoExecute"
        && let Some(limit) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > limit)
    {
        return false;
    }
    match text(wide, "operator") {
        "Exists" => true,
        "" | "Equal" => wide == narrow || narrow["operator"] == "Equal" && text(wide, "value") == text(narrow, "value"),
        _ => wide == narrow,
    }
}

fn merged(own: &Value, of_class: &Value) -> Result<Map<String, Value>, String> {
    let mut all: Map<String, Value> = map(own).map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, value) in map(of_class) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match all.get(key) {
            Some(other) if other != value => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(other)
                ));
            }
            _ => drop(all.insert(key.clone(), value.clone())),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class() -> Value {
        json!({
            "overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "t"}]},
        })
    }

    #[test]
    fn a_pod_takes_over_its_class() {
        let mut pod = json!({"spec": {"nodeSelector": {"c": "d"}, "tolerations": [{"key": "t"}, {"key": "u"}]}});
        apply(&mut pod, Some(&class())).unwrap();
        let spec = json!({
            "nodeSelector": {"a": "b", "c": "d"},
            "tolerations": [{"key": "t"}, {"key": "u"}],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        });
        assert_eq!(pod["spec"], spec);
        // A second round changes nothing.
        apply(&mut pod, Some(&class())).unwrap();
        assert_eq!(pod["spec"], spec);
    }

    #[test]
    fn the_wider_toleration_stays() {
        let class = json!({"scheduling": {"tolerations": [{"key": "a", "operator": "Exists"}]}});
        let mut pod = json!({"spec": {"tolerations": [{"key": "a", "operator": "Equal", "value": "v", "effect": "NoSchedule"},
            {"key": "b", "operator": "Exists"}]}});
        apply(&mut pod, Some(&class)).unwrap();
        let expected = json!([{"key": "b", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]);
        assert_eq!(pod["spec"]["tolerations"], expected);
    }

    #[test]
    fn a_pod_that_contradicts_its_class_is_refused() {
        let mut pod = json!({"spec": {"nodeSelector": {"a": "x"}}});
        let why = apply(&mut pod, Some(&class())).unwrap_err();
        assert!(why.starts_with("conflict: runtimeClass.scheduling.nodeSelector[a] = b; "), "{why}");
        let mut pod = json!({"spec": {"overhead": {"cpu": "1"}}});
        assert!(apply(&mut pod, Some(&class())).unwrap_err().contains("doesn't match"));
        assert!(apply(&mut pod, None).unwrap_err().contains("without corresponding"));
    }
}
