//! From resource requests and limits to the numbers that control groups take.

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

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

/// Value in thousandths of the unit, rounded up; `None` if it is not a quantity.
///
/// ```
/// assert_eq!(podsync::parse_quantity("1.5Gi"), Some(1_610_612_736_000));
/// assert_eq!(podsync::parse_quantity("250m"), Some(250));
/// ```
pub fn parse_quantity(text: &str) -> Option<i128> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    // scale in nano units so that every suffix is exact
    let nano: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => 1_000_000_000,
        "k" => 10i128.pow(12),
        "M" => 10i128.pow(15),
        "G" => 10i128.pow(18),
        "T" => 10i128.pow(21),
        "P" => 10i128.pow(24),
        "E" => 10i128.pow(27),
        "Ki" => 10i128.pow(9) << 10,
        "Mi" => 10i128.pow(9) << 20,
        "Gi" => 10i128.pow(9) << 30,
        "Ti" => 10i128.pow(9) << 40,
        "Pi" => 10i128.pow(9) << 50,
        "Ei" => 10i128.pow(9) << 60,
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = u32::try_from(exponent + 9).ok().filter(|p| *p <= 27)?;
            10i128.pow(power)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let whole = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    if whole.starts_with(['-', '+']) {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = digits.checked_mul(nano)?;
    let divisor = 10i128.pow(fraction.len() as u32).checked_mul(1_000_000)?;
    let value = (scaled + divisor - 1) / divisor;
    Some(if negative { -value } else { value })
}

/// Thousandths, for CPU.
pub fn quantity_milli(quantity: &Quantity) -> i64 {
    parse_quantity(&quantity.0).and_then(|v| i64::try_from(v).ok()).unwrap_or(0)
}

/// Whole units rounded up, for memory and storage.
pub fn quantity_bytes(quantity: &Quantity) -> i64 {
    parse_quantity(&quantity.0).and_then(|v| i64::try_from((v + 999) / 1000).ok()).unwrap_or(0)
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

/// The pod's limits: the larger of the running set and the init containers; limits only where every container has one.
pub fn pod_limits(spec: &PodSpec) -> CgroupLimits {
    let sum = |name: &str, limits: bool| -> Option<i64> {
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
    };
    CgroupLimits {
        cpu_shares: cpu_shares(sum("cpu", false).unwrap_or(0)),
        cpu_quota_us: sum("cpu", true).and_then(cpu_quota),
        memory_bytes: sum("memory", true).filter(|v| *v > 0),
    }
}
