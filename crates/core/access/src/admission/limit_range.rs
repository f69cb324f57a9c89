//! LimitRanges: what containers get that state nothing, and what containers, pods and claims may ask for.

use meta::quantity::Quantity;
use serde_json::Value;

use super::json::{list, object, set, text};
use crate::quota::amounts::{Amounts, read};
use crate::quota::pod::{Side, stated};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Amounts beyond this are compared in whole units, as their thousandths do not fit.
const MILLI_VALUE_MAX: i64 = i64::MAX / 1000;

/// Gives the containers of a new pod the defaults of one range, and says so in an annotation.
pub fn default_pod(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for item in list(&range["spec"], "limits").iter().filter(|item| item["type"] == "Container") {
        requests.extend(read(&item["defaultRequest"]));
        limits.extend(read(&item["default"]));
    }
    let mut notes = Vec::new();
    for (key, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod["spec"].get_mut(key).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let about = format!("for {what} {}", text(container, "name"));
            for (side, defaults, word) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let filled = fill(container, side, defaults);
                if !filled.is_empty() {
                    notes.push(format!("{} {word} {about}", filled.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty()
        && let Some(annotations) = object(pod, "metadata").and_then(|metadata| object(metadata, "annotations"))
    {
        set(annotations, ANNOTATION, format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

/// Names of the resources that a list lacked.
fn fill(container: &mut Value, side: &str, defaults: &Amounts) -> Vec<String> {
    let own = &container["resources"][side];
    let missing: Vec<(String, Quantity)> =
        defaults.iter().filter(|(name, _)| own[name.as_str()].is_null()).map(|(n, q)| (n.clone(), *q)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let Some(target) = object(container, "resources").and_then(|r| object(r, side)) else { return Vec::new() };
    missing.iter().for_each(|(name, amount)| set(target, name, amount.to_string()));
    missing.into_iter().map(|(name, _)| name).collect()
}

/// What a pod breaks of one range.
///
/// # Errors
/// Upstream's sentences, in brackets where there are several.
pub fn check_pod(pod: &Value, range: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    for item in list(&range["spec"], "limits") {
        match text(item, "type") {
            "Container" => {
                let spec = &pod["spec"];
                for container in list(spec, "containers").iter().chain(list(spec, "initContainers")) {
                    let resources = &container["resources"];
                    bounds(&mut errors, item, &read(&resources["requests"]), &read(&resources["limits"]));
                }
            }
            "Pod" => bounds(&mut errors, item, &stated(pod, Side::Requests), &stated(pod, Side::Limits)),
            _ => {}
        }
    }
    all(errors)
}

/// What a PersistentVolumeClaim breaks of one range.
///
/// # Errors
/// As for pods.
pub fn check_claim(claim: &Value, range: &Value) -> Result<(), String> {
    let requests = read(&claim["spec"]["resources"]["requests"]);
    let mut errors = Vec::new();
    for item in list(&range["spec"], "limits").iter().filter(|item| item["type"] == "PersistentVolumeClaim") {
        for (name, least) in read(&item["min"]) {
            errors.extend(Bound::new(item, &name, least).min(&requests, &Amounts::new()));
        }
        for (name, most) in read(&item["max"]) {
            errors.extend(Bound::new(item, &name, most).max_request(&requests));
        }
    }
    all(errors)
}

fn all(mut errors: Vec<String>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn bounds(errors: &mut Vec<String>, item: &Value, requests: &Amounts, limits: &Amounts) {
    for (name, least) in read(&item["min"]) {
        errors.extend(Bound::new(item, &name, least).min(requests, limits));
    }
    for (name, most) in read(&item["max"]) {
        errors.extend(Bound::new(item, &name, most).max(requests, limits));
    }
    for (name, ratio) in read(&item["maxLimitRequestRatio"]) {
        errors.extend(Bound::new(item, &name, ratio).ratio(requests, limits));
    }
}

/// One bound of a range on one resource.
struct Bound<'a> {
    /// `Container`, `Pod` or `PersistentVolumeClaim`.
    per: &'a str,
    name: &'a str,
    bound: Quantity,
}

impl<'a> Bound<'a> {
    fn new(item: &'a Value, name: &'a str, bound: Quantity) -> Self {
        Self { per: text(item, "type"), name, bound }
    }

    fn min(&self, requests: &Amounts, limits: &Amounts) -> Option<String> {
        let head = format!("minimum {} usage per {} is {}", self.name, self.per, self.bound);
        let Some(request) = requests.get(self.name) else { return Some(format!("{head}.  No request is specified")) };
        if *request < self.bound {
            return Some(format!("{head}, but request is {request}"));
        }
        let limit = limits.get(self.name).filter(|limit| **limit < self.bound)?;
        Some(format!("{head}, but limit is {limit}"))
    }

    fn max(&self, requests: &Amounts, limits: &Amounts) -> Option<String> {
        let head = format!("maximum {} usage per {} is {}", self.name, self.per, self.bound);
        let Some(limit) = limits.get(self.name) else { return Some(format!("{head}.  No limit is specified")) };
        if *limit > self.bound {
            return Some(format!("{head}, but limit is {limit}"));
        }
        let request = requests.get(self.name).filter(|request| **request > self.bound)?;
        Some(format!("{head}, but request is {request}"))
    }

    fn max_request(&self, requests: &Amounts) -> Option<String> {
        let head = format!("maximum {} usage per {} is {}", self.name, self.per, self.bound);
        let Some(request) = requests.get(self.name) else { return Some(format!("{head}.  No request is specified")) };
        (*request > self.bound).then(|| format!("{head}, but request is {request}"))
    }

    fn ratio(&self, requests: &Amounts, limits: &Amounts) -> Option<String> {
        let head = format!("{} max limit to request ratio per {} is {}", self.name, self.per, self.bound);
        let Some(request) = requests.get(self.name).filter(|request| !request.is_zero()) else {
            return Some(format!("{head}, but no request is specified or request is 0"));
        };
        let Some(limit) = limits.get(self.name).filter(|limit| !limit.is_zero()) else {
            return Some(format!("{head}, but no limit is specified or limit is 0"));
        };
        let fits = [request, limit, &self.bound].iter().all(|amount| amount.value() <= MILLI_VALUE_MAX);
        let value = |amount: &Quantity| if fits { amount.milli_value() } else { amount.value() } as f64;
        let provided = value(limit) / value(request);
        let most = if self.bound.value() <= MILLI_VALUE_MAX {
            self.bound.milli_value() as f64 / 1000.0
        } else {
            self.bound.value() as f64
        };
        (provided > most).then(|| format!("{head}, but provided ratio is {provided:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limits: Value) -> Value {
        json!({"spec": {"limits": [limits]}})
    }

    fn pod(requests: Value, limits: Value) -> Value {
        json!({"spec": {"containers": [{"name": "a", "resources": {"requests": requests, "limits": limits}}],
            "initContainers": [{"name": "i", "resources": {"requests": requests, "limits": limits}}]}})
    }

    #[test]
    fn containers_get_what_they_lack() {
        let range = range(json!({"type": "Container", "default": {"cpu": "2", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m"}}));
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "3"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "1"}}}]}});
        default_pod(&mut pod, &range);
        assert_eq!(
            pod,
            json!({"metadata": {"annotations": {ANNOTATION: "LimitRanger plugin set: cpu request for container a; cpu, \
                memory limit for container a; cpu request for container b; memory limit for container b"}},
                "spec": {"containers": [
                    {"name": "a", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "2", "memory": "1Gi"}}},
                    {"name": "b", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "3", "memory": "1Gi"}}},
                ], "initContainers": [
                    {"name": "i", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "1"}}}]}})
        );
    }

    #[test]
    fn bounds_are_upstreams_words() {
        let min = |per: &str| range(json!({"type": per, "min": {"cpu": "200m"}}));
        let max = |per: &str| range(json!({"type": per, "max": {"memory": "1Gi"}}));
        let ratio = |amount: &str| range(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": amount}}));
        for (range, requests, limits, expected) in [
            (min("Container"), json!({"cpu": "200m"}), json!({}), ""),
            (
                min("Container"),
                json!({}),
                json!({}),
                "minimum cpu usage per Container is 200m.  No request is specified",
            ),
            (
                min("Container"),
                json!({"cpu": "0.1"}),
                json!({}),
                "minimum cpu usage per Container is 200m, but request is 100m",
            ),
            (
                min("Pod"),
                json!({"cpu": "1"}),
                json!({"cpu": "100m"}),
                "minimum cpu usage per Pod is 200m, but limit is 100m",
            ),
            (max("Pod"), json!({}), json!({}), "maximum memory usage per Pod is 1Gi.  No limit is specified"),
            (
                max("Container"),
                json!({}),
                json!({"memory": "2Gi"}),
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
            ),
            (
                ratio("2"),
                json!({"cpu": "1"}),
                json!({"cpu": "3"}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (ratio("1500m"), json!({"cpu": "2"}), json!({"cpu": "3"}), ""),
            (
                ratio("2"),
                json!({}),
                json!({"cpu": "3"}),
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
        ] {
            let found = check_pod(&pod(requests, limits), &range).err().unwrap_or_default();
            assert_eq!(found, expected, "{range}");
        }
    }

    #[test]
    fn claims_are_bounded_and_several_errors_are_listed() {
        let range =
            range(json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
        let claim = |storage: &str| json!({"spec": {"resources": {"requests": {"storage": storage}}}});
        assert_eq!(check_claim(&claim("1Gi"), &range), Ok(()));
        let why = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi";
        assert_eq!(check_claim(&claim("3Gi"), &range), Err(why.to_owned()));
        let why = "[minimum storage usage per PersistentVolumeClaim is 1Gi.  No request is specified, maximum storage \
                   usage per PersistentVolumeClaim is 2Gi.  No request is specified]";
        assert_eq!(check_claim(&json!({}), &range), Err(why.to_owned()));
    }
}
