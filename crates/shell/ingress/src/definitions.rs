//! The definitions of Gateway API's kinds, as Tug installs them: every field of the standard channel that Tug serves or
//! reports, with the bounds and defaults that the API states. Fields that nobody here reads are pruned, not kept in vain.

use serde_json::{Map, Value, json};

const GROUP: &str = "gateway.networking.k8s.io";
/// The release of Gateway API whose rules are followed.
const BUNDLE: &str = "v1.4.0";
/// Groups that end with k8s.io state where they were approved.
const APPROVAL: &str = "https://github.com/kubernetes-sigs/gateway-api/pull/3328";

const HOST: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const PRECISE_HOST: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const GROUP_PATTERN: &str = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const KIND_PATTERN: &str = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
const NAMESPACE_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const HEADER_PATTERN: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";
const DURATION_PATTERN: &str = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$";
const CONTROLLER_PATTERN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$";

/// A string of a length and, unless empty, a pattern.
fn text(min: u32, max: u32, pattern: &str) -> Value {
    let mut schema = json!({"type": "string", "minLength": min, "maxLength": max});
    if !pattern.is_empty() {
        schema["pattern"] = pattern.into();
    }
    schema
}

fn one_of(values: &[&str]) -> Value {
    json!({"type": "string", "enum": values})
}

fn number(min: i64, max: i64) -> Value {
    json!({"type": "integer", "format": "int32", "minimum": min, "maximum": max})
}

fn port() -> Value {
    number(1, 65535)
}

fn or(mut schema: Value, default: impl Into<Value>) -> Value {
    schema["default"] = default.into();
    schema
}

fn list(items: Value, max: u32) -> Value {
    json!({"type": "array", "items": items, "maxItems": max})
}

/// A list whose items are told apart by these fields.
fn map_list(items: Value, max: u32, keys: &[&str]) -> Value {
    json!({"type": "array", "items": items, "maxItems": max,
           "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys})
}

/// An object; a field with a star at the end of its name is required.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let required: Vec<&str> = fields.iter().filter_map(|(name, _)| name.strip_suffix('*')).collect();
    let named = |(name, schema): &(&str, Value)| (name.trim_end_matches('*').to_owned(), schema.clone());
    let properties: Map<String, Value> = fields.iter().map(named).collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn name() -> Value {
    text(1, 253, "")
}

fn group() -> Value {
    json!({"type": "string", "maxLength": 253, "pattern": GROUP_PATTERN})
}

fn kind() -> Value {
    text(1, 63, KIND_PATTERN)
}

fn namespace() -> Value {
    text(1, 63, NAMESPACE_PATTERN)
}

fn condition() -> Value {
    object([
        ("type*", text(1, 316, "")),
        ("status*", one_of(&["True", "False", "Unknown"])),
        ("observedGeneration", json!({"type": "integer", "format": "int64", "minimum": 0})),
        ("lastTransitionTime*", json!({"type": "string", "format": "date-time"})),
        ("reason*", text(1, 1024, "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")),
        ("message*", json!({"type": "string", "maxLength": 32768})),
    ])
}

fn conditions() -> Value {
    map_list(condition(), 8, &["type"])
}

/// A status with the conditions of an object that no controller has seen yet.
fn unseen(types: &[&str], mut status: Value) -> Value {
    let one = |type_: &&str| {
        json!({"type": type_, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
               "lastTransitionTime": "1970-01-01T00:00:00Z"})
    };
    let unknown = Value::Array(types.iter().map(one).collect());
    status["properties"]["conditions"] = or(conditions(), unknown.clone());
    or(status, json!({"conditions": unknown}))
}

fn class() -> (Value, Value) {
    let parameters = object([("group*", group()), ("kind*", kind()), ("name*", name()), ("namespace", namespace())]);
    let mut controller = text(1, 253, CONTROLLER_PATTERN);
    controller["x-kubernetes-validations"] = json!([{"rule": "self == oldSelf", "message": "Value is immutable"}]);
    let spec = object([
        ("controllerName*", controller),
        ("parametersRef", parameters),
        ("description", json!({"type": "string", "maxLength": 64})),
    ]);
    let features = map_list(object([("name*", json!({"type": "string"}))]), 64, &["name"]);
    (spec, unseen(&["Accepted"], object([("supportedFeatures", features)])))
}

fn address() -> Value {
    object([("type", or(text(1, 253, ""), "IPAddress")), ("value*", text(1, 253, ""))])
}

fn listener() -> Value {
    let certificate = object([
        ("group", or(group(), "")),
        ("kind", or(kind(), "Secret")),
        ("name*", name()),
        ("namespace", namespace()),
    ]);
    let options =
        json!({"type": "object", "maxProperties": 16, "additionalProperties": {"type": "string", "maxLength": 4096}});
    let tls = object([
        ("mode", or(one_of(&["Terminate", "Passthrough"]), "Terminate")),
        ("certificateRefs", list(certificate, 64)),
        ("options", options),
    ]);
    let requirement = object([
        ("key*", json!({"type": "string"})),
        ("operator*", json!({"type": "string"})),
        ("values", json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"})),
    ]);
    let selector = object([
        ("matchLabels", json!({"type": "object", "additionalProperties": {"type": "string"}})),
        ("matchExpressions", json!({"type": "array", "items": requirement, "x-kubernetes-list-type": "atomic"})),
    ]);
    let from = or(one_of(&["All", "Selector", "Same", "None"]), "Same");
    let namespaces = or(object([("from", from), ("selector", selector)]), json!({"from": "Same"}));
    let kinds = list(object([("group", or(group(), GROUP)), ("kind*", kind())]), 8);
    let allowed = or(object([("namespaces", namespaces), ("kinds", kinds)]), json!({"namespaces": {"from": "Same"}}));
    object([
        ("name*", text(1, 253, PRECISE_HOST)),
        ("hostname", text(1, 253, HOST)),
        ("port*", port()),
        ("protocol*", text(1, 255, "")),
        ("tls", tls),
        ("allowedRoutes", allowed),
    ])
}

fn gateway() -> (Value, Value) {
    let mut listeners = map_list(listener(), 64, &["name"]);
    listeners["minItems"] = 1.into();
    listeners["x-kubernetes-validations"] = json!([
        {"rule": "self.all(l, l.protocol in ['HTTP', 'TCP', 'UDP'] ? !has(l.tls) : true)",
         "message": "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']"},
        {"rule": "self.all(l, l.protocol in ['TCP', 'UDP'] ? (!has(l.hostname) || l.hostname == '') : true)",
         "message": "hostname must not be specified for protocols ['TCP', 'UDP']"},
    ]);
    let labels =
        json!({"type": "object", "maxProperties": 8, "additionalProperties": {"type": "string", "maxLength": 4096}});
    let spec = object([
        ("gatewayClassName*", name()),
        ("listeners*", listeners),
        ("addresses", list(address(), 16)),
        ("infrastructure", object([("labels", labels.clone()), ("annotations", labels)])),
    ]);
    let kinds = list(object([("group", or(group(), GROUP)), ("kind*", kind())]), 8);
    let listener = object([
        ("name*", text(1, 253, PRECISE_HOST)),
        ("supportedKinds", kinds),
        ("attachedRoutes*", json!({"type": "integer", "format": "int32"})),
        ("conditions*", conditions()),
    ]);
    let status = object([("addresses", list(address(), 16)), ("listeners", map_list(listener, 64, &["name"]))]);
    (spec, unseen(&["Accepted", "Programmed"], status))
}

fn header_lines() -> Value {
    let line = object([("name*", text(1, 256, HEADER_PATTERN)), ("value*", text(1, 4096, ""))]);
    map_list(line, 16, &["name"])
}

fn header_modifier() -> Value {
    let names = json!({"type": "array", "items": {"type": "string"}, "maxItems": 16, "x-kubernetes-list-type": "set"});
    object([("set", header_lines()), ("add", header_lines()), ("remove", names)])
}

fn path_modifier() -> Value {
    let mut schema = object([
        ("type*", one_of(&["ReplaceFullPath", "ReplacePrefixMatch"])),
        ("replaceFullPath", json!({"type": "string", "maxLength": 1024})),
        ("replacePrefixMatch", json!({"type": "string", "maxLength": 1024})),
    ]);
    schema["x-kubernetes-validations"] = json!([
        {"rule": "(self.type == 'ReplaceFullPath') == has(self.replaceFullPath)",
         "message": "replaceFullPath belongs to type 'ReplaceFullPath' and is needed there"},
        {"rule": "(self.type == 'ReplacePrefixMatch') == has(self.replacePrefixMatch)",
         "message": "replacePrefixMatch belongs to type 'ReplacePrefixMatch' and is needed there"},
    ]);
    schema
}

fn filters() -> Value {
    let mut status = number(0, 599);
    status["enum"] = json!([301, 302, 303, 307, 308]);
    let redirect = object([
        ("scheme", one_of(&["http", "https"])),
        ("hostname", text(1, 253, PRECISE_HOST)),
        ("path", path_modifier()),
        ("port", port()),
        ("statusCode", or(status, 302)),
    ]);
    let rewrite = object([("hostname", text(1, 253, PRECISE_HOST)), ("path", path_modifier())]);
    let extension = object([("group*", group()), ("kind*", kind()), ("name*", name())]);
    let kinds = [
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
    ];
    let mut filter = object([
        ("type*", one_of(&kinds)),
        ("requestHeaderModifier", header_modifier()),
        ("responseHeaderModifier", header_modifier()),
        ("requestRedirect", redirect),
        ("urlRewrite", rewrite),
        ("extensionRef", extension),
    ]);
    let contents = [
        ("RequestHeaderModifier", "requestHeaderModifier"),
        ("ResponseHeaderModifier", "responseHeaderModifier"),
        ("RequestRedirect", "requestRedirect"),
        ("URLRewrite", "urlRewrite"),
        ("ExtensionRef", "extensionRef"),
    ];
    let rule = |(type_, field): (&str, &str)| {
        json!({"rule": format!("(self.type == '{type_}') == has(self.{field})"),
               "message": format!("{field} belongs to type '{type_}' and is needed there")})
    };
    filter["x-kubernetes-validations"] = contents.into_iter().map(rule).collect();
    list(filter, 16)
}

fn route_match() -> Value {
    let path = or(
        object([
            ("type", or(one_of(&["Exact", "PathPrefix", "RegularExpression"]), "PathPrefix")),
            ("value", or(json!({"type": "string", "maxLength": 1024}), "/")),
        ]),
        json!({"type": "PathPrefix", "value": "/"}),
    );
    let pairs = || {
        let kinds = or(one_of(&["Exact", "RegularExpression"]), "Exact");
        let pair = object([("type", kinds), ("name*", text(1, 256, HEADER_PATTERN)), ("value*", text(1, 4096, ""))]);
        map_list(pair, 16, &["name"])
    };
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    object([("path", path), ("headers", pairs()), ("queryParams", pairs()), ("method", one_of(&methods))])
}

fn parent() -> Value {
    object([
        ("group", or(group(), GROUP)),
        ("kind", or(kind(), "Gateway")),
        ("namespace", namespace()),
        ("name*", name()),
        ("sectionName", text(1, 253, PRECISE_HOST)),
        ("port", port()),
    ])
}

fn http_route() -> (Value, Value) {
    let backend = object([
        ("group", or(group(), "")),
        ("kind", or(kind(), "Service")),
        ("namespace", namespace()),
        ("name*", name()),
        ("port", port()),
        ("weight", or(number(0, 1_000_000), 1)),
        ("filters", filters()),
    ]);
    let duration = || json!({"type": "string", "pattern": DURATION_PATTERN});
    let timeouts = object([("request", duration()), ("backendRequest", duration())]);
    let every = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let rule = object([
        ("name", text(1, 253, PRECISE_HOST)),
        ("matches", or(list(route_match(), 64), every.clone())),
        ("filters", filters()),
        ("backendRefs", list(backend, 16)),
        ("timeouts", timeouts),
    ]);
    let mut rules = list(rule, 16);
    rules["minItems"] = 1.into();
    let spec = object([
        ("parentRefs", list(parent(), 32)),
        ("hostnames", list(text(1, 253, HOST), 16)),
        ("rules", or(rules, json!([{"matches": every}]))),
    ]);
    let of_parent = object([
        ("parentRef*", parent()),
        ("controllerName*", text(1, 253, CONTROLLER_PATTERN)),
        ("conditions", conditions()),
    ]);
    (spec, object([("parents*", list(of_parent, 32))]))
}

fn reference_grant() -> Value {
    let from = object([("group*", group()), ("kind*", kind()), ("namespace*", namespace())]);
    let to = object([("group*", group()), ("kind*", kind()), ("name", name())]);
    let some = |items| {
        let mut schema = list(items, 16);
        schema["minItems"] = 1.into();
        schema
    };
    object([("from*", some(from)), ("to*", some(to))])
}

/// One definition with its two versions.
struct Definition {
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    columns: Value,
    spec: Value,
    status: Option<Value>,
}

impl Definition {
    fn render(self) -> Value {
        let mut schema = object([
            ("apiVersion", json!({"type": "string"})),
            ("kind", json!({"type": "string"})),
            ("metadata", json!({"type": "object"})),
            ("spec*", self.spec),
        ]);
        let subresources = match self.status {
            Some(status) => {
                schema["properties"]["status"] = status;
                json!({"status": {}})
            }
            None => json!({}),
        };
        let version = |name: &str, storage: bool| {
            json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
                   "subresources": subresources, "additionalPrinterColumns": self.columns})
        };
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{GROUP}", self.plural), "annotations": {
                "api-approved.kubernetes.io": APPROVAL,
                "gateway.networking.k8s.io/bundle-version": BUNDLE,
                "gateway.networking.k8s.io/channel": "standard",
            }},
            "spec": {
                "group": GROUP,
                "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
                "names": {"kind": self.kind, "listKind": format!("{}List", self.kind), "plural": self.plural,
                          "singular": self.singular, "shortNames": self.short, "categories": ["gateway-api"]},
                "versions": [version("v1", true), version("v1beta1", false)],
            },
        })
    }
}

/// All definitions, ready to be created.
pub fn all() -> Vec<Value> {
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let age = || column("Age", "date", ".metadata.creationTimestamp");
    let ((class, class_status), (gateway, gateway_status), (route, route_status)) = (class(), gateway(), http_route());
    let accepted = column("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status");
    let definitions = [
        Definition {
            kind: "GatewayClass",
            plural: "gatewayclasses",
            singular: "gatewayclass",
            short: &["gc"],
            namespaced: false,
            columns: json!([column("Controller", "string", ".spec.controllerName"), accepted, age()]),
            spec: class,
            status: Some(class_status),
        },
        Definition {
            kind: "Gateway",
            plural: "gateways",
            singular: "gateway",
            short: &["gtw"],
            namespaced: true,
            columns: json!([
                column("Class", "string", ".spec.gatewayClassName"),
                column("Address", "string", ".status.addresses[*].value"),
                column("Programmed", "string", ".status.conditions[?(@.type==\"Programmed\")].status"),
                age(),
            ]),
            spec: gateway,
            status: Some(gateway_status),
        },
        Definition {
            kind: "HTTPRoute",
            plural: "httproutes",
            singular: "httproute",
            short: &[],
            namespaced: true,
            columns: json!([column("Hostnames", "string", ".spec.hostnames"), age()]),
            spec: route,
            status: Some(route_status),
        },
        Definition {
            kind: "ReferenceGrant",
            plural: "referencegrants",
            singular: "referencegrant",
            short: &["refgrant"],
            namespaced: true,
            columns: json!([age()]),
            spec: reference_grant(),
            status: None,
        },
    ];
    definitions.map(Definition::render).into()
}
