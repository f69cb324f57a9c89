//! Gateways, HTTPRoutes and grants in; routes and conditions out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use http::{HeaderMap, Method};
use routes::Key;
use routes::compile::{Plan, Snapshot, compile};
use routes::gateway::objects::{ClassSpec, GatewaySpec, GrantSpec, Object, RouteSpec};
use routes::gateway::status::{Condition, conditions, differs};
use routes::gateway::{Gateway, Objects};
use routes::settings::Settings;
use routes::table::Asked;
use routes::view::{EndpointView, Protocol, ServicePort, ServiceView, SliceView};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<S: DeserializeOwned>(value: &Value) -> Object<S> {
    let meta = &value["metadata"];
    Object {
        key: Key::new(meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str().unwrap()),
        generation: 1,
        created: meta["created"].as_i64().unwrap_or_default(),
        spec: serde_json::from_value(value["spec"].clone()).unwrap(),
    }
}

fn service(namespace: &str, name: &str, address: [u8; 4]) -> (ServiceView, SliceView) {
    let port = ServicePort { name: String::new(), number: 80, protocol: Protocol::Http1 };
    let endpoint = EndpointView { address: address.into(), ready: true, lingering: false, zones: vec![] };
    (
        ServiceView { key: Key::new(namespace, name), ports: vec![port], is_external_name: false },
        SliceView {
            key: Key::new(namespace, name),
            service: name.to_owned(),
            ports: vec![(String::new(), 8080)],
            endpoints: vec![endpoint],
        },
    )
}

fn plan(text: &str) -> Plan {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for document in text.split("\n---\n").filter(|document| !document.trim().is_empty()) {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        found.entry(object["kind"].as_str().unwrap().to_owned()).or_default().push(object);
    }
    let of = |kind: &str| found.get(kind).cloned().unwrap_or_default();
    let class = Object {
        key: Key::new("", "tug"),
        generation: 1,
        created: 0,
        spec: ClassSpec { controller_name: "tug.local/ingress".to_owned() },
    };
    let gateways: Vec<Gateway> = of("Gateway").iter().map(object::<GatewaySpec>).collect();
    let routes: Vec<_> = of("HTTPRoute").iter().map(object::<RouteSpec>).collect();
    let grants: Vec<_> = of("ReferenceGrant").iter().map(object::<GrantSpec>).collect();
    let services =
        [service("a", "one", [10, 0, 0, 1]), service("a", "two", [10, 0, 0, 2]), service("b", "far", [10, 0, 0, 3])];
    let namespaces = BTreeMap::from([("b".to_owned(), BTreeMap::from([("team".to_owned(), "x".to_owned())]))]);
    let certificates = BTreeMap::from([(Key::new("a", "broken"), "tls.key does not belong to tls.crt".to_owned())]);
    let snapshot = Snapshot {
        services: services.iter().map(|(service, _)| service).collect(),
        slices: services.iter().map(|(_, slice)| slice).collect(),
        gateway: Objects {
            classes: vec![&class],
            gateways: gateways.iter().collect(),
            routes: routes.iter().collect(),
            grants: grants.iter().collect(),
            namespaces,
            certificates,
        },
        ..Snapshot::default()
    };
    compile(&snapshot, &Settings::default())
}

fn render(plan: &Plan) -> String {
    let mut text = routes::text::render(&plan.table);
    let mut say = |what: String, conditions: &[Condition]| {
        let shown = conditions.iter().map(|c| format!("{}{}={}", if c.is_true { "" } else { "!" }, c.type_, c.reason));
        text.push_str(&format!("{what}: {}\n", shown.collect::<Vec<_>>().join(" ")));
    };
    for gateway in &plan.gateway.gateways {
        say(format!("Gateway {}", gateway.key), &gateway.conditions);
        for listener in &gateway.listeners {
            say(format!("  {} ({} routes)", listener.name, listener.attached_routes), &listener.conditions);
        }
    }
    for route in &plan.gateway.routes {
        for (parent, conditions) in &route.parents {
            say(format!("HTTPRoute {} to {}", route.key, parent.name), conditions);
        }
    }
    text
}

fn check(objects: &str, expected: Expect) {
    expected.assert_eq(&render(&plan(objects)));
}

const GATEWAY: &str = "
{kind: Gateway, metadata: {name: front, namespace: a}, spec: {gatewayClassName: tug, listeners: [
  {name: web, port: 80, protocol: HTTP},
  {name: shop, port: 80, protocol: HTTP, hostname: '*.shop.com', allowedRoutes: {namespaces: {from: All}}}]}}
";

#[test]
fn routes_are_matched_weighted_and_changed() {
    let plan = plan(&format!(
        "{GATEWAY}
---
{{kind: HTTPRoute, metadata: {{name: r, namespace: a}}, spec: {{parentRefs: [{{name: front}}], hostnames: [a.com, x.shop.com], rules: [
  {{matches: [{{path: {{type: PathPrefix, value: /}}}}], backendRefs: [{{name: one, port: 80, weight: 9}}, {{name: two, port: 80}}]}},
  {{matches: [{{path: {{type: PathPrefix, value: /}}, headers: [{{name: X-Canary, value: 'yes'}}]}}], backendRefs: [{{name: two, port: 80}}]}},
  {{matches: [{{path: {{type: Exact, value: /old}}}}], filters: [{{type: RequestRedirect, requestRedirect: {{path: {{type: ReplaceFullPath, replaceFullPath: /new}}, statusCode: 301}}}}]}},
  {{matches: [{{path: {{type: RegularExpression, value: '/[0-9]+'}}}}], backendRefs: [{{name: two, port: 80}}]}},
  {{matches: [{{path: {{type: PathPrefix, value: /q}}, method: POST, queryParams: [{{name: v, value: '2'}}]}}], timeouts: {{request: 5s}},
    filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /}}}}}},
              {{type: ResponseHeaderModifier, responseHeaderModifier: {{add: [{{name: X-By, value: tug}}], remove: [Server]}}}}],
    backendRefs: [{{name: one, port: 80}}]}}]}}}}"
    ));
    expect![[r#"
        port 80
          listener *.shop.com
            host x.shop.com
              exact /old -> redirect Redirect { scheme: None, host: None, port: None, path: Some(Full("/new")), status: 301 }
              regex ^(?:/[0-9]+)$ -> a/two:80 [10.0.0.2:8080]
              prefix /q/ method POST query v=2 -> response add x-by=tug, response remove server, rewrite Rewrite { host: None, path: Some(Prefix("/")) }, a/one:80 [10.0.0.1:8080]
              prefix / header x-canary=yes -> a/two:80 [10.0.0.2:8080]
              prefix / -> a/one:80 weight 9 [10.0.0.1:8080], a/two:80 weight 1 [10.0.0.2:8080]
          listener *
            host a.com
              exact /old -> redirect Redirect { scheme: None, host: None, port: None, path: Some(Full("/new")), status: 301 }
              regex ^(?:/[0-9]+)$ -> a/two:80 [10.0.0.2:8080]
              prefix /q/ method POST query v=2 -> response add x-by=tug, response remove server, rewrite Rewrite { host: None, path: Some(Prefix("/")) }, a/one:80 [10.0.0.1:8080]
              prefix / header x-canary=yes -> a/two:80 [10.0.0.2:8080]
              prefix / -> a/one:80 weight 9 [10.0.0.1:8080], a/two:80 weight 1 [10.0.0.2:8080]
            host x.shop.com
              exact /old -> redirect Redirect { scheme: None, host: None, port: None, path: Some(Full("/new")), status: 301 }
              regex ^(?:/[0-9]+)$ -> a/two:80 [10.0.0.2:8080]
              prefix /q/ method POST query v=2 -> response add x-by=tug, response remove server, rewrite Rewrite { host: None, path: Some(Prefix("/")) }, a/one:80 [10.0.0.1:8080]
              prefix / header x-canary=yes -> a/two:80 [10.0.0.2:8080]
              prefix / -> a/one:80 weight 9 [10.0.0.1:8080], a/two:80 weight 1 [10.0.0.2:8080]
        Gateway a/front: Accepted=Accepted Programmed=Programmed
          web (1 routes): Accepted=Accepted Programmed=Programmed ResolvedRefs=ResolvedRefs !Conflicted=NoConflicts
          shop (1 routes): Accepted=Accepted Programmed=Programmed ResolvedRefs=ResolvedRefs !Conflicted=NoConflicts
        HTTPRoute a/r to front: Accepted=Accepted ResolvedRefs=ResolvedRefs
    "#]]
    .assert_eq(&render(&plan));
    let headers =
        HeaderMap::from_iter([(http::HeaderName::from_static("x-canary"), http::HeaderValue::from_static("yes"))]);
    let found = |host, path, query, method: &Method, headers: &HeaderMap| {
        let route = plan.table.find(&Asked { port: 80, host, path, query, method, headers });
        route.map(|route| route.action.backends.first().map_or("none".into(), |b| b.backend.name.to_string()))
    };
    let none = HeaderMap::new();
    assert_eq!(found("a.com", "/", None, &Method::GET, &headers).as_deref(), Some("a/two:80"));
    assert_eq!(found("a.com", "/12", None, &Method::GET, &none).as_deref(), Some("a/two:80"));
    assert_eq!(found("a.com", "/q", Some("x=1&v=2"), &Method::POST, &none).as_deref(), Some("a/one:80"));
    assert_eq!(found("a.com", "/old", None, &Method::GET, &none).as_deref(), Some("none"));
    assert_eq!(found("b.com", "/", None, &Method::GET, &none), None);
    // The more specific listener alone serves its hosts.
    assert_eq!(found("y.shop.com", "/", None, &Method::GET, &none), None);
    let draws = (0..100).filter(|draw| {
        let route = plan.table.find(&Asked {
            port: 80,
            host: "a.com",
            path: "/",
            query: None,
            method: &Method::GET,
            headers: &none,
        });
        route.unwrap().action.choose(*draw).unwrap().backend.name.contains("one")
    });
    assert_eq!(draws.count(), 90);
}

#[test]
fn listeners_say_why_they_do_not_serve() {
    check(
        "
{kind: Gateway, metadata: {name: front, namespace: a}, spec: {gatewayClassName: tug, listeners: [
  {name: tcp, port: 99, protocol: TCP},
  {name: bare, port: 443, protocol: HTTPS, hostname: a.com},
  {name: broken, port: 443, protocol: HTTPS, hostname: b.com, tls: {certificateRefs: [{name: broken}]}},
  {name: far, port: 443, protocol: HTTPS, hostname: c.com, tls: {certificateRefs: [{name: cert, namespace: b}]}},
  {name: good, port: 443, protocol: HTTPS, hostname: d.com, tls: {certificateRefs: [{name: cert}]}},
  {name: clash, port: 443, protocol: HTTP},
  {name: twin1, port: 80, protocol: HTTP, hostname: t.com},
  {name: twin2, port: 80, protocol: HTTP, hostname: t.com},
  {name: kinds, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}]}}
---
{kind: Gateway, metadata: {name: foreign, namespace: a}, spec: {gatewayClassName: other, listeners: [{name: x, port: 80, protocol: HTTP}]}}
",
        expect![[r#"
            port 80
              listener *
            port 443 tls
              certificate b.com a/broken
              certificate d.com a/cert
              listener b.com
              listener d.com
            Gateway a/front: Accepted=ListenersNotValid Programmed=Programmed
              tcp (0 routes): !Accepted=UnsupportedProtocol !Programmed=Invalid ResolvedRefs=ResolvedRefs !Conflicted=NoConflicts
              bare (0 routes): Accepted=Accepted !Programmed=Invalid !ResolvedRefs=InvalidCertificateRef !Conflicted=NoConflicts
              broken (0 routes): Accepted=Accepted !Programmed=Invalid !ResolvedRefs=InvalidCertificateRef !Conflicted=NoConflicts
              far (0 routes): Accepted=Accepted !Programmed=Invalid !ResolvedRefs=RefNotPermitted !Conflicted=NoConflicts
              good (0 routes): Accepted=Accepted Programmed=Programmed ResolvedRefs=ResolvedRefs !Conflicted=NoConflicts
              clash (0 routes): Accepted=Accepted !Programmed=Invalid ResolvedRefs=ResolvedRefs Conflicted=ProtocolConflict
              twin1 (0 routes): Accepted=Accepted !Programmed=Invalid ResolvedRefs=ResolvedRefs Conflicted=HostnameConflict
              twin2 (0 routes): Accepted=Accepted !Programmed=Invalid ResolvedRefs=ResolvedRefs Conflicted=HostnameConflict
              kinds (0 routes): Accepted=Accepted !Programmed=Invalid !ResolvedRefs=InvalidRouteKinds !Conflicted=NoConflicts
        "#]],
    );
}

#[test]
fn routes_say_why_they_are_not_attached() {
    let route = |namespace: &str, name: &str, spec: &str| {
        format!("\n---\n{{kind: HTTPRoute, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}")
    };
    let text = [
        GATEWAY,
        &route("a", "section", "{parentRefs: [{name: front, sectionName: nobody}]}"),
        &route("a", "host", "{parentRefs: [{name: front, sectionName: shop}], hostnames: [a.com]}"),
        &route("b", "namespace", "{parentRefs: [{name: front, namespace: a, sectionName: web}]}"),
        &route("b", "far", "{parentRefs: [{name: front, namespace: a}], hostnames: [b.shop.com], rules: [{backendRefs: [{name: far, port: 80}]}]}"),
        &route("a", "filter", "{parentRefs: [{name: front}], rules: [{filters: [{type: ExtensionRef}]}]}"),
        &route("a", "partly", "{parentRefs: [{name: front, sectionName: web}], hostnames: [p.com], rules: [{filters: [{type: ExtensionRef}]}, {backendRefs: [{name: one, port: 80}]}]}"),
        &route("a", "refs", "{parentRefs: [{name: front, sectionName: web}], hostnames: [r.com], rules: [{backendRefs: [{name: far, namespace: b, port: 80}, {name: nobody, port: 80}]}]}"),
        &route("a", "foreign", "{parentRefs: [{name: elsewhere}]}"),
    ]
    .concat();
    let expected = expect![[r#"
        port 80
          listener *.shop.com
            host b.shop.com
              prefix / -> b/far:80 [10.0.0.3:8080]
          listener *
            host p.com
              prefix / -> a/one:80 [10.0.0.1:8080]
            host r.com
              prefix / -> b/far weight 1 (no ReferenceGrant permits the reference to another namespace), a/nobody:80 weight 1 (the Service does not exist)
        Gateway a/front: Accepted=Accepted Programmed=Programmed
          web (3 routes): Accepted=Accepted Programmed=Programmed ResolvedRefs=ResolvedRefs !Conflicted=NoConflicts
          shop (2 routes): Accepted=Accepted Programmed=Programmed ResolvedRefs=ResolvedRefs !Conflicted=NoConflicts
        HTTPRoute a/filter to front: !Accepted=UnsupportedValue ResolvedRefs=ResolvedRefs
        HTTPRoute a/host to front: !Accepted=NoMatchingListenerHostname ResolvedRefs=ResolvedRefs
        HTTPRoute a/partly to front: Accepted=Accepted ResolvedRefs=ResolvedRefs PartiallyInvalid=UnsupportedValue
        HTTPRoute a/refs to front: Accepted=Accepted !ResolvedRefs=RefNotPermitted
        HTTPRoute a/section to front: !Accepted=NoMatchingParent ResolvedRefs=ResolvedRefs
        HTTPRoute b/far to front: Accepted=Accepted ResolvedRefs=ResolvedRefs
        HTTPRoute b/namespace to front: !Accepted=NotAllowedByListeners ResolvedRefs=ResolvedRefs
    "#]];
    check(&text, expected);
    let granted = format!(
        "{text}
---
{{kind: ReferenceGrant, metadata: {{name: g, namespace: b}}, spec: {{
  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}}], to: [{{group: '', kind: Service, name: far}}]}}}}"
    );
    assert!(render(&plan(&granted)).contains("b/far:80 weight 1 [10.0.0.3:8080]"), "{}", render(&plan(&granted)));
}

#[test]
fn namespaces_are_chosen_by_their_labels() {
    let text = "
{kind: Gateway, metadata: {name: front, namespace: a}, spec: {gatewayClassName: tug, listeners: [
  {name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: x}}}}}]}}
---
{kind: HTTPRoute, metadata: {name: in, namespace: b}, spec: {parentRefs: [{name: front, namespace: a}], rules: [{backendRefs: [{name: far, port: 80}]}]}}
---
{kind: HTTPRoute, metadata: {name: out, namespace: a}, spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: one, port: 80}]}]}}
";
    let shown = render(&plan(text));
    assert!(shown.contains("HTTPRoute b/in to front: Accepted=Accepted"), "{shown}");
    assert!(shown.contains("HTTPRoute a/out to front: !Accepted=NotAllowedByListeners"), "{shown}");
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let wanted = [Condition::new("Accepted", true, "Accepted", "")];
    let first = conditions(&wanted, 1, &Value::Null, "2026-01-01T00:00:00Z");
    assert_eq!(conditions(&wanted, 1, &first, "2026-01-02T00:00:00Z"), first);
    let changed = conditions(&[Condition::new("Accepted", false, "No", "")], 1, &first, "2026-01-02T00:00:00Z");
    assert_eq!(changed[0]["lastTransitionTime"], "2026-01-02T00:00:00Z");
    assert!(differs(&json!({"conditions": changed}), &json!({"conditions": first})));
    assert!(!differs(&json!({"conditions": first, "listeners": []}), &json!({"conditions": first})));
}
