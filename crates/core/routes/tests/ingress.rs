//! Ingresses, classes, Services and slices in; request lines in, backends out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use http::{HeaderMap, Method};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use routes::compile::{Plan, Snapshot, compile};
use routes::settings::Settings;
use routes::table::Asked;
use routes::view::{ClassView, IngressView, ServiceView, SliceView};
use serde_json::Value;

const CLASSES: &str = "
{kind: IngressClass, metadata: {name: tug, annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}}, spec: {controller: tug.local/ingress}}
---
{kind: IngressClass, metadata: {name: other}, spec: {controller: example.com/other}}
";

/// A Service `name` with port 80 (`http`) and one ready endpoint.
fn service(name: &str, address: &str) -> String {
    format!(
        "
---
{{kind: Service, metadata: {{name: {name}, namespace: a}}, spec: {{ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}
---
{{kind: EndpointSlice, addressType: IPv4, metadata: {{name: {name}-1, namespace: a, labels: {{kubernetes.io/service-name: {name}}}}},
 ports: [{{name: http, port: 8080}}], endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]}}"
    )
}

fn plan(text: &str) -> Plan {
    let mut objects: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for document in text.split("\n---\n").filter(|document| !document.trim().is_empty()) {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        objects.entry(object["kind"].as_str().unwrap().to_owned()).or_default().push(object);
    }
    let of = |kind: &str| objects.get(kind).cloned().unwrap_or_default().into_iter();
    let ingresses: Vec<IngressView> =
        of("Ingress").map(|o| IngressView::from(&serde_json::from_value::<Ingress>(o).unwrap())).collect();
    let classes: Vec<ClassView> =
        of("IngressClass").map(|o| ClassView::from(&serde_json::from_value::<IngressClass>(o).unwrap())).collect();
    let services: Vec<ServiceView> =
        of("Service").map(|o| ServiceView::from(&serde_json::from_value::<Service>(o).unwrap())).collect();
    let slices: Vec<SliceView> =
        of("EndpointSlice").map(|o| SliceView::from(&serde_json::from_value::<EndpointSlice>(o).unwrap())).collect();
    let snapshot = Snapshot {
        ingresses: ingresses.iter().collect(),
        classes: classes.iter().collect(),
        services: services.iter().collect(),
        slices: slices.iter().collect(),
        ..Snapshot::default()
    };
    compile(&snapshot, &Settings::default())
}

/// Each line is `PORT HOST PATH`; the answer is the backend.
fn ask(plan: &Plan, requests: &str) -> String {
    let mut answers = String::new();
    for line in requests.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [port, host, path] = words[..] else { panic!("{line:?}") };
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let host = if host == "-" { "" } else { host };
        let asked = Asked {
            port: port.parse().unwrap(),
            host: &routes::host::normalize(host),
            path: &routes::path::normalize(path),
            query,
            method: &Method::GET,
            headers: &HeaderMap::new(),
        };
        let found = plan.table.find(&asked).map_or("404".to_owned(), |route| routes::text::action(&route.action));
        answers.push_str(&format!("{line} -> {found}\n"));
    }
    answers
}

fn check(objects: &str, requests: &str, expected: Expect) {
    let plan = plan(objects);
    let mut text = ask(&plan, requests);
    for verdict in &plan.ingresses {
        for problem in &verdict.problems {
            text.push_str(&format!("{}: {problem}\n", verdict.key));
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn hosts_and_paths_choose_the_backend() {
    let objects = [
        CLASSES,
        "
---
{kind: Ingress, metadata: {name: one, namespace: a}, spec: {ingressClassName: tug, rules: [
  {host: foo.com, http: {paths: [
    {path: /, pathType: Prefix, backend: {service: {name: root, port: {number: 80}}}},
    {path: /api, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}},
    {path: /api, pathType: Exact, backend: {service: {name: exact, port: {number: 80}}}},
    {path: /any/*, pathType: ImplementationSpecific, backend: {service: {name: any, port: {number: 80}}}}]}},
  {host: '*.foo.com', http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: wild, port: {number: 80}}}}]}},
  {http: {paths: [{path: /health, pathType: Exact, backend: {service: {name: any, port: {number: 80}}}}]}}]}}",
        &service("root", "10.0.0.1"),
        &service("api", "10.0.0.2"),
        &service("exact", "10.0.0.3"),
        &service("any", "10.0.0.4"),
        &service("wild", "10.0.0.5"),
    ]
    .concat();
    check(
        &objects,
        "80 foo.com /
         80 FOO.com:80 /x?y=1
         80 foo.com /api
         80 foo.com /api/
         80 foo.com /apiary
         80 foo.com /x/../api/v1
         80 foo.com /any/thing
         80 bar.foo.com /health
         80 a.bar.foo.com /health
         80 a.bar.foo.com /
         80 - /health
         443 foo.com /",
        expect![[r#"
            80 foo.com / -> a/root:80 [10.0.0.1:8080]
            80 FOO.com:80 /x?y=1 -> a/root:80 [10.0.0.1:8080]
            80 foo.com /api -> a/exact:80 [10.0.0.3:8080]
            80 foo.com /api/ -> a/api:http [10.0.0.2:8080]
            80 foo.com /apiary -> a/root:80 [10.0.0.1:8080]
            80 foo.com /x/../api/v1 -> a/api:http [10.0.0.2:8080]
            80 foo.com /any/thing -> a/any:80 [10.0.0.4:8080]
            80 bar.foo.com /health -> a/wild:80 [10.0.0.5:8080]
            80 a.bar.foo.com /health -> a/any:80 [10.0.0.4:8080]
            80 a.bar.foo.com / -> 404
            80 - /health -> a/any:80 [10.0.0.4:8080]
            443 foo.com / -> 404
        "#]],
    );
}

#[test]
fn classes_say_whose_an_ingress_is() {
    let ingress = |name: &str, class: &str| {
        format!(
            "
---
{{kind: Ingress, metadata: {{name: {name}, namespace: a{}}}, spec: {{{} rules: [
  {{host: {name}.com, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: root, port: {{number: 80}}}}}}}}]}}}}]}}}}",
            class.strip_prefix('@').map_or(String::new(), |c| format!(", annotations: {{kubernetes.io/ingress.class: {c}}}")),
            if class.is_empty() || class.starts_with('@') { String::new() } else { format!("ingressClassName: {class},") },
        )
    };
    let objects = [
        CLASSES,
        &ingress("ours", "tug"),
        &ingress("theirs", "other"),
        &ingress("unknown", "nobody"),
        &ingress("none", ""),
        &ingress("annotated", "@tug"),
        &service("root", "10.0.0.1"),
    ]
    .concat();
    check(
        &objects,
        "80 ours.com /
         80 theirs.com /
         80 unknown.com /
         80 none.com /
         80 annotated.com /",
        expect![[r#"
            80 ours.com / -> a/root:80 [10.0.0.1:8080]
            80 theirs.com / -> 404
            80 unknown.com / -> 404
            80 none.com / -> a/root:80 [10.0.0.1:8080]
            80 annotated.com / -> a/root:80 [10.0.0.1:8080]
        "#]],
    );
}

#[test]
fn what_nobody_serves_says_why() {
    let objects = [
        CLASSES,
        "
---
{kind: Ingress, metadata: {name: bad, namespace: a, annotations: {ingress.tug.local/ssl-redirect: perhaps}}, spec: {
  defaultBackend: {resource: {kind: Bucket, name: files}},
  tls: [{hosts: [foo.com]}],
  rules: [{host: foo.com, http: {paths: [
    {path: /none, pathType: Prefix, backend: {service: {name: nobody, port: {number: 80}}}},
    {path: /port, pathType: Prefix, backend: {service: {name: root, port: {number: 81}}}}]}}]}}",
        &service("root", "10.0.0.1"),
    ]
    .concat();
    check(
        &objects,
        "80 foo.com /none
         80 foo.com /port
         80 bar.com /",
        expect![[r#"
            80 foo.com /none -> https, a/nobody:80 (the Service does not exist)
            80 foo.com /port -> https, a/root:81 (the Service has no such port)
            80 bar.com / -> Bucket files (backends other than Services are not served)
            a/bad: annotation ingress.tug.local/ssl-redirect: "perhaps" is not understood
            a/bad: backend a/nobody:80: the Service does not exist
            a/bad: backend a/root:81: the Service has no such port
            a/bad: backend Bucket files: backends other than Services are not served
            a/bad: a tls entry names no Secret
        "#]],
    );
}

#[test]
fn the_older_ingress_keeps_what_two_claim_and_defaults_come_last() {
    let objects = [
        CLASSES,
        "
---
{kind: Ingress, metadata: {name: young, namespace: a, creationTimestamp: '2026-01-02T00:00:00Z'}, spec: {
  rules: [{host: foo.com, http: {paths: [
    {path: /, pathType: Prefix, backend: {service: {name: young, port: {number: 80}}}},
    {path: /new, pathType: Prefix, backend: {service: {name: young, port: {number: 80}}}}]}}]}}
---
{kind: Ingress, metadata: {name: old, namespace: a, creationTimestamp: '2026-01-01T00:00:00Z'}, spec: {
  defaultBackend: {service: {name: rest, port: {number: 80}}},
  rules: [
    {host: foo.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: old, port: {number: 80}}}}]}},
    {host: bar.com, http: {paths: [{path: /x, pathType: Prefix, backend: {service: {name: old, port: {number: 80}}}}]}}]}}",
        &service("young", "10.0.0.1"),
        &service("old", "10.0.0.2"),
        &service("rest", "10.0.0.3"),
    ]
    .concat();
    check(
        &objects,
        "80 foo.com /
         80 foo.com /new
         80 bar.com /x
         80 bar.com /y
         80 else.com /",
        expect![[r#"
            80 foo.com / -> a/old:80 [10.0.0.2:8080]
            80 foo.com /new -> a/young:80 [10.0.0.1:8080]
            80 bar.com /x -> a/old:80 [10.0.0.2:8080]
            80 bar.com /y -> a/rest:80 [10.0.0.3:8080]
            80 else.com / -> a/rest:80 [10.0.0.3:8080]
        "#]],
    );
}

#[test]
fn certificates_are_found_by_name() {
    let objects = [
        CLASSES,
        "
---
{kind: Ingress, metadata: {name: tls, namespace: a}, spec: {
  tls: [{hosts: [foo.com, '*.foo.com'], secretName: foo}, {secretName: rest}],
  rules: [{host: foo.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: root, port: {number: 80}}}}]}}]}}",
        &service("root", "10.0.0.1"),
    ]
    .concat();
    let plan = plan(&objects);
    expect![[r#"
        port 80
          host foo.com
            prefix / -> https, a/root:80 [10.0.0.1:8080]
        port 443 tls
          certificate foo.com a/foo
          certificate *.foo.com a/foo
          certificate * a/rest
          host foo.com
            prefix / -> https, a/root:80 [10.0.0.1:8080]
    "#]]
    .assert_eq(&routes::text::render(&plan.table));
    let shown = |name| plan.table.certificates(443, name).map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(shown(Some("foo.com")), "a/foo a/rest");
    assert_eq!(shown(Some("x.foo.com")), "a/foo a/rest");
    assert_eq!(shown(Some("bar.com")), "a/rest");
    assert_eq!(shown(None), "a/rest");
}

#[test]
fn endpoints_that_end_are_used_only_when_nothing_else_is_left() {
    let objects = |conditions: &str| {
        format!(
            "{CLASSES}
---
{{kind: Ingress, metadata: {{name: one, namespace: a}}, spec: {{defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}}}}}
---
{{kind: Service, metadata: {{name: web, namespace: a}}, spec: {{clusterIP: None, ports: [{{port: 80, appProtocol: kubernetes.io/h2c}}]}}}}
---
{{kind: EndpointSlice, addressType: IPv4, metadata: {{name: web-1, namespace: a, labels: {{kubernetes.io/service-name: web}}}},
 ports: [{{name: '', port: 8080}}], endpoints: [
  {{addresses: [10.0.0.1], conditions: {{ready: false, serving: true, terminating: true}}}},
  {{addresses: [10.0.0.2], conditions: {conditions}}},
  {{addresses: [10.0.0.3], conditions: {{ready: false}}}}]}}"
        )
    };
    let found = |conditions| ask(&plan(&objects(conditions)), "80 a /");
    assert_eq!(found("{ready: true}"), "80 a / -> a/web:80 h2c [10.0.0.2:8080]\n");
    assert_eq!(found("{ready: false}"), "80 a / -> a/web:80 h2c [10.0.0.1:8080]\n");
}
