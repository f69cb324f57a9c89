//! Versions of a custom kind that its author's webhook turns into each other.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod https;

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use https::Hook;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::{ApiResource, GroupVersionKind, WatchEvent};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use testkit::TestServer;

const DEADLINE: Duration = Duration::from_secs(10);

/// Version v1 has `hostPort`, version v2 `host` and `port`.
fn converted(object: &Value, version: &str) -> Value {
    let mut new = json!({"apiVersion": version, "kind": "Site", "metadata": object["metadata"]});
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    if version.ends_with("v1") {
        new["hostPort"] = format!("{}:{}", text("host"), text("port")).into();
    } else {
        let both = text("hostPort");
        let (host, port) = both.split_once(':').unwrap_or_default();
        (new["host"], new["port"]) = (host.into(), port.into());
    }
    new
}

async fn define(test: &TestServer) -> Hook {
    let hook = Hook::raw(|review| {
        let request = &review["request"];
        let version = request["desiredAPIVersion"].as_str().unwrap();
        let objects = request["objects"].as_array().unwrap().iter().map(|object| converted(object, version));
        json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": {
            "uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects.collect::<Vec<_>>()}})
    })
    .await;
    let version = |name: &str, storage: bool, fields: &[&str]| {
        let properties = fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"})));
        let schema = json!({"type": "object", "properties": Value::Object(properties.collect())});
        let selectable: Vec<_> = fields.iter().map(|field| json!({"jsonPath": format!(".{field}")})).collect();
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "selectableFields": selectable})
    };
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "sites.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "sites", "kind": "Site"},
            "versions": [version("v1", true, &["hostPort"]), version("v2", false, &["host", "port"])],
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": hook.client_config("/convert")}}}});
    let definitions: Api<CustomResourceDefinition> = Api::all(test.client.clone());
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let established = await_condition(definitions, "sites.example.com", is_crd_established());
    tokio::time::timeout(DEADLINE, established).await.expect("established in time").unwrap();
    hook
}

fn sites(test: &TestServer, version: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", version, "Site"));
    Api::default_namespaced_with(test.client.clone(), &resource)
}

#[tokio::test]
async fn selectors_read_the_fields_of_the_version_that_is_asked_for() {
    let test = TestServer::start().await;
    let _hook = define(&test).await;
    let (old, new) = (sites(&test, "v1"), sites(&test, "v2"));
    let watch = new.watch(&WatchParams::default().fields("host=one"), "0").await.unwrap();
    pin_mut!(watch);
    for (name, host, port) in [("a", "one", "80"), ("b", "one", "8080"), ("c", "two", "80")] {
        let site = json!({"apiVersion": "example.com/v2", "kind": "Site", "metadata": {"name": name},
            "host": host, "port": port});
        new.create(&PostParams::default(), &serde_json::from_value(site).unwrap()).await.unwrap();
    }
    for (api, fields, expected) in [
        (&new, "host=one", "a b"),
        (&new, "host=one,port=80", "a"),
        (&new, "host!=one", "c"),
        (&new, "host=one,metadata.name=b", "b"),
        (&old, "hostPort=one:8080", "b"),
    ] {
        let list = api.list(&ListParams::default().fields(fields)).await.unwrap();
        let names: Vec<_> = list.items.into_iter().filter_map(|site| site.metadata.name).collect();
        assert_eq!(names.join(" "), expected, "{fields}");
    }

    let change = |host: &str| Patch::Merge(json!({"host": host}));
    new.patch("a", &PatchParams::default(), &change("three")).await.unwrap();
    new.patch("c", &PatchParams::default(), &change("one")).await.unwrap();
    new.delete("b", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let event = tokio::time::timeout(DEADLINE, watch.next()).await.unwrap().unwrap().unwrap();
        seen.push(match event {
            WatchEvent::Added(site) => format!("+{}", site.metadata.name.unwrap()),
            WatchEvent::Deleted(site) => format!("-{}", site.metadata.name.unwrap()),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["+a", "+b", "-a", "+c", "-b"]);

    new.delete_collection(&DeleteParams::default(), &ListParams::default().fields("host=three")).await.unwrap();
    let left = new.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.into_iter().filter_map(|site| site.metadata.name).collect::<Vec<_>>(), ["c"]);
}
