//! Which pods count: the ready, the not yet ready, those without figures; and what each of them requests.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use meta::quantity;

use super::sources::Sample;

/// How long after its start a pod's CPU figures are doubted while it is not ready.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_secs(300);
/// Within this time of its start a change of readiness is the first one: such a pod was never ready.
const INITIAL_READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// The pods of a target by what their figures are worth.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Groups<'a> {
    pub ready: usize,
    pub unready: BTreeSet<&'a str>,
    pub missing: BTreeSet<&'a str>,
    pub ignored: BTreeSet<&'a str>,
}

pub(super) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

impl<'a> Groups<'a> {
    pub fn of(pods: &'a [Pod], samples: &BTreeMap<String, Sample>, cpu: bool, now: Timestamp) -> Self {
        let mut groups = Self::default();
        for pod in pods {
            let name = name(pod);
            if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
                groups.ignored.insert(name);
            } else if phase(pod) == "Pending" {
                groups.unready.insert(name);
            } else {
                match samples.get(name) {
                    None => drop(groups.missing.insert(name)),
                    Some(sample) if cpu && is_warming_up(pod, sample, now) => drop(groups.unready.insert(name)),
                    Some(_) => groups.ready += 1,
                }
            }
        }
        groups
    }
}

/// Whether a CPU figure may tell of the start of a pod and not of its work.
fn is_warming_up(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let Some(status) = &pod.status else { return true };
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let (Some(ready), Some(started)) = (ready, &status.start_time) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    let unready = ready.status == "False";
    if started.0 + CPU_INITIALIZATION > now {
        // A figure that began before the pod became ready tells of its start too.
        unready || sample.at < changed.checked_add(sample.window).unwrap_or(Timestamp::MAX)
    } else {
        unready && started.0 + INITIAL_READINESS_DELAY > changed
    }
}

/// Running and ready pods, whatever their figures.
pub(super) fn ready_count(pods: &[Pod]) -> usize {
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        phase(pod) == "Running" && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    pods.iter().filter(is_ready).count()
}

/// Thousandths of a quantity.
pub(super) fn milli(quantity: &Quantity) -> i64 {
    quantity.0.parse::<quantity::Quantity>().map_or(0, quantity::Quantity::milli_value)
}

/// What each pod requests of a resource, in thousandths: of one container, or of all.
pub(super) fn requests<'a>(
    pods: &'a [Pod],
    container: Option<&str>,
    resource: &str,
) -> Result<BTreeMap<&'a str, i64>, String> {
    pods.iter().map(|pod| Ok((name(pod), request(pod, container, resource)?))).collect()
}

fn request(pod: &Pod, container: Option<&str>, resource: &str) -> Result<i64, String> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if let (Some(whole), None) = (whole.filter(|requests| !requests.is_empty()), container) {
        return request_of_pod(pod, whole, resource)
            .ok_or_else(|| format!("missing pod-level request for {resource} in Pod {}", name(pod)));
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let mut sum = 0_i64;
    for one in spec.containers.iter().chain(sidecars).filter(|one| container.is_none_or(|wanted| wanted == one.name)) {
        let request = request_in(one, resource);
        let missing = || format!("missing request for {resource} in container {} of Pod {}", one.name, name(pod));
        sum = sum.saturating_add(request.ok_or_else(missing)?);
        if container.is_some() {
            return Ok(sum);
        }
    }
    match container {
        Some(container) => Err(format!("container {container} not found in Pod {}", name(pod))),
        None => Ok(sum),
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn request_in(container: &Container, resource: &str) -> Option<i64> {
    container.resources.as_ref()?.requests.as_ref()?.get(resource).map(milli)
}

/// What the pod as a whole requests; where it does not name the resource, what its containers need at most at once.
fn request_of_pod(pod: &Pod, whole: &BTreeMap<String, Quantity>, resource: &str) -> Option<i64> {
    let spec = pod.spec.as_ref()?;
    let own = whole.get(resource).map(milli).or_else(|| {
        let (mut sidecars, mut most, mut named) = (0_i64, 0_i64, false);
        for container in spec.init_containers.iter().flatten() {
            let request = request_in(container, resource);
            named |= request.is_some();
            let request = request.unwrap_or(0);
            most = most.max(sidecars.saturating_add(request));
            sidecars = sidecars.saturating_add(if is_sidecar(container) { request } else { 0 });
        }
        let running: Vec<i64> = spec.containers.iter().filter_map(|one| request_in(one, resource)).collect();
        named |= !running.is_empty();
        named.then(|| most.max(running.iter().fold(sidecars, |sum, one| sum.saturating_add(*one))))
    })?;
    let overhead = spec.overhead.as_ref().and_then(|overhead| overhead.get(resource)).map_or(0, milli);
    Some(own.saturating_add(overhead))
}
