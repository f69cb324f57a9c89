//! Admission policies, Pod Security Standards and conversion webhooks, through a client in this process.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod https;

use std::sync::Arc;
use std::time::Duration;

use apiserver::{Config, admission};
use https::Hook;
use serde_json::{Value, json};
use testkit::{AllowAll, NobodyElse, TestServer};

async fn start() -> TestServer {
    let mut config = Config::new(Arc::new(NobodyElse), Arc::new(AllowAll));
    config.admission = vec![Arc::new(admission::pod_security::PodSecurity)];
    TestServer::start_with(config).await
}

/// Sends a request and answers what came back, or the message of the refusal with its code.
async fn send(test: &TestServer, method: &str, path: &str, body: &Value) -> Result<Value, (String, u16)> {
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("content-type", media);
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    let answer = test.client.request::<Value>(request.body(body).unwrap()).await;
    test.server.engine().cache.wait_current().await.unwrap();
    answer.map_err(|error| match error {
        kube::Error::Api(status) => (status.message, status.code),
        other => panic!("not an API error: {other}"),
    })
}

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn about_maps() -> Value {
    json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
        "operations": ["CREATE", "UPDATE"]}]})
}

#[tokio::test]
async fn a_bound_policy_judges_with_its_variables_and_parameters() {
    let test = start().await;
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "sizes"}, "spec": {"matchConstraints": about_maps(),
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "named", "expression": "object.metadata.name.startsWith('judged')"}],
            "variables": [{"name": "limit", "expression": "int(params.data.limit)"},
                {"name": "size", "expression": "object.data.size()"}],
            "validations": [{"expression": "variables.size <= variables.limit",
                "messageExpression": "'at most ' + string(variables.limit) + ' entries, not ' + string(variables.size)"},
                {"expression": "request.operation == 'CREATE' || oldObject.data == object.data", "reason": "Forbidden"}]}});
    let url = format!("{REGISTRATION}/validatingadmissionpolicies");
    send(&test, "POST", &url, &policy).await.unwrap();
    let limit = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "limit"}, "data": {"limit": "1"}});
    send(&test, "POST", MAPS, &limit).await.unwrap();
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "everywhere"}, "spec": {"policyName": "sizes", "validationActions": ["Deny"],
            "paramRef": {"name": "limit", "namespace": "default", "parameterNotFoundAction": "Deny"}}});
    send(&test, "POST", &format!("{REGISTRATION}/validatingadmissionpolicybindings"), &binding).await.unwrap();
    let map = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    send(&test, "POST", MAPS, &map("free", json!({"a": "1", "b": "2"}))).await.unwrap();
    send(&test, "POST", MAPS, &map("judged", json!({"a": "1"}))).await.unwrap();
    let (message, code) = send(&test, "POST", MAPS, &map("judged-2", json!({"a": "1", "b": "2"}))).await.unwrap_err();
    let expected = "configmaps \"judged-2\" is forbidden: ValidatingAdmissionPolicy 'sizes' with binding 'everywhere' denied request: at most 1 entries, not 2";
    assert_eq!((message.as_str(), code), (expected, 422));
    let change = json!({"data": {"a": "2"}});
    let (message, code) = send(&test, "PATCH", &format!("{MAPS}/judged"), &change).await.unwrap_err();
    assert!(message.contains("failed expression: request.operation == 'CREATE'"), "{message}");
    assert_eq!(code, 403);
    let mut broken = policy;
    broken["metadata"]["name"] = "broken".into();
    broken["spec"]["validations"][0]["expression"] = "variables.none > 1".into();
    let (message, _) = send(&test, "POST", &url, &broken).await.unwrap_err();
    assert!(
        message.contains("spec.validations[0].expression") && message.contains("undefined field 'none'"),
        "{message}"
    );
}

#[tokio::test]
async fn policies_change_objects_by_configurations_and_patches() {
    let test = start().await;
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "marks"}, "spec": {"matchConstraints": about_maps(), "reinvocationPolicy": "Never",
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                    "Object{metadata: Object.metadata{labels: Object.metadata.labels{marked: 'yes'}}}"}},
                {"patchType": "JSONPatch", "jsonPatch": {"expression":
                    "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a.b/c'), value: object.metadata.labels.marked}]"}}]}});
    send(&test, "POST", &format!("{REGISTRATION}/mutatingadmissionpolicies"), &policy).await.unwrap();
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "marks"}, "spec": {"policyName": "marks"}});
    send(&test, "POST", &format!("{REGISTRATION}/mutatingadmissionpolicybindings"), &binding).await.unwrap();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"own": "x"}}, "data": {"k": "v"}});
    let made = send(&test, "POST", MAPS, &map).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"own": "x", "marked": "yes", "a.b/c": "yes"}));
}

#[tokio::test]
async fn pods_are_held_to_the_level_of_their_namespace() {
    let test = start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict",
        "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    send(&test, "POST", "/api/v1/namespaces", &namespace).await.unwrap();
    let pod = |more: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"hostPID": more["hostPID"], "containers": [{"name": "c", "image": "i"}]}})
    };
    let pods = "/api/v1/namespaces/strict/pods";
    let (message, code) = send(&test, "POST", pods, &pod(json!({"hostPID": true}))).await.unwrap_err();
    let expected = "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)";
    assert_eq!((message.as_str(), code), (expected, 403));
    send(&test, "POST", pods, &pod(json!({}))).await.unwrap();
    let bad = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "nonsense"}}});
    let (message, _) = send(&test, "PATCH", "/api/v1/namespaces/strict", &bad).await.unwrap_err();
    assert!(message.contains("must be one of privileged, baseline, restricted"), "{message}");
}

#[tokio::test]
async fn a_webhook_turns_objects_into_other_versions() {
    let test = start().await;
    // v1 has `host` and `port`, v2 has `address`.
    let hook = Hook::raw(|review| {
        let request = &review["request"];
        let to = request["desiredAPIVersion"].as_str().unwrap();
        let convert = |object: &Value| {
            let mut new = object.clone();
            new["apiVersion"] = to.into();
            let fields = new.as_object_mut().unwrap();
            if to.ends_with("v2") {
                let address = format!("{}:{}", object["host"].as_str().unwrap(), object["port"].as_str().unwrap());
                fields.remove("host");
                fields.remove("port");
                fields.insert("address".to_owned(), address.into());
            } else {
                let address = object["address"].as_str().unwrap().split_once(':').unwrap();
                fields.remove("address");
                fields.insert("host".to_owned(), address.0.into());
                fields.insert("port".to_owned(), address.1.into());
            }
            new
        };
        let converted: Vec<Value> = request["objects"].as_array().unwrap().iter().map(convert).collect();
        json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": {"uid": request["uid"],
            "convertedObjects": converted, "result": {"status": "Success"}}})
    })
    .await;
    let text = |names: &[&str]| {
        let fields: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        json!({"openAPIV3Schema": {"type": "object", "properties": fields}})
    };
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "links.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "links", "kind": "Link"},
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": hook.client_config("/convert"),
                "conversionReviewVersions": ["v1"]}},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": text(&["host", "port"])},
                {"name": "v2", "served": true, "storage": false, "schema": text(&["address"])}]}});
    send(&test, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await.unwrap();
    let links = |version: &str| format!("/apis/example.com/{version}/namespaces/default/links");
    let link =
        json!({"apiVersion": "example.com/v1", "kind": "Link", "metadata": {"name": "a"}, "host": "h", "port": "1"});
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while send(&test, "POST", &links("v1"), &link).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the kind was not served in time");
        tokio::task::yield_now().await;
    }
    let read = send(&test, "GET", &format!("{}/a", links("v2")), &Value::Null).await.unwrap();
    assert_eq!((&read["address"], &read["host"]), (&json!("h:1"), &Value::Null));
    let second = json!({"apiVersion": "example.com/v2", "kind": "Link", "metadata": {"name": "b"}, "address": "x:2"});
    send(&test, "POST", &links("v2"), &second).await.unwrap();
    let list = send(&test, "GET", &links("v2"), &Value::Null).await.unwrap();
    let addresses: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["h:1", "x:2"]);
    let list = send(&test, "GET", &links("v1"), &Value::Null).await.unwrap();
    assert_eq!(list["items"][1]["port"], "2");
}

#[tokio::test]
async fn expressions_are_checked_against_the_types_that_they_read() {
    let test = start().await;
    let url = format!("{REGISTRATION}/validatingadmissionpolicies");
    let told = async |name: &str, expression: &str, message: &str| {
        let rule =
            json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["*"]});
        let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [rule]},
                "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
                "validations": [{"expression": expression, "messageExpression": message}]}});
        send(&test, "POST", &url, &policy).await.unwrap();
        let status = async {
            loop {
                let read = send(&test, "GET", &format!("{url}/{name}"), &Value::Null).await.unwrap();
                if read["status"]["typeChecking"].is_object() {
                    return read["status"].clone();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), status).await.expect("checked in time")
    };
    let fine = "variables.replicas > 1 && object.metadata.labels.exists(key, key == 'a')";
    assert_eq!(told("fine", fine, "'no'").await, json!({"observedGeneration": 1, "typeChecking": {}}));
    let confused = told("confused", "object.spec.replicas > '1'", "'got ' + variables.replicas").await;
    let warnings = confused["typeChecking"]["expressionWarnings"].as_array().unwrap();
    let expected = [
        ("spec.validations[0].expression", "found no matching overload for '_>_' applied to '(int, string)'"),
        ("spec.validations[0].messageExpression", "found no matching overload for '_+_' applied to '(string, int)'"),
    ];
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, (place, why)) in warnings.iter().zip(expected) {
        assert_eq!(warning["fieldRef"], place);
        let text = warning["warning"].as_str().unwrap();
        assert!(text.starts_with("apps/v1, Kind=Deployment: ") && text.contains(why), "{text}");
    }
    let unknown = told("unknown", "object.spec.maxRetries < 10", "").await;
    let text = unknown["typeChecking"]["expressionWarnings"][0]["warning"].as_str().unwrap();
    assert!(text.contains("undefined field 'maxRetries'"), "{text}");
}
