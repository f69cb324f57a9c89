//! ServiceCIDRs: one is ready once it is guarded by its finalizer, and goes when no Service has an address of it alone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use meta::address_range::Range;
use serde_json::{Value, json};

use crate::plan::{Op, Plan, SERVICE_CIDRS};

pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY_MESSAGE: &str = "Kubernetes Service CIDR is ready";
const IN_USE_MESSAGE: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
/// A Service that was given an address just before the deletion shows up within this.
const LEAVE_AFTER: Duration = Duration::from_secs(10);

/// What is due for one of `all`; `is_used` tells whether some Service has an address for which the question holds.
pub fn plan(
    cidr: &ServiceCIDR,
    all: &[Arc<ServiceCIDR>],
    is_used: &dyn Fn(&dyn Fn(IpAddr) -> bool) -> bool,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let guarded = cidr.metadata.finalizers.iter().flatten().any(|known| known == FINALIZER);
    let Some(deleted) = &cidr.metadata.deletion_timestamp else {
        if !guarded {
            plan.push(finalizers(cidr, true));
        }
        plan.steps.extend(ready(cidr, "True", "", READY_MESSAGE, now).map(Into::into));
        return plan;
    };
    if !guarded {
        return plan;
    }
    let others: Vec<&Arc<ServiceCIDR>> = all
        .iter()
        .filter(|other| other.metadata.deletion_timestamp.is_none() && other.metadata.name != cidr.metadata.name)
        .collect();
    let alone = |ip: IpAddr| holds(cidr, ip) && !others.iter().any(|other| holds(other, ip));
    if is_used(&alone) {
        plan.steps.extend(ready(cidr, "False", "Terminating", IN_USE_MESSAGE, now).map(Into::into));
        return plan;
    }
    let age = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    match LEAVE_AFTER.checked_sub(age).filter(|left| !left.is_zero()) {
        Some(left) => plan.requeue(left),
        None => plan.push(finalizers(cidr, false)),
    }
    plan
}

/// Whether an address lies in one of the ranges.
fn holds(cidr: &ServiceCIDR, ip: IpAddr) -> bool {
    let ranges = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    ranges.filter_map(|range| range.parse::<Range>().ok()).any(|range| range.contains(ip))
}

fn finalizers(cidr: &ServiceCIDR, guard: bool) -> Op {
    let known = cidr.metadata.finalizers.iter().flatten().map(String::as_str).filter(|known| *known != FINALIZER);
    let wanted: Vec<&str> = known.chain(guard.then_some(FINALIZER)).collect();
    let body = json!({"metadata": {"resourceVersion": cidr.metadata.resource_version, "finalizers": wanted}});
    Op::merge(SERVICE_CIDRS, "", cidr.metadata.name.as_deref().unwrap_or_default(), body)
}

/// The condition, where it is not so already.
fn ready(cidr: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp) -> Option<Op> {
    let conditions = cidr.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let (known, others): (Vec<_>, Vec<_>) = conditions.partition(|condition| condition.type_ == "Ready");
    if known.iter().any(|known| known.status == status && known.reason == reason && known.message == message) {
        return None;
    }
    let mut conditions: Vec<Value> = others.into_iter().map(crate::plan::to_value).collect();
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    conditions.push(json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now, "observedGeneration": cidr.metadata.generation.unwrap_or(0)}));
    let name = cidr.metadata.name.as_deref().unwrap_or_default();
    Some(Op::update_status(SERVICE_CIDRS, "", name, json!({ "conditions": conditions })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000, 0);

    fn cidr(name: &str, range: &str, guarded: bool, deleted: Option<&str>) -> Arc<ServiceCIDR> {
        let finalizers = if guarded { json!([FINALIZER]) } else { json!(null) };
        let object = json!({"metadata": {"name": name, "finalizers": finalizers, "deletionTimestamp": deleted},
            "spec": {"cidrs": [range]}, "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
            "message": READY_MESSAGE, "lastTransitionTime": "1970-01-01T00:00:00Z"}]}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_range_is_guarded_and_goes_when_nobody_needs_it() {
        let long_ago = Some("1970-01-01T00:00:00Z");
        let just_now = Some("1970-01-01T00:16:35Z");
        let rows = [
            ("10.1.0.0/24", false, None, "", "", "guarded"),
            ("10.1.0.0/24", true, None, "", "", ""),
            ("10.1.0.0/24", true, long_ago, "", "10.1.0.7", "Terminating"),
            ("10.1.0.0/24", true, long_ago, "10.1.0.0/16", "10.1.0.7", "free"),
            ("10.1.0.0/24", true, long_ago, "10.2.0.0/16", "10.1.0.7", "Terminating"),
            ("10.1.0.0/24", true, long_ago, "", "10.2.0.7", "free"),
            ("10.1.0.0/24", true, just_now, "", "10.2.0.7", "in 5 s"),
            ("10.1.0.0/24", false, long_ago, "", "10.1.0.7", ""),
        ];
        for (range, guarded, deleted, other, used, expected) in rows {
            let own = cidr("own", range, guarded, deleted);
            let mut all = vec![own.clone()];
            all.extend((!other.is_empty()).then(|| cidr("other", other, true, None)));
            let used: Option<IpAddr> = used.parse().ok();
            let plan = plan(&own, &all, &|asked: &dyn Fn(IpAddr) -> bool| used.is_some_and(asked), NOW);
            let wait = plan.requeue_after.map(|after| format!("in {} s", after.as_secs()));
            let step = plan.steps.first().map(|step| match &step.op {
                Op::Patch { subresource: Some("status"), body, .. } => {
                    body["status"]["conditions"][0]["reason"].as_str().unwrap_or_default().to_owned()
                }
                Op::Patch { body, .. } if body["metadata"]["finalizers"] == json!([FINALIZER]) => "guarded".to_owned(),
                _ => "free".to_owned(),
            });
            assert_eq!(step.or(wait).unwrap_or_default(), expected, "{range} {deleted:?} {other} {used:?}");
        }
    }

    #[test]
    fn a_new_range_becomes_ready() {
        let mut new = ServiceCIDR::clone(&cidr("new", "10.1.0.0/24", true, None));
        new.status = None;
        let plan = plan(&new, &[], &|_| false, NOW);
        let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
        let Op::Patch { subresource: Some("status"), body, .. } = &step.op else { panic!("{step:?}") };
        assert_eq!(body["status"]["conditions"][0]["status"], "True");
    }
}
