//! The groups above the pods: the node's own, and one for each class of service that is not guaranteed.

use super::ensure;
use crate::node::Node;
use podsync::{CgroupLimits, QosClass, cpu_shares, pod_total, qos_class};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Limits by path below the node's parent.
pub type Tree = [(&'static str, CgroupLimits); 3];

/// The tree for pods that together request this much CPU in the class Burstable.
fn tree(allocatable_cpu_milli: i64, memory_bytes: Option<i64>, burstable_cpu_milli: i64) -> Tree {
    let limits = |milli: i64| CgroupLimits { cpu_shares: cpu_shares(milli), cpu_quota_us: None, memory_bytes: None };
    [
        ("", CgroupLimits { memory_bytes, ..limits(allocatable_cpu_milli) }),
        // pods without requests share what nobody else wants
        ("/besteffort", limits(0)),
        ("/burstable", limits(burstable_cpu_milli)),
    ]
}

/// Brings the groups to what the node's pods ask for now. Guaranteed pods lie directly under the node's group.
pub fn keep(node: &Node) {
    let machine = &node.machine;
    let active = node.registry.all().into_iter().filter(|handle| !handle.ended.load(Ordering::Acquire));
    let burstable = active.map(|handle| {
        let pod = handle.pod.borrow();
        let spec = pod.spec.as_ref().filter(|_| qos_class(&pod) == QosClass::Burstable);
        spec.and_then(|spec| pod_total(spec, "cpu", false)).unwrap_or(0)
    });
    // what is reserved is kept from the pods as a whole, whatever their own limits are
    let reserved = machine.reserved_memory_bytes > 0;
    let memory = reserved.then_some(machine.memory_bytes - machine.reserved_memory_bytes);
    let wanted = tree(machine.cpus * 1000 - machine.reserved_cpu_milli, memory, burstable.sum());
    let mut kept = node.cgroup_tree.lock().unwrap_or_else(PoisonError::into_inner);
    if *kept == Some(wanted) {
        return;
    }
    let parent = node.config.cgroup_parent.trim_end_matches('/');
    let mut done = true;
    for (path, limits) in &wanted {
        if let Err(error) = ensure(&format!("{parent}{path}"), limits) {
            tracing::warn!("cannot set the limits of {parent}{path}: {error}");
            done = false;
        }
    }
    *kept = done.then_some(wanted);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_share_by_what_they_ask_for() {
        let [node, best_effort, burstable] = tree(2000, Some(1 << 30), 250);
        assert_eq!((node.1.cpu_shares, node.1.memory_bytes), (2048, Some(1 << 30)));
        assert_eq!((best_effort.1.cpu_shares, burstable.1.cpu_shares), (2, 256));
        assert_eq!(burstable.1.memory_bytes, None);
    }
}
