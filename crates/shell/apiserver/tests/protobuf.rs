//! Answers in protobuf: objects, lists, watches and failures, for kinds that have such a form.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use testkit::TestServer;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEADLINE: Duration = Duration::from_secs(5);

async fn send(test: &TestServer, method: Method, path: &str, headers: [&str; 2], body: Vec<u8>) -> Response<Body> {
    let [accept, content] = headers;
    let request = Request::builder().method(method).uri(path).header("accept", accept).header("content-type", content);
    test.client.send(request.body(Body::from(body)).unwrap()).await.unwrap()
}

async fn read(response: Response<Body>) -> (String, Vec<u8>) {
    let content = response.headers()["content-type"].to_str().unwrap().to_owned();
    (content, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

/// Fields come in any order.
fn sorted(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.sort_unstable();
    bytes
}

fn holds(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

async fn create(test: &TestServer, name: &str) -> Vec<u8> {
    let map = json!({"metadata": {"name": name}, "data": {"k": "v"}}).to_string();
    let accept = [&*format!("{PROTOBUF},application/json"), "application/json"];
    let (content, body) = read(send(test, Method::POST, MAPS, accept, map.into()).await).await;
    assert_eq!(content, PROTOBUF);
    assert!(body.starts_with(b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap"), "{body:?}");
    body
}

#[tokio::test]
async fn an_object_is_answered_as_it_may_be_sent() {
    let test = TestServer::start().await;
    let created = create(&test, "a").await;
    let one = &format!("{MAPS}/a");
    let (_, got) = read(send(&test, Method::GET, one, [PROTOBUF, ""], Vec::new()).await).await;
    assert_eq!(sorted(&got), sorted(&created));
    // The same object again changes nothing.
    let (_, put) = read(send(&test, Method::PUT, one, [PROTOBUF, PROTOBUF], got).await).await;
    assert_eq!(sorted(&put), sorted(&created));

    let only_metadata = &format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let (_, partial) = read(send(&test, Method::GET, one, [only_metadata, ""], Vec::new()).await).await;
    assert!(holds(&partial, b"PartialObjectMetadata") && !holds(&partial, b"\x12\x01v"), "{partial:?}");
    let (_, list) = read(send(&test, Method::GET, MAPS, [PROTOBUF, ""], Vec::new()).await).await;
    assert!(holds(&list, b"ConfigMapList") && holds(&list, b"\x0a\x01k\x12\x01v"), "{list:?}");

    // A failure is told in the same form; a table has none.
    let missing = send(&test, Method::GET, &format!("{MAPS}/b"), [PROTOBUF, ""], Vec::new()).await;
    assert_eq!(missing.status(), 404);
    let (content, failure) = read(missing).await;
    assert_eq!(content, PROTOBUF);
    assert!(holds(&failure, b"Status") && holds(&failure, b"NotFound"));
    let table = &format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(send(&test, Method::GET, one, [table, ""], Vec::new()).await.status(), 406);
    let (content, _) = read(send(&test, Method::GET, "/api/v1", [PROTOBUF, ""], Vec::new()).await).await;
    assert_eq!(content, "application/json");
}

#[tokio::test]
async fn a_watch_sends_frames() {
    let test = TestServer::start().await;
    create(&test, "a").await;
    let watched = send(&test, Method::GET, &format!("{MAPS}?watch=1"), [PROTOBUF, ""], Vec::new()).await;
    assert_eq!(watched.headers()["content-type"], format!("{PROTOBUF};stream=watch"));
    let mut body = watched.into_body();
    for name in ["a", "b"] {
        if name == "b" {
            create(&test, name).await;
        }
        let one = &format!("{MAPS}/{name}");
        let (_, wanted) = read(send(&test, Method::GET, one, [PROTOBUF, ""], Vec::new()).await).await;
        let frame = tokio::time::timeout(DEADLINE, body.frame()).await.expect("a frame in time").unwrap().unwrap();
        let frame = frame.into_data().unwrap();
        let (length, event) = frame.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
        assert!(event.starts_with(b"\x0a\x05ADDED\x12") && event.ends_with(&wanted), "{event:?}");
    }
}

#[tokio::test]
async fn custom_objects_have_no_such_form() {
    let test = TestServer::start().await;
    let names = json!({"plural": "things", "kind": "Thing"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "array", "items":
        {"type": "string"}}}}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": names, "versions": [version]}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let made = send(&test, Method::POST, path, [PROTOBUF, "application/json"], definition.to_string().into()).await;
    assert_eq!((made.status().as_u16(), read(made).await.0.as_str()), (201, PROTOBUF));
    let things = async {
        loop {
            let both = &format!("{PROTOBUF},application/json");
            let answer = send(&test, Method::GET, "/apis/example.com/v1/things", [both, ""], Vec::new()).await;
            if answer.status() == 200 {
                return read(answer).await;
            }
            tokio::task::yield_now().await;
        }
    };
    let (content, body) = tokio::time::timeout(DEADLINE, things).await.expect("served in time");
    assert_eq!(content, "application/json");
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["kind"], "ThingList");
    let only = send(&test, Method::GET, "/apis/example.com/v1/things", [PROTOBUF, ""], Vec::new()).await;
    assert_eq!(only.status(), 406);
}
