//! From a PriorityClass's name to the number that the scheduler compares.

use serde_json::Value;

use super::json::{set, text};

/// Classes that a cluster cannot be without.
const SYSTEM_CLASSES: [&str; 2] = ["system-node-critical", "system-cluster-critical"];

pub fn is_system_class(name: &str) -> bool {
    SYSTEM_CLASSES.contains(&name)
}

const PREEMPT: &str = "PreemptLowerPriority";

/// The class that pods without a class get: of several marked ones, the lowest.
pub fn default_class(classes: impl Iterator<Item = Value>) -> Option<Value> {
    classes.filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64())
}

/// Writes priority and preemption policy of a new pod. `named` is the class that the pod names, `default` the class
/// of pods that name none. The error is the reason to forbid the pod.
pub fn resolve(pod: &mut Value, named: Option<&Value>, default: Option<&Value>) -> Result<(), String> {
    let name = text(&pod["spec"], "priorityClassName").to_owned();
    let class = match (name.as_str(), named) {
        ("", _) => default,
        (name, None) => return Err(format!("no PriorityClass with name {name} was found")),
        (_, class) => class,
    };
    let priority = class.map_or(0, |class| class["value"].as_i64().unwrap_or_default());
    let policy = class.and_then(|class| class["preemptionPolicy"].as_str()).unwrap_or(PREEMPT);
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != priority) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; \
             priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|given| *given != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
             priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    let policy = policy.to_owned();
    let class_name = class.map(|class| text(&class["metadata"], "name").to_owned());
    if let Some(spec) = pod.get_mut("spec") {
        set(spec, "priority", priority);
        set(spec, "preemptionPolicy", policy);
        if let Some(class_name) = class_name {
            set(spec, "priorityClassName", class_name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_gives_the_number_and_the_pod_may_not() {
        let class = json!({"metadata": {"name": "high"}, "value": 9, "preemptionPolicy": "Never"});
        let mut pod = json!({"spec": {"priorityClassName": "high"}});
        resolve(&mut pod, Some(&class), None).unwrap();
        assert_eq!((&pod["spec"]["priority"], &pod["spec"]["preemptionPolicy"]), (&json!(9), &json!("Never")));
        resolve(&mut pod, Some(&class), None).unwrap();
        let mut pod = json!({"spec": {"priority": 5}});
        assert!(resolve(&mut pod, None, None).unwrap_err().starts_with("the integer value of priority (5)"));
        let mut pod = json!({"spec": {"priorityClassName": "no"}});
        assert_eq!(resolve(&mut pod, None, None).unwrap_err(), "no PriorityClass with name no was found");
    }
}
