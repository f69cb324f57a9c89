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

/// What can change while a container runs, and what a container inherits from its pod.
pub(crate) const RESIZABLE: [&str; 2] = ["cpu", "memory"];

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

pub(crate) type Amounts = std::collections::BTreeMap<String, Quantity>;

/// Whether both lists have the same amount of this resource, or neither has any.
pub(crate) fn same_amount(a: &Option<Amounts>, b: &Option<Amounts>, name: &str) -> bool {
    let get = |list: &'_ Option<Amounts>| list.as_ref().and_then(|list| list.get(name).cloned());
    match (get(a), get(b)) {
        (Some(a), Some(b)) => equal(&a, &b),
        (a, b) => a == b,
    }
}

/// Whether two quantities are the same amount.
pub(crate) fn equal(a: &Quantity, b: &Quantity) -> bool {
    a == b || matches!((a.0.parse::<Amount>(), b.0.parse::<Amount>()), (Ok(a), Ok(b)) if a == b)
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

/// CPU in thousandths, all else in whole units.
fn plain(name: &str, quantity: &Quantity) -> i64 {
    if name == "cpu" { quantity_milli(quantity) } else { quantity_bytes(quantity) }
}

fn value(resources: Option<&ResourceRequirements>, limits: bool, name: &str) -> Option<i64> {
    let resources = resources?;
    let list = if limits { resources.limits.as_ref() } else { resources.requests.as_ref() }?;
    list.get(name).map(|quantity| plain(name, quantity))
}

/// A container's resources with the limits of CPU and memory of its pod, `whole`, where it has none of its own.
pub fn inherit(whole: Option<&ResourceRequirements>, own: &ResourceRequirements) -> ResourceRequirements {
    let mut own = own.clone();
    let limits = whole.and_then(|whole| whole.limits.as_ref()).into_iter().flatten();
    for (name, limit) in limits.filter(|(name, limit)| RESIZABLE.contains(&name.as_str()) && plain(name, limit) > 0) {
        if value(Some(&own), true, name).unwrap_or(0) == 0 {
            own.limits.get_or_insert_default().insert(name.clone(), limit.clone());
        }
    }
    own
}

/// What a container of the pod runs with: its own resources and what it inherits from the pod's.
pub fn effective_resources(spec: &PodSpec, container: &Container) -> ResourceRequirements {
    inherit(spec.resources.as_ref(), bare(&container.resources))
}

/// The limits of one container of the pod.
pub fn container_limits(spec: &PodSpec, container: &Container) -> CgroupLimits {
    let resources = effective_resources(spec, container);
    let resources = Some(&resources);
    let cpu_limit = value(resources, true, "cpu");
    // a limit without a request is also the request
    let request = value(resources, false, "cpu").or(cpu_limit).unwrap_or(0);
    CgroupLimits {
        cpu_shares: cpu_shares(request),
        cpu_quota_us: cpu_limit.and_then(cpu_quota),
        memory_bytes: value(resources, true, "memory").filter(|v| *v > 0),
    }
}

/// A resource of the whole pod: what the pod states, else the larger of the running set and the init containers, with
/// the overhead. Requests fall back to limits; limits count only where every container has one. CPU in thousandths, all
/// else in whole units.
pub fn pod_total(spec: &PodSpec, name: &str, limits: bool) -> Option<i64> {
    let overhead = spec.overhead.as_ref().and_then(|o| o.get(name)).map_or(0, |amount| plain(name, amount));
    if let Some(whole) = value(spec.resources.as_ref(), limits, name).filter(|whole| !limits || *whole > 0) {
        return Some(whole + overhead);
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

    fn resources(text: &str) -> serde_json::Value {
        let list = |text: &str| -> serde_json::Value {
            let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, amount)| (name.to_owned(), amount.into())).collect::<serde_json::Map<_, _>>().into()
        };
        let (requests, limits) = text.split_once('/').unwrap_or((text, ""));
        serde_json::json!({"requests": list(requests), "limits": list(limits)})
    }

    /// A pod from "requests / limits" of the whole and of each container.
    fn spec(whole: &str, containers: &[&str]) -> PodSpec {
        let one =
            |(i, text): (usize, &&str)| serde_json::json!({"name": format!("c{i}"), "resources": resources(text)});
        let containers: Vec<_> = containers.iter().enumerate().map(one).collect();
        serde_json::from_value(serde_json::json!({"resources": resources(whole), "containers": containers})).unwrap()
    }

    fn shown(limits: CgroupLimits) -> String {
        let show = |limit: Option<i64>| limit.map_or("-".to_owned(), |limit| limit.to_string());
        format!("{} {} {}", limits.cpu_shares, show(limits.cpu_quota_us), show(limits.memory_bytes))
    }

    #[test]
    fn a_container_inherits_the_limits_that_it_does_not_have() {
        // the whole pod; a container; shares, quota and memory of the container's group
        let table = [
            ("", "", "2 - -"),
            ("cpu=1 memory=1Ki / cpu=1 memory=1Ki", "", "1024 100000 1024"),
            ("cpu=1 / cpu=1", "cpu=500m", "512 100000 -"),
            ("cpu=1 memory=1Ki / cpu=1 memory=1Ki", "/ cpu=200m", "204 20000 1024"),
            ("cpu=1 memory=1Ki / cpu=1 memory=1Ki", "cpu=100m / memory=7", "102 100000 7"),
            ("cpu=1 / cpu=1", "cpu=0 / cpu=0", "2 100000 -"),
            ("cpu=1 memory=1Ki", "", "2 - -"),
        ];
        for (whole, own, expected) in table {
            let spec = spec(whole, &[own]);
            assert_eq!(shown(container_limits(&spec, &spec.containers[0])), expected, "{whole}; {own}");
        }
    }

    #[test]
    fn a_pod_has_what_it_states_or_what_its_containers_do() {
        let table: [(&str, &[&str], &str); 6] = [
            ("", &["cpu=1 / cpu=1 memory=1Ki", "cpu=1 / cpu=2 memory=1Ki"], "2048 300000 2048"),
            ("", &["cpu=1 / cpu=1", ""], "1024 - -"),
            ("cpu=3 / cpu=4", &["cpu=1 / cpu=1 memory=1Ki", "/ memory=1Ki"], "3072 400000 2048"),
            ("cpu=3 / cpu=4 memory=9", &["", ""], "3072 400000 9"),
            ("memory=9 / memory=9", &["cpu=1", "cpu=1"], "2048 - 9"),
            ("/ cpu=0", &["/ cpu=1"], "1024 100000 -"),
        ];
        for (whole, containers, expected) in table {
            assert_eq!(shown(pod_limits(&spec(whole, containers))), expected, "{whole}; {containers:?}");
        }
    }
}
