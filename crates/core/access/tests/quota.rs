//! Quotas against writes: what is charged, and the words of refusals.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use access::quota::{Change, Evaluator, Quota, amounts, check, correction, gives_back, recount};
use serde_json::{Value, json};

const NOW: i64 = 1_000_000;

fn quota(spec: Value, used: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": spec["hard"], "used": used}})
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"spec": {"containers": [{"name": "c"}]}});
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pod
}

fn asks(requests: Value, limits: Value) -> Value {
    pod(json!({"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}))
}

/// The new use of the only quota, `-` where nothing is charged, or the refusal.
fn outcome(resource: (&str, &str), quota: &Value, object: &Value, old: Option<&Value>, subresource: &str) -> String {
    let evaluator = Evaluator::of(resource.0, resource.1).unwrap();
    let change = Change { evaluator: &evaluator, subresource, object, old, now: NOW };
    match check(&[Quota::read(quota)], &change) {
        Ok(charged) => charged.first().map_or("-".to_owned(), |(_, used)| amounts::text(used)),
        Err(why) => why,
    }
}

#[test]
fn pods_are_charged_or_refused() {
    let simple = json!({"hard": {"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi", "services": "1"}});
    let used = json!({"pods": "1", "requests.cpu": "500m", "limits.memory": "0", "services": "0"});
    let full = asks(json!({"cpu": "500m"}), json!({"memory": "512Mi"}));
    let gpu = json!({"hard": {"requests.example.com/gpu": "1", "hugepages-2Mi": "4Mi"}});
    let no_gpu = json!({"requests.example.com/gpu": "0", "hugepages-2Mi": "0"});
    for (spec, used, pod, expected) in [
        (simple.clone(), used.clone(), full.clone(), "limits.memory=512Mi,pods=2,requests.cpu=1,services=0"),
        (
            simple.clone(),
            used.clone(),
            asks(json!({"cpu": "501m"}), json!({"memory": "2Gi"})),
            "exceeded quota: q, requested: limits.memory=2Gi,requests.cpu=501m, used: limits.memory=0,requests.cpu=500m, \
             limited: limits.memory=1Gi,requests.cpu=1",
        ),
        (
            simple.clone(),
            used,
            pod(json!({"initContainers": [{"name": "i"}]})),
            "failed quota: q: must specify limits.memory for: c,i; requests.cpu for: c,i",
        ),
        (
            simple,
            json!({"pods": "1"}),
            full.clone(),
            "status unknown for quota: q, resources: limits.memory,pods,requests.cpu",
        ),
        (json!({"hard": {"services": "1"}}), json!({"services": "0"}), full, "-"),
        (
            gpu.clone(),
            no_gpu.clone(),
            asks(json!({"example.com/gpu": "1", "hugepages-2Mi": "2Mi"}), json!({})),
            "hugepages-2Mi=2Mi,requests.example.com/gpu=1",
        ),
        (
            gpu,
            no_gpu,
            asks(json!({"example.com/gpu": "2"}), json!({})),
            "exceeded quota: q, requested: requests.example.com/gpu=2, used: requests.example.com/gpu=0, limited: \
             requests.example.com/gpu=1",
        ),
    ] {
        assert_eq!(outcome(("", "pods"), &quota(spec, used), &pod, None, ""), expected);
    }
}

#[test]
fn scopes_choose_pods() {
    let limited = pod(json!({"activeDeadlineSeconds": 5}));
    let classed = pod(json!({"priorityClassName": "high"}));
    let asking = asks(json!({"cpu": "1"}), json!({}));
    let term = json!({"topologyKey": "k", "namespaces": ["other"]});
    let near = pod(json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}));
    let selector = |operator: &str, values: Value| {
        json!({"hard": {"pods": "9"}, "scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let scoped = |scope: &str| json!({"hard": {"pods": "9"}, "scopes": [scope]});
    // Each quota with the pods it counts: plain, limited, classed, asking, near.
    for (spec, counted) in [
        (json!({"hard": {"pods": "9"}}), "pltan"),
        (scoped("Terminating"), "l"),
        (scoped("NotTerminating"), "ptan"),
        (scoped("BestEffort"), "pltn"),
        (scoped("NotBestEffort"), "a"),
        (scoped("PriorityClass"), "t"),
        (scoped("CrossNamespacePodAffinity"), "n"),
        (scoped("VolumeAttributesClass"), ""),
        (selector("In", json!(["high", "low"])), "t"),
        (selector("NotIn", json!(["high"])), "plan"),
        (selector("Exists", json!([])), "t"),
        (selector("DoesNotExist", json!([])), "plan"),
    ] {
        let quota = quota(spec, json!({"pods": "0"}));
        let pods = [
            ("p", pod(json!({}))),
            ("l", limited.clone()),
            ("t", classed.clone()),
            ("a", asking.clone()),
            ("n", near.clone()),
        ];
        let found: String = pods
            .iter()
            .filter(|(_, pod)| outcome(("", "pods"), &quota, pod, None, "") == "pods=1")
            .map(|(n, _)| *n)
            .collect();
        assert_eq!(found, counted, "{quota}");
    }
}

#[test]
fn other_objects_have_their_own_names() {
    let service = |kind: &str, ports: Value| json!({"spec": {"type": kind, "ports": ports}});
    let services = quota(
        json!({"hard": {"services": "5", "services.nodeports": "2", "services.loadbalancers": "1"}}),
        json!({"services": "0", "services.nodeports": "0", "services.loadbalancers": "0"}),
    );
    let two = json!([{"port": 1}, {"port": 2}]);
    let of = |object: &Value, old: Option<&Value>| outcome(("", "services"), &services, object, old, "");
    assert_eq!(of(&service("NodePort", two.clone()), None), "services=1,services.loadbalancers=0,services.nodeports=2");
    let grown = service("LoadBalancer", two.clone());
    let change = of(&grown, Some(&service("ClusterIP", two.clone())));
    assert_eq!(change, "services=0,services.loadbalancers=1,services.nodeports=2");
    assert_eq!(of(&service("ClusterIP", two), Some(&grown)), "-");
    let claims = quota(
        json!({"hard": {"requests.storage": "5Gi", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"}}),
        json!({"requests.storage": "0", "gold.storageclass.storage.k8s.io/requests.storage": "0"}),
    );
    let claim = |class: &str, size: &str| json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}});
    let of = |object: &Value| outcome(("", "persistentvolumeclaims"), &claims, object, None, "");
    assert_eq!(of(&claim("other", "2Gi")), "gold.storageclass.storage.k8s.io/requests.storage=0,requests.storage=2Gi");
    assert!(
        of(&claim("gold", "2Gi"))
            .starts_with("exceeded quota: q, requested: gold.storageclass.storage.k8s.io/requests")
    );
    let custom = quota(json!({"hard": {"count/lights.example.com": "1"}}), json!({"count/lights.example.com": "1"}));
    assert_eq!(
        outcome(("example.com", "lights"), &custom, &json!({}), None, ""),
        "exceeded quota: q, requested: count/lights.example.com=1, used: count/lights.example.com=1, limited: \
         count/lights.example.com=1"
    );
    assert_eq!(Evaluator::of("", "events"), None);
    for (name, group, plural) in [
        ("requests.cpu", "", "pods"),
        ("gold.storageclass.storage.k8s.io/requests.storage", "", "persistentvolumeclaims"),
        ("count/lights.example.com", "example.com", "lights"),
        ("secrets", "", "secrets"),
        ("big.deviceclass.resource.k8s.io/devices", "resource.k8s.io", "resourceclaims"),
    ] {
        assert_eq!(Evaluator::resource_of(name), Some((group.to_owned(), plural.to_owned())));
    }
    assert_eq!(Evaluator::resource_of("limits.example.com/gpu"), None);
    let bare =
        quota(json!({"hard": {"secrets": "9", "count/secrets": "9"}}), json!({"secrets": "0", "count/secrets": "0"}));
    assert_eq!(outcome(("", "secrets"), &bare, &json!({}), None, ""), "count/secrets=1,secrets=1");
}

#[test]
fn updates_charge_the_difference() {
    let spec = json!({"hard": {"pods": "1", "requests.cpu": "1"}});
    let quota = quota(spec, json!({"pods": "1", "requests.cpu": "500m"}));
    let (small, large) = (asks(json!({"cpu": "500m"}), json!({})), asks(json!({"cpu": "900m"}), json!({})));
    assert_eq!(outcome(("", "pods"), &quota, &large, Some(&small), "resize"), "pods=1,requests.cpu=900m");
    assert_eq!(outcome(("", "pods"), &quota, &small, Some(&large), "resize"), "-");
    let pods = Evaluator::of("", "pods").unwrap();
    assert!(!pods.handles("", &large, Some(&small)) && !pods.handles("status", &large, Some(&small)));
    let terminating = pod(json!({"activeDeadlineSeconds": 5}));
    assert!(pods.handles("", &terminating, Some(&small)) && pods.handles("", &small, None));
}

#[test]
fn recounting_sees_what_still_holds_something() {
    let spec = json!({"hard": {"pods": "5", "count/pods": "9", "requests.cpu": "2", "count/gone.example.com": "1"}});
    let quota = quota(spec, json!({"pods": "9", "count/gone.example.com": "1"}));
    let mut done = asks(json!({"cpu": "1"}), json!({}));
    done["status"] = json!({"phase": "Succeeded"});
    let mut stuck = asks(json!({"cpu": "1"}), json!({}));
    stuck["metadata"] =
        json!({"deletionTimestamp": meta::time::format_seconds(NOW - 60), "deletionGracePeriodSeconds": 30});
    let mut leaving = asks(json!({"cpu": "250m"}), json!({}));
    leaving["metadata"] =
        json!({"deletionTimestamp": meta::time::format_seconds(NOW - 10), "deletionGracePeriodSeconds": 30});
    let mut resized = asks(json!({"cpu": "100m"}), json!({}));
    resized["status"] = json!({"containerStatuses": [{"name": "c", "resources": {"requests": {"cpu": "300m"}}}]});
    assert_eq!(access::quota::counts_until(&leaving), Some(NOW + 20));
    let pods = [done, stuck, leaving, resized].map(|pod| Evaluator::Pods.essence(&pod));
    let (_, used) = recount(&quota, [(Evaluator::Pods, pods.iter())], NOW);
    assert_eq!(amounts::text(&used), "count/gone.example.com=1,count/pods=4,pods=2,requests.cpu=550m");
}

#[test]
fn a_status_is_corrected_when_it_differs() {
    let stated =
        quota(json!({"hard": {"pods": "4", "requests.cpu": "1"}}), json!({"pods": "2", "requests.cpu": "500m"}));
    let hard = amounts::read(&stated["spec"]["hard"]);
    let corrected = |used: Value| {
        let used = amounts::read(&used);
        (correction(&stated, &hard, &used).map(|status| status["used"].to_string()), gives_back(&stated, &used))
    };
    assert_eq!(corrected(json!({"pods": "2", "requests.cpu": "0.5"})), (None, false));
    let more = r#"{"pods":"3","requests.cpu":"500m"}"#.to_owned();
    assert_eq!(corrected(json!({"pods": "3", "requests.cpu": "500m"})), (Some(more), false));
    let both = r#"{"pods":"3","requests.cpu":"400m"}"#.to_owned();
    assert_eq!(corrected(json!({"pods": "3", "requests.cpu": "400m"})), (Some(both), true));
}
