//! What each kind refuses: a manifest, and the errors that a reference API server answered, in any order.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use kinds::Kind;
use meta::GroupVersion;
use serde_json::Value;

fn row(object: &Value) -> &'static Kind {
    let version = GroupVersion::parse(object["apiVersion"].as_str().unwrap()).unwrap();
    kinds::find(&version.group, &version.version, object["kind"].as_str().unwrap()).unwrap()
}

/// Objects are shown as Go structs upstream and as JSON here: the text before and after them is what counts.
fn without_objects(error: &str) -> String {
    match (error.find("value: {"), error.rfind('}')) {
        (Some(start), Some(end)) if start < end => format!("{}{{}}{}", &error[..start + 7], &error[end + 1..]),
        _ => error.to_owned(),
    }
}

#[test]
fn errors_are_upstreams() {
    let mut wrong = Vec::new();
    for case in include_str!("fixtures/invalid.txt").split("\n\n") {
        let (manifest, expected) = case.trim().split_once('\n').unwrap_or((case.trim(), ""));
        let mut object: Value = serde_json::from_str(manifest).unwrap();
        let row = row(&object);
        (row.default)(&mut object);
        if row.kind == "Job" {
            object["metadata"]["uid"] = "u".into();
            (row.prepare_create)(&mut object);
        }
        let mut actual: Vec<String> = (row.validate)(&object).iter().map(|e| without_objects(&e.to_string())).collect();
        let mut expected: Vec<String> = expected.lines().map(without_objects).collect();
        actual.sort();
        expected.sort();
        if actual != expected {
            wrong.push(format!(
                "{manifest}\n  have {}\n  want {}",
                actual.join("\n       "),
                expected.join("\n       ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn running_pods_change_little() {
    let pod: Value =
        serde_json::from_str(r#"{"spec":{"containers":[{"name":"a","image":"i"}],"nodeName":"n"}}"#).unwrap();
    let row = kinds::find("", "v1", "Pod").unwrap();
    let update = |change: fn(&mut Value)| {
        let mut new = pod.clone();
        change(&mut new);
        (row.validate_update)(&new, &pod).first().map(ToString::to_string).unwrap_or_default()
    };
    assert_eq!(update(|pod| pod["spec"]["containers"][0]["image"] = "j".into()), "");
    assert_eq!(update(|pod| pod["spec"]["tolerations"] = serde_json::json!([{"operator": "Exists"}])), "");
    let refused = update(|pod| pod["spec"]["nodeName"] = "m".into());
    assert!(refused.starts_with("spec: Forbidden: pod updates may not change fields other than"), "{refused}");
}

#[test]
fn sets_keep_what_their_pods_depend_on() {
    let refused = |kind: &str, old: Value, change: fn(&mut Value)| {
        let row = kinds::find("apps", "v1", kind).unwrap();
        let mut new = old.clone();
        change(&mut new);
        let errors = (row.validate_update)(&new, &old);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let set = serde_json::json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "x", "replicas": 1}});
    let forbidden = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', \
        'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
        'minReadySeconds' are forbidden";
    assert_eq!(refused("StatefulSet", set.clone(), |set| set["spec"]["replicas"] = 2.into()), "");
    assert_eq!(refused("StatefulSet", set.clone(), |set| set["spec"]["serviceName"] = "y".into()), forbidden);
    let selector = refused("DaemonSet", set, |set| set["spec"]["selector"]["matchLabels"]["a"] = "c".into());
    assert_eq!(selector, r#"spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable"#);
    let revision = serde_json::json!({"revision": 1, "data": {"a": 1}});
    assert_eq!(refused("ControllerRevision", revision.clone(), |it| it["revision"] = 2.into()), "");
    let data = refused("ControllerRevision", revision, |it| it["data"]["a"] = 2.into());
    assert_eq!(data, r#"data: Invalid value: {"a":2}: field is immutable"#);
}

#[test]
fn daemon_sets_count_their_templates() {
    let row = kinds::find("apps", "v1", "DaemonSet").unwrap();
    let counted = |set: &Value| set["metadata"]["annotations"]["deprecated.daemonset.template.generation"].clone();
    let mut first = serde_json::json!({"metadata": {"name": "d"}, "spec": {"template": {"x": 1}}});
    (row.prepare_create)(&mut first);
    assert_eq!(counted(&first), "1");
    let mut other = first.clone();
    other["spec"]["template"]["x"] = 2.into();
    other["metadata"]["annotations"]["deprecated.daemonset.template.generation"] = "9".into();
    (row.prepare_update)(&mut other, &first);
    assert_eq!(counted(&other), "2");
    let mut same = other.clone();
    same["metadata"] = serde_json::json!({"name": "d"});
    (row.prepare_update)(&mut same, &other);
    assert_eq!(counted(&same), "2");
}

#[test]
fn counts_of_a_status_agree() {
    let row = kinds::find("apps", "v1", "StatefulSet").unwrap();
    let old = serde_json::json!({"status": {"replicas": 1, "collisionCount": 2}});
    let new =
        serde_json::json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3, "collisionCount": 1}});
    let errors: Vec<String> = (row.validate_status)(&new, &old).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "status.collisionCount: Invalid value: 1: cannot be decremented",
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas",
        ]
    );
}

#[test]
fn a_resize_changes_processor_and_memory_only() {
    let requests = |text: &str| -> Value {
        let resources: Value = serde_json::from_str(text).unwrap();
        serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i", "resources": resources}]}})
    };
    let old = r#"{"requests":{"cpu":"1","x.example/y":"1"},"limits":{"memory":"1Gi","x.example/y":"1"}}"#;
    let class = r#"spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing"#;
    let only = "spec: Forbidden: only cpu and memory resources are mutable";
    let table: [(&str, &[&str]); 5] = [
        (r#"{"requests":{"cpu":"2","x.example/y":"1"},"limits":{"memory":"2Gi","x.example/y":"1"}}"#, &[]),
        (
            r#"{"requests":{"x.example/y":"1"},"limits":{"memory":"1Gi","x.example/y":"1"}}"#,
            &["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
        ),
        (r#"{"requests":{"cpu":"1","x.example/y":"2"},"limits":{"memory":"1Gi","x.example/y":"2"}}"#, &[only]),
        (
            r#"{"requests":{"cpu":"1","memory":"1Gi","x.example/y":"1"},"limits":{"cpu":"1","memory":"1Gi","x.example/y":"1"}}"#,
            &[class],
        ),
        (r#"{"requests":{"cpu":"1","x.example/y":"1"},"limits":{"cpu":"3","memory":"1Gi","x.example/y":"1"}}"#, &[]),
    ];
    for (new, expected) in table {
        let result = kinds::core::resized_pod(&requests(new), &requests(old));
        let errors: Vec<String> = result.clone().err().iter().flatten().map(ToString::to_string).collect();
        assert_eq!(errors, expected, "{new}");
        if let Ok(pod) = result {
            assert_eq!(pod, requests(new));
        }
    }
    let mut renamed = requests(old);
    renamed["spec"]["containers"][0]["name"] = "b".into();
    let errors = kinds::core::resized_pod(&renamed, &requests(old)).unwrap_err();
    let why = "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize";
    assert_eq!(errors[0].to_string(), why);
    let mut other = requests(old);
    other["spec"]["containers"][0]["image"] = "j".into();
    assert_eq!(kinds::core::resized_pod(&other, &requests(old)).unwrap(), requests(old), "the rest is left alone");
    other["spec"]["containers"][0]["resizePolicy"] = serde_json::json!([{"resourceName": "cpu"}]);
    assert_eq!(kinds::core::resized_pod(&other, &requests(old)).unwrap_err()[0].to_string(), only);
    let mut mirror = requests(old);
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x".into();
    let errors = kinds::core::resized_pod(&mirror, &mirror).unwrap_err();
    assert_eq!(errors[0].to_string(), "[]: Forbidden: static pods cannot be resized");
}
