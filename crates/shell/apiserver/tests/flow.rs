//! Flow control by its objects: what every cluster has, and what its administrators add.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use access::User;
use http::{HeaderMap, Request};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use kube::api::{Api, DeleteParams, PostParams};
use kube::client::Body;
use kube::runtime::wait::await_condition;
use serde_json::json;
use testkit::TestServer;

const DEADLINE: Duration = Duration::from_secs(5);

async fn headers(test: &TestServer, name: &str) -> HeaderMap {
    let user = User { name: name.to_owned(), groups: vec!["system:authenticated".to_owned()], ..User::default() };
    let request = Request::get("/version").body(Body::empty()).unwrap();
    test.server.client_as(user).send(request).await.unwrap().headers().clone()
}

fn uids(headers: &HeaderMap) -> [Option<String>; 2] {
    ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"]
        .map(|name| headers.get(name).map(|uid| uid.to_str().unwrap().to_owned()))
}

async fn is_dangling(schemas: &Api<FlowSchema>, name: &str, wanted: &str) {
    let told = |schema: Option<&FlowSchema>| {
        let conditions = schema.and_then(|schema| schema.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|one| one.status.as_deref() == Some(wanted)))
    };
    let told = await_condition(schemas.clone(), name, told);
    tokio::time::timeout(DEADLINE, told).await.expect("told in time").unwrap();
}

#[tokio::test]
async fn requests_go_where_their_schema_says() {
    let test = TestServer::start().await;
    let schemas: Api<FlowSchema> = Api::all(test.client.clone());
    let levels: Api<PriorityLevelConfiguration> = Api::all(test.client.clone());
    is_dangling(&schemas, "global-default", "False").await;
    let uid = |metadata: kube::core::ObjectMeta| metadata.uid;
    let schema = uid(schemas.get("global-default").await.unwrap().metadata);
    let level = uid(levels.get("global-default").await.unwrap().metadata);
    assert_eq!(uids(&headers(&test, "noxu").await), [schema.clone(), level]);

    let own = json!({"metadata": {"name": "own"}, "spec": {"priorityLevelConfiguration": {"name": "own"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "noxu"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    let own = schemas.create(&PostParams::default(), &serde_json::from_value(own).unwrap()).await.unwrap();
    is_dangling(&schemas, "own", "True").await;
    assert_eq!(uids(&headers(&test, "noxu").await)[0], schema);
    let limited = json!({"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}});
    let level = json!({"metadata": {"name": "own"}, "spec": {"type": "Limited", "limited": limited}});
    let level = levels.create(&PostParams::default(), &serde_json::from_value(level).unwrap()).await.unwrap();
    is_dangling(&schemas, "own", "False").await;
    assert_eq!(uids(&headers(&test, "noxu").await), [own.metadata.uid, level.metadata.uid]);
    assert_eq!(uids(&headers(&test, "foo").await)[0], schema);

    let metrics = test.client.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    assert!(metrics.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"own\"} 3"), "{metrics}");
}

#[tokio::test]
async fn what_every_cluster_has_comes_back() {
    let test = TestServer::start().await;
    let levels: Api<PriorityLevelConfiguration> = Api::all(test.client.clone());
    let before = levels.get("catch-all").await.unwrap().metadata.uid;
    levels.delete("catch-all", &DeleteParams::default()).await.unwrap();
    let back = await_condition(levels, "catch-all", |level: Option<&PriorityLevelConfiguration>| {
        level.is_some_and(|level| level.metadata.uid != before)
    });
    tokio::time::timeout(DEADLINE, back).await.expect("back in time").unwrap();
}
