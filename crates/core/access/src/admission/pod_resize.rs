//! Resizes that a pod's node could never grant are refused when they are asked for.

use serde_json::Value;

use crate::quota::amounts::{add, read};
use crate::quota::pod::{Side, stated};

const OS_LABEL: &str = "kubernetes.io/os";

/// Why a resize is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs: `NodeCapacity` or `UnsupportedPlatform`.
    pub cause: &'static str,
    /// For people.
    pub why: String,
}

/// Whether `node` could hold the resized `pod` if nothing else ran there. `name` is the node's.
///
/// # Errors
/// What stands in the way.
pub fn judge(pod: &Value, node: &Value, name: &str) -> Result<(), Refusal> {
    match node["metadata"]["labels"][OS_LABEL].as_str() {
        None | Some("linux") => {}
        Some(system) => {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return Err(Refusal { cause: "UnsupportedPlatform", why });
        }
    }
    let allocatable = read(&node["status"]["allocatable"]);
    let mut requests = stated(pod, Side::Requests);
    add(&mut requests, &read(&pod["spec"]["overhead"]));
    let mut missing = Vec::new();
    for name in ["cpu", "memory"] {
        let asked = requests.get(name).copied().unwrap_or_default();
        let most = allocatable.get(name).copied().unwrap_or_default();
        if asked > most {
            let (asked, most) = match name {
                "cpu" => (asked.milli_value(), most.milli_value()),
                _ => (asked.value(), most.value()),
            };
            missing.push(format!("{name}, requested: {asked}, allocatable: {most}"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!("node didn't have enough allocatable resources: {}", missing.join("; "));
    Err(Refusal { cause: "NodeCapacity", why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resize_fits_the_empty_node() {
        let node = json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
        let pod = |cpu: &str, memory: &str| {
            json!({"spec": {"overhead": {"cpu": "100m"}, "containers": [
                {"resources": {"requests": {"cpu": cpu, "memory": memory}}},
                {"resources": {"requests": {"cpu": "100m"}}}]}})
        };
        let table = [
            (pod("1800m", "1Gi"), ""),
            (pod("1801m", "1Gi"), "cpu, requested: 2001, allocatable: 2000"),
            (
                pod("4", "2Gi"),
                "cpu, requested: 4200, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824",
            ),
        ];
        for (pod, expected) in table {
            let refusal = judge(&pod, &node, "n").err();
            let why = refusal.as_ref().map_or("", |refusal| refusal.why.as_str());
            let expected = match expected {
                "" => String::new(),
                text => format!("node didn't have enough allocatable resources: {text}"),
            };
            assert_eq!(why, expected);
            assert!(refusal.is_none_or(|refusal| refusal.cause == "NodeCapacity"));
        }
        let other = json!({"metadata": {"labels": {"kubernetes.io/os": "plan9"}}});
        assert_eq!(judge(&pod("1", "1"), &other, "n").unwrap_err().cause, "UnsupportedPlatform");
    }
}
