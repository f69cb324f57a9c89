//! Admission webhooks against a webhook server in this process.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod https;

use apiserver::Config;
use https::Hook;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use testkit::{AllowAll, NobodyElse, TestServer};

async fn start() -> TestServer {
    TestServer::start_with(Config::new(Arc::new(NobodyElse), Arc::new(AllowAll))).await
}

fn webhook(name: &str, hook: &Hook, more: Value) -> Value {
    let mut webhook = json!({"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": hook.client_config("/ask"), "timeoutSeconds": 2,
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}]});
    for (key, value) in more.as_object().unwrap() {
        webhook[key] = value.clone();
    }
    webhook
}

/// Makes a configuration and waits until it is in force.
async fn configure(test: &TestServer, kind: &str, name: &str, webhooks: Value) -> Result<(), kube::Error> {
    let plural = format!("{}s", kind.to_lowercase());
    let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "webhooks": webhooks});
    let url = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    let request = http::Request::post(url).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(&body).unwrap()).unwrap();
    test.client.request::<Value>(request).await?;
    test.server.engine().cache.wait_current().await.unwrap();
    Ok(())
}

fn map(name: &str, data: Value) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"a": "b"}}, "data": data})).unwrap()
}

fn failure(error: kube::Error) -> (String, u16) {
    match error {
        kube::Error::Api(status) => (status.message, status.code),
        other => panic!("not an API error: {other}"),
    }
}

#[tokio::test]
async fn validating_webhooks_refuse_in_their_own_words() {
    let test = start().await;
    let hook = Hook::start(|review| {
        let refused = review["request"]["object"]["data"]["bad"].is_string();
        json!({"allowed": !refused, "warnings": ["look out"],
            "status": {"message": "no bad data", "code": 403, "reason": "Forbidden"}})
    })
    .await;
    configure(&test, "ValidatingWebhookConfiguration", "v", json!([webhook("v.example.com", &hook, json!({}))]))
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let post = PostParams::default();
    maps.create(&post, &map("a", json!({}))).await.unwrap();
    let refused = failure(maps.create(&post, &map("b", json!({"bad": "x"}))).await.unwrap_err());
    assert_eq!(refused, ("admission webhook \"v.example.com\" denied the request: no bad data".to_owned(), 403));
    let asked = hook.asked();
    let request = &asked[0]["request"];
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!((&request["namespace"], &request["name"]), (&json!("default"), &json!("a")));
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert!(request["oldObject"].is_null() && request["object"]["kind"] == "ConfigMap");
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let last = hook.asked().pop().unwrap();
    assert_eq!((&last["request"]["operation"], &last["request"]["object"]), (&json!("DELETE"), &Value::Null));
}

#[tokio::test]
async fn mutating_webhooks_see_each_others_work() {
    let test = start().await;
    let add = |key: &'static str| {
        move |review: &Value| {
            let have = review["request"]["object"]["data"].as_object().map_or(0, serde_json::Map::len);
            https::patched(&json!([{"op": "add", "path": format!("/data/{key}"), "value": have.to_string()}]))
        }
    };
    let (first, second) = (Hook::start(add("first")).await, Hook::start(add("second")).await);
    let hooks = json!([
        webhook("first.example.com", &first, json!({"reinvocationPolicy": "IfNeeded"})),
        webhook("second.example.com", &second, json!({})),
    ]);
    configure(&test, "MutatingWebhookConfiguration", "m", hooks).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let made = maps.create(&PostParams::default(), &map("a", json!({"own": "x"}))).await.unwrap();
    // The first was asked again after the second changed the object.
    assert_eq!(serde_json::to_value(made.data).unwrap(), json!({"own": "x", "first": "3", "second": "2"}));
    assert_eq!((first.asked().len(), second.asked().len()), (2, 1));
}

#[tokio::test]
async fn selectors_and_conditions_say_who_is_asked() {
    let test = start().await;
    let hook = Hook::start(|_| json!({"allowed": false})).await;
    let hooks = json!([
        webhook("object.example.com", &hook, json!({"objectSelector": {"matchLabels": {"a": "other"}}})),
        webhook("namespace.example.com", &hook, json!({"namespaceSelector": {"matchLabels": {"x": "y"}}})),
        webhook(
            "condition.example.com",
            &hook,
            json!({"matchConditions": [{"name": "named", "expression": "object.metadata.name == 'asked'"}]})
        ),
    ]);
    configure(&test, "ValidatingWebhookConfiguration", "v", hooks).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    maps.create(&PostParams::default(), &map("a", json!({}))).await.unwrap();
    assert!(hook.asked().is_empty());
    let (message, code) = failure(maps.create(&PostParams::default(), &map("asked", json!({}))).await.unwrap_err());
    assert_eq!(message, "admission webhook \"condition.example.com\" denied the request without explanation");
    assert_eq!(code, 400);
    let broken = webhook("x.example.com", &hook, json!({"matchConditions": [{"name": "n", "expression": "object.("}]}));
    let error = configure(&test, "ValidatingWebhookConfiguration", "w", json!([broken])).await.unwrap_err();
    let (message, code) = failure(error);
    assert!(
        message.contains("webhooks[0].matchConditions[0].expression") && message.contains("compilation failed"),
        "{message}"
    );
    assert_eq!(code, 422);
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_fails_as_it_says() {
    let test = start().await;
    let gone = Hook::start(|_| json!({"allowed": true})).await;
    let config = gone.client_config("/ask");
    drop(gone);
    let slow = Hook::silent().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(test.client.clone());
    let one = |name: &str, client: &Value, policy: &str, timeout: u64| {
        json!([{"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": client,
            "failurePolicy": policy, "timeoutSeconds": timeout,
            "objectSelector": {"matchLabels": {"a": "b"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"], "operations": ["CREATE"]}]}])
    };
    let kind = "ValidatingWebhookConfiguration";
    configure(&test, kind, "ignored", one("i.example.com", &config, "Ignore", 1)).await.unwrap();
    maps.create(&PostParams::default(), &map("a", json!({}))).await.unwrap();
    configure(&test, kind, "slow", one("s.example.com", &slow.client_config("/ask"), "Fail", 1)).await.unwrap();
    let (message, code) = failure(maps.create(&PostParams::default(), &map("b", json!({}))).await.unwrap_err());
    assert!(
        message.contains("failed calling webhook \"s.example.com\": failed to call webhook: Post \"https://"),
        "{message}"
    );
    assert!(message.ends_with("/ask?timeout=1s\": context deadline exceeded"), "{message}");
    assert_eq!(code, 500);
}
