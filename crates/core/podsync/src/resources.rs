//! From resource requests and limits to the numbers that control groups take.

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use meta::quantity::Quantity as Amount;

/// CPU bandwidth period in microseconds.
const PERIOD_US: i64 = 100_000;
/// Smallest quota the kernel accepts, microseconds per period.
const QUOTA_MIN_US: i64 = 1000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;

/// Limits of one control group; `None` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Relative CPU weight in v1 units (1024 per core).
    pub cpu_shares: i64,
    /// Microseconds of CPU per 100 ms.
    pub cpu_quota_us: Option<i64>,
    /// Bytes.
    pub memory_bytes: Option<i64>,
}

impl CgroupLimits {
    /// Enough for both: what a group gets while its members go from one to the other.
    #[must_use]
    pub fn covering(self, other: CgroupLimits) -> CgroupLimits {
        CgroupLimits {
            cpu_shares: self.cpu_shares.max(other.cpu_shares),
            cpu_quota_us: self.cpu_quota_us.zip(other.cpu_quota_us).map(|(a, b)| a.max(b)),
            memory_bytes: self.memory_bytes.zip(other.memory_bytes).map(|(a, b)| a.max(b)),
        }
    }
}

static NOTHING: ResourceRequirements = ResourceRequirements { claims: None, limits: None, requests: None };

/// Absent resources are empty ones.
pub(crate) fn bare(resources: &Option<ResourceRequirements>) -> &ResourceRequirements {
    resources.as_ref().unwrap_or(&NOTHING)
}

/// Whether requests and limits are the same amounts, however they are written.
pub(crate) fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    let lists = |a: &Option<Amounts>, b: &Option<Amounts>| {
        let count = |list: &Option<Amounts>| list.as_ref().map_or(0, Amounts::len);
        count(a) == count(b) && a.iter().flatten().all(|(name, _)| same_amount(a, b, name))
    };
    lists(&a.requests, &b.requests) && lists(&a.limits, &b.limits)
}

type Amounts = std::collections::BTreeMap<String, Quantity>;

/// Whether both lists have the same amount of this resource, or neither has any.
pub(crate) fn same_amount(a: &Option<Amounts>, b: &Option<Amounts>, name: &str) -> bool {
    let get = |list: &'_ Option<Amounts>| list.as_ref().and_then(|list| list.get(name).cloned());
    match (get(a), get(b)) {
        (Some(a), Some(b)) => {
            a == b || matches!((a.0.parse::<Amount>(), b.0.parse::<Amount>()), (Ok(a), Ok(b)) if a == b)
        }
        (a, b) => a == b,
    }
}

/// Thousandths rounded up, for CPU; 0 where the text is no quantity.
pub fn quantity_milli(quantity: &Quantity) -> i64 {
    quantity.0.parse().map_or(0, Amount::milli_value)
}

/// Whole units rounded up, for memory and storage; 0 where the text is no quantity.
pub fn quantity_bytes(quantity: &Quantity) -> i64 {
    quantity.0.parse().map_or(0, Amount::value)
}

/// v1 CPU weight for a request in thousandths of a core.
pub fn cpu_shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// CPU quota per 100 ms for a limit in thousandths of a core; `None` when unlimited.
pub fn cpu_quota(milli: i64) -> Option<i64> {
    (milli > 0).then(|| (milli * PERIOD_US / 1000).max(QUOTA_MIN_US))
}

fn value(resources: Option<&ResourceRequirements>, limits: bool, name: &str) -> Option<i64> {
    let resources = resources?;
    let list = if limits { resources.limits.as_ref() } else { resources.requests.as_ref() }?;
    let quantity = list.get(name)?;
    Some(if name == "cpu" { quantity_milli(quantity) } else { quantity_bytes(quantity) })
}

/// One container's limits.
pub fn container_limits(container: &Container) -> CgroupLimits {
    let resources = container.resources.as_ref();
    let cpu_limit = value(resources, true, "cpu");
    // a limit without a request is also the request
    let request = value(resources, false, "cpu").or(cpu_limit).unwrap_or(0);
    CgroupLimits {
        cpu_shares: cpu_shares(request),
        cpu_quota_us: cpu_limit.and_then(cpu_quota),
        memory_bytes: value(resources, true, "memory").filter(|v| *v > 0),
    }
}

/// A resource of the whole pod: the larger of the running set and the init containers, with the overhead. Requests fall
/// back to limits; limits count only where every container has one. CPU in thousandths, all else in whole units.
pub fn pod_total(spec: &PodSpec, name: &str, limits: bool) -> Option<i64> {
    if let Some(value) = value(spec.resources.as_ref(), limits, name) {
        return Some(value);
    }
    let get = |c: &Container| {
        let own = value(c.resources.as_ref(), limits, name);
        if limits { own } else { own.or_else(|| value(c.resources.as_ref(), true, name)).or(Some(0)) }
    };
    let mut running: i64 = 0;
    for container in &spec.containers {
        running += get(container)?;
    }
    let (mut sidecars, mut peak) = (0, 0);
    for container in spec.init_containers.iter().flatten() {
        let own = get(container)?;
        if crate::is_sidecar(container) {
            sidecars += own;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + own);
        }
    }
    let overhead = spec.overhead.as_ref().and_then(|o| o.get(name));
    let overhead = overhead.map(|q| if name == "cpu" { quantity_milli(q) } else { quantity_bytes(q) }).unwrap_or(0);
    Some((running + sidecars).max(peak) + overhead)
}

/// The limits of the pod's control group.
pub fn pod_limits(spec: &PodSpec) -> CgroupLimits {
    let sum = |name: &str, limits: bool| pod_total(spec, name, limits);
    CgroupLimits {
        cpu_shares: cpu_shares(sum("cpu", false).unwrap_or(0)),
        cpu_quota_us: sum("cpu", true).and_then(cpu_quota),
        memory_bytes: sum("memory", true).filter(|v| *v > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_in_between_has_enough_for_both() {
        let small = CgroupLimits { cpu_shares: 10, cpu_quota_us: Some(1000), memory_bytes: Some(2) };
        let other = CgroupLimits { cpu_shares: 5, cpu_quota_us: Some(2000), memory_bytes: None };
        let both = CgroupLimits { cpu_shares: 10, cpu_quota_us: Some(2000), memory_bytes: None };
        assert_eq!((small.covering(other), other.covering(small)), (both, both));
    }
}
