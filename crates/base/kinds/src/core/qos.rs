//! The quality of service class of a pod, from what its containers request and are limited to.

use meta::quantity::Quantity;
use serde_json::Value;

use crate::json::{has, list};

/// `Guaranteed`, `Burstable` or `BestEffort`. Pod-level resources decide alone where they are set.
pub fn qos_class(spec: &Value) -> &'static str {
    if has(spec, "resources.limits") || has(spec, "resources.requests") {
        return class([&spec["resources"]].into_iter());
    }
    class(list(spec, "containers").iter().chain(list(spec, "initContainers")).map(|c| &c["resources"]))
}

fn class<'a>(resources: impl Iterator<Item = &'a Value>) -> &'static str {
    let amount = |value: &Value| Quantity::from_value(value).ok().filter(|amount| !amount.is_zero());
    let (mut guaranteed, mut any) = (true, false);
    for resources in resources {
        for name in ["cpu", "memory"] {
            let limit = amount(&resources["limits"][name]);
            let request = amount(&resources["requests"][name]);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
