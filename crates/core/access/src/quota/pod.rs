//! What a pod asks for as a whole: containers and sidecars together, or the most demanding init container.

use serde_json::Value;

use super::amounts::{Amounts, add, raise, read};
use crate::admission::json::list;

/// Resources that may be stated for a pod as a whole.
const POD_LEVEL: [&str; 3] = ["cpu", "memory", "hugepages-"];

/// Which of the two lists of a container is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Requests,
    Limits,
}

impl Side {
    fn key(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

pub fn is_pod_level(name: &str) -> bool {
    name == POD_LEVEL[0] || name == POD_LEVEL[1] || name.starts_with(POD_LEVEL[2])
}

/// Whether resources are stated for the pod as a whole.
pub fn has_pod_level(pod: &Value) -> bool {
    let resources = &pod["spec"]["resources"];
    let names = ["requests", "limits"].map(|key| resources[key].as_object()).into_iter().flatten();
    names.flat_map(|list| list.keys()).any(|name| is_pod_level(name))
}

/// The sum as the specification states it, without what the pod itself costs.
pub fn stated(pod: &Value, side: Side) -> Amounts {
    total(pod, side, |container| read(&container["resources"][side.key()]))
}

/// The sum that counts now: during a resize the larger of what is wanted and what is in effect, and the pod's overhead.
pub fn effective(pod: &Value, side: Side) -> Amounts {
    let mut sum = total(pod, side, |container| in_effect(pod, container, side));
    let overhead = read(&pod["spec"]["overhead"]);
    if side == Side::Requests {
        add(&mut sum, &overhead);
    } else {
        // What is not limited stays unlimited.
        for (name, amount) in overhead {
            if let Some(limit) = sum.get_mut(&name).filter(|limit| !limit.is_zero()) {
                *limit += amount;
            }
        }
    }
    sum
}

fn total(pod: &Value, side: Side, of: impl Fn(&Value) -> Amounts) -> Amounts {
    let spec = &pod["spec"];
    let mut running = Amounts::new();
    for container in list(spec, "containers") {
        add(&mut running, &of(container));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in list(spec, "initContainers") {
        let mut needed = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut running, &needed);
            add(&mut sidecars, &needed);
            raise(&mut starting, &sidecars);
        } else {
            add(&mut needed, &sidecars);
            raise(&mut starting, &needed);
        }
    }
    raise(&mut running, &starting);
    let whole = read(&spec["resources"][side.key()]);
    running.extend(whole.into_iter().filter(|(name, _)| is_pod_level(name)));
    running
}

/// A container's own list, and what its status says is in effect or promised.
fn in_effect(pod: &Value, container: &Value, side: Side) -> Amounts {
    let stated = read(&container["resources"][side.key()]);
    let is_init = list(&pod["spec"], "initContainers").iter().any(|other| other["name"] == container["name"]);
    if is_init && container["restartPolicy"] != "Always" {
        return stated;
    }
    let status = &pod["status"];
    let mut all = list(status, "containerStatuses").iter().chain(list(status, "initContainerStatuses"));
    let known = all.find(|known| known["name"] == container["name"] && known["resources"].is_object());
    let Some(known) = known else { return stated };
    let mut amounts = read(&known["resources"][side.key()]);
    if side == Side::Requests {
        raise(&mut amounts, &read(&known["allocatedResources"]));
    }
    if !is_resize_infeasible(pod) {
        raise(&mut amounts, &stated);
    }
    amounts
}

fn is_resize_infeasible(pod: &Value) -> bool {
    let mut conditions = list(&pod["status"], "conditions").iter();
    conditions.any(|condition| condition["type"] == "PodResizePending" && condition["reason"] == "Infeasible")
}
