//! Custom kinds: defined at run time, served by the same engine, gone with their definition.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::{ApiResource, GroupVersionKind, Status, WatchEvent};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use testkit::TestServer;

const DEADLINE: Duration = Duration::from_secs(10);

fn widgets(schema: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]}]}})
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["color"], "properties": {
            "color": {"type": "string", "enum": ["red", "blue"]},
            "replicas": {"type": "integer", "default": 1, "maximum": 9},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"],
                    "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}}}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}})
}

fn resource(version: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", version, "Widget"))
}

async fn define(test: &TestServer, definition: Value) -> Api<CustomResourceDefinition> {
    let definitions: Api<CustomResourceDefinition> = Api::all(test.client.clone());
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let established = await_condition(definitions.clone(), "widgets.example.com", is_crd_established());
    tokio::time::timeout(DEADLINE, established).await.expect("established in time").unwrap();
    definitions
}

fn widget(name: &str, spec: Value) -> DynamicObject {
    let object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn failure(error: kube::Error) -> Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not an API error: {other}"),
    }
}

#[tokio::test]
async fn a_custom_object_is_defaulted_pruned_and_validated() {
    let test = TestServer::start().await;
    define(&test, widgets(schema())).await;
    let api: Api<DynamicObject> = Api::default_namespaced_with(test.client.clone(), &resource("v1"));
    let post = PostParams::default();
    let made = api.create(&post, &widget("a", json!({"color": "red", "extra": 1}))).await.unwrap();
    assert_eq!(made.data["spec"], json!({"color": "red", "replicas": 1}));
    assert_eq!(made.metadata.generation, Some(1));

    let wrong = failure(api.create(&post, &widget("b", json!({"color": "green", "replicas": "x"}))).await.unwrap_err());
    assert_eq!((wrong.code, wrong.reason.as_str()), (422, "Invalid"));
    let messages: Vec<String> =
        wrong.details.unwrap().causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
    assert_eq!(
        messages,
        [
            "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        ]
    );

    // The status is written through its subresource alone, and does not count as a wish.
    let status = Patch::Merge(json!({"status": {"replicas": 3}, "spec": {"color": "blue"}}));
    let written = api.patch_status("a", &PatchParams::default(), &status).await.unwrap();
    assert_eq!((&written.data["status"]["replicas"], &written.data["spec"]["color"]), (&json!(3), &json!("red")));
    assert_eq!(written.metadata.generation, Some(1));
    let scale = api.get_scale("a").await.unwrap();
    assert_eq!((scale.spec.unwrap().replicas, scale.status.unwrap().replicas), (Some(1), 3));
    let scaled = Patch::Merge(json!({"spec": {"replicas": 4}}));
    api.patch_scale("a", &PatchParams::default(), &scaled).await.unwrap();
    let got = api.get("a").await.unwrap();
    assert_eq!((&got.data["spec"]["replicas"], got.metadata.generation), (&json!(4), Some(2)));

    let strategic = failure(api.patch("a", &PatchParams::default(), &Patch::Strategic(json!({}))).await.unwrap_err());
    assert_eq!(strategic.code, 415);
    let bad = Patch::Merge(json!({"spec": {"replicas": 10}}));
    assert_eq!(failure(api.patch("a", &PatchParams::default(), &bad).await.unwrap_err()).code, 422);
    let blue = api.list(&ListParams::default().fields("spec.color=blue")).await.unwrap();
    assert_eq!(blue.items.len(), 0);
    assert_eq!(api.list(&ListParams::default().fields("spec.color=red")).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn apply_merges_lists_by_their_keys() {
    let test = TestServer::start().await;
    define(&test, widgets(schema())).await;
    let api: Api<DynamicObject> = Api::default_namespaced_with(test.client.clone(), &resource("v1"));
    let apply = |who: &str, parts: Value| {
        let object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"},
            "spec": {"color": "red", "parts": parts}});
        (PatchParams::apply(who), object)
    };
    for (who, part) in [("one", json!([{"name": "x", "size": 1}])), ("two", json!([{"name": "y", "size": 2}]))] {
        let (params, object) = apply(who, part);
        api.patch("a", &params, &Patch::Apply(object)).await.unwrap();
    }
    let got = api.get("a").await.unwrap();
    assert_eq!(got.data["spec"]["parts"], json!([{"name": "x", "size": 1}, {"name": "y", "size": 2}]));
    let (params, object) = apply("two", json!([{"name": "x", "size": 5}]));
    assert_eq!(failure(api.patch("a", &params, &Patch::Apply(object)).await.unwrap_err()).code, 409);
}

#[tokio::test]
async fn a_changed_definition_changes_what_is_served() {
    let test = TestServer::start().await;
    let definitions = define(&test, widgets(schema())).await;
    let api: Api<DynamicObject> = Api::default_namespaced_with(test.client.clone(), &resource("v1"));
    api.create(&PostParams::default(), &widget("a", json!({"color": "red"}))).await.unwrap();
    let mut second = widgets(schema())["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["shape"] =
        json!({"type": "string", "default": "round"});
    let patch = json!([{"op": "add", "path": "/spec/versions/-", "value": second}]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).unwrap());
    definitions.patch("widgets.example.com", &PatchParams::default(), &patch).await.unwrap();
    let newer: Api<DynamicObject> = Api::default_namespaced_with(test.client.clone(), &resource("v2"));
    let seen = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Ok(seen) = newer.get("a").await {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    });
    let seen = seen.await.unwrap();
    assert_eq!(seen.data["spec"]["shape"], "round", "defaults of the version reach stored objects");
    assert_eq!(seen.types.unwrap().api_version, "example.com/v2");
}

#[tokio::test]
async fn objects_are_watched_and_go_with_their_definition() {
    let test = TestServer::start().await;
    let definitions = define(&test, widgets(schema())).await;
    let api: Api<DynamicObject> = Api::default_namespaced_with(test.client.clone(), &resource("v1"));
    let made = api.create(&PostParams::default(), &widget("a", json!({"color": "red"}))).await.unwrap();
    let events = api.watch(&WatchParams::default(), made.metadata.resource_version.as_deref().unwrap()).await.unwrap();
    pin_mut!(events);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let event = tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Deleted(_)));
    api.create(&PostParams::default(), &widget("b", json!({"color": "red"}))).await.unwrap();

    definitions.delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    let gone = tokio::time::timeout(DEADLINE, async {
        while definitions.get_opt("widgets.example.com").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        while api.list(&ListParams::default()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    gone.await.expect("the definition and its objects are gone in time");
    define(&test, widgets(schema())).await;
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

#[tokio::test]
async fn a_definition_is_checked() {
    let test = TestServer::start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(test.client.clone());
    let mut bad = widgets(json!({"type": "object", "properties": {"spec": {"properties": {"a": {"type": "odd"}}}}}));
    bad["metadata"]["name"] = "gadgets.example.com".into();
    let bad: CustomResourceDefinition = serde_json::from_value(bad).unwrap();
    let status = failure(definitions.create(&PostParams::default(), &bad).await.unwrap_err());
    let causes: Vec<String> = status.details.unwrap().causes.iter().map(|cause| cause.field.clone()).collect();
    let schema = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
    assert_eq!(
        causes,
        [
            "metadata.name".to_owned(),
            format!("{schema}.properties[a].type"),
            format!("{schema}.type"),
            "spec.versions[0].selectableFields[0].jsonPath".to_owned()
        ]
    );
}

#[tokio::test]
async fn expressions_judge_a_value_and_what_it_was() {
    let test = TestServer::start().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "messageExpression": "'min ' + string(self.min) + ' is above max'", "fieldPath": ".min"},
            {"rule": "self.min >= oldSelf.min", "message": "min may not shrink", "reason": "FieldValueForbidden"}],
        "properties": {"color": {"type": "string"}, "min": {"type": "integer"}, "max": {"type": "integer", "default": 5},
            "names": {"type": "array", "maxItems": 9, "items": {"type": "string", "maxLength": 9,
                "x-kubernetes-validations": [{"rule": "self.startsWith('n')"}]}}}}}});
    define(&test, widgets(schema.clone())).await;
    let api: Api<DynamicObject> = Api::default_namespaced_with(test.client.clone(), &resource("v1"));
    let post = PostParams::default();
    let wrong = failure(api.create(&post, &widget("a", json!({"min": 9, "names": ["x"]}))).await.unwrap_err());
    let causes: Vec<_> =
        wrong.details.unwrap().causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
    assert_eq!(
        causes,
        [
            "spec.min: Invalid value: min 9 is above max",
            "spec.names[0]: Invalid value: \"x\": failed rule: self.startsWith('n')"
        ]
    );
    api.create(&post, &widget("a", json!({"min": 3}))).await.unwrap();
    let patch = |min: i64| Patch::Merge(json!({"spec": {"min": min}}));
    let wrong = failure(api.patch("a", &PatchParams::default(), &patch(2)).await.unwrap_err());
    assert!(wrong.message.ends_with("spec: Forbidden: min may not shrink"), "{}", wrong.message);
    api.patch("a", &PatchParams::default(), &patch(4)).await.unwrap();

    // What a definition's author got wrong is found at once.
    let definitions: Api<CustomResourceDefinition> = Api::all(test.client.clone());
    for (rule, expected) in [
        ("self.none == 1", "undefined field 'none'"),
        ("self.min + ", "Syntax error: mismatched input '<EOF>'"),
        ("self.names.all(a, self.names.all(b, self.names.all(c, a == b && b == c)))", "exceeds budget by factor of"),
        ("self.min", "must evaluate to a bool"),
    ] {
        let mut schema = schema.clone();
        schema["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": rule}]);
        let names = &mut schema["properties"]["spec"]["properties"]["names"];
        names.as_object_mut().unwrap().remove("maxItems");
        let mut definition = widgets(schema);
        definition["metadata"]["name"] = "others.example.com".into();
        definition["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
        let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
        let wrong = failure(definitions.create(&post, &definition).await.unwrap_err());
        assert!(wrong.message.contains(expected), "{rule}: {}", wrong.message);
    }
}

#[tokio::test]
async fn an_apply_names_only_what_is_declared_and_nothing_twice() {
    let test = TestServer::start().await;
    define(&test, widgets(schema())).await;
    let apply = async |body: &str, validation: &str| {
        let path = "/apis/example.com/v1/namespaces/default/widgets/a";
        let uri = format!("{path}?fieldManager=me&fieldValidation={validation}");
        let request = http::Request::patch(uri).header("content-type", "application/apply-patch+yaml");
        let body = format!("\napiVersion: example.com/v1\nkind: Widget\nmetadata:\n  name: a\n{body}");
        let answer = test.client.request_text(request.body(body.into_bytes()).unwrap()).await;
        answer.map_err(failure).map_err(|status| (status.code, status.message))
    };
    let of = "failed to create typed patch object (/a; example.com/v1, Kind=Widget): ";
    let cases = [
        ("  size: 1\nspec:\n  color: red\n", 500, format!("{of}.metadata.size: field not declared in schema")),
        (
            "spec:\n  color: red\n  parts:\n  - name: b\n    x: 1\n  y: 2\n",
            500,
            format!(
                "{of}errors:\n  .spec.parts[name=\"b\"].x: field not declared in schema\n  .spec.y: field not declared in schema"
            ),
        ),
        (
            "spec:\n  color: red\n  color: blue\n",
            400,
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 8: key \"color\" already set in map".to_owned(),
        ),
    ];
    for (body, code, message) in cases {
        assert_eq!(apply(body, "Strict").await.unwrap_err(), (code, message), "{body}");
    }
    let kept: Value =
        serde_json::from_str(&apply("spec:\n  color: red\n  color: blue\n", "Warn").await.unwrap()).unwrap();
    assert_eq!(kept["spec"]["color"], "blue");
}
