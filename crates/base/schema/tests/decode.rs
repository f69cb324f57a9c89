//! Bodies in, values or upstream's words out; every expected message was given by upstream v1.36.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use meta::Gvk;
use schema::{DecodeError, Decoded, FieldValidation, Format, builtin, decode, type_meta};

fn run(kind: &str, body: &str, format: Format, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    let group = if kind == "Deployment" { "apps" } else { "" };
    let ty = builtin().type_of(&Gvk::new(group, "v1", kind.to_owned())).expect("a known kind");
    decode(ty, body.as_bytes(), format, validation)
}

/// `kind | body | message or resulting object`
const CASES: &str = r#"
Deployment | {"spec":{"replicas":"3"}} | json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32
Deployment | {"spec":{"replicas":1.5}} | json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32
Deployment | {"spec":{"replicas":3000000000}} | json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32
Deployment | {"spec":{"template":{"spec":{"containers":[{"name":3}]}}}} | json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.name of type string
Deployment | {"spec":{"template":{"spec":{"containers":{"name":3}}}}} | json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container
Deployment | {"spec":[1]} | json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec
Deployment | {"metadata":{"labels":{"x":1}}} | json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string
Deployment | {"metadata":{"creationTimestamp":"foo"}} | parsing time "foo" as "2006-01-02T15:04:05Z07:00": cannot parse "foo" as "2006"
Deployment | {"metadata":{"creationTimestamp":5}} | json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string
Pod | {"spec":{"containers":[{"resources":{"limits":{"cpu":"abc"}}}]}} | quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
Secret | {"data":{"a":"!!"}} | illegal base64 data at input byte 0
Secret | {"data":{"a":5}} | json: cannot unmarshal number into Go struct field Secret.data of type []uint8
ConfigMap | {"data":{"a":null},"binaryData":null} | {"data":{"a":""},"metadata":{}}
ConfigMap | {"metadata":{"creationTimestamp":null,"labels":{}},"immutable":false} | {"immutable":false,"metadata":{}}
Pod | {"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"0.5","memory":1.5}}}]}} | {"metadata":{},"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"500m","memory":"1500m"}}}]},"status":{}}
ConfigMap | {"data": | unexpected end of JSON input
"#;

#[test]
fn bodies_are_checked_in_upstreams_words() {
    for line in CASES.lines().filter(|line| !line.is_empty()) {
        let [kind, body, expected] = line.splitn(3, " | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        let outcome = run(kind, body, Format::Json, FieldValidation::Strict);
        let text = outcome.map_or_else(|error| error.to_string(), |decoded| decoded.value.to_string());
        assert_eq!(text, expected, "{body}");
    }
}

#[test]
fn unknown_and_duplicate_fields_are_reported_and_pruned() {
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c1","name":"c2","foo":1,"ownerReferences":[{"uid":"a","x":1},{"bad":{"bad2":1}}]},"data":{"a":"1","a":"2"},"spec":{"a":1,"a":2},"kind":"ConfigMap"}"#;
    let strict = run("ConfigMap", body, Format::Json, FieldValidation::Strict).expect_err("strict refuses");
    assert_eq!(
        strict.to_string(),
        r#"strict decoding error: duplicate field "metadata.name", unknown field "metadata.foo", unknown field "metadata.ownerReferences[0].x", unknown field "metadata.ownerReferences[1].bad", duplicate field "data.a", unknown field "spec", duplicate field "kind""#
    );
    let warn = run("ConfigMap", body, Format::Json, FieldValidation::Warn).expect("warn accepts");
    assert_eq!(warn.warnings.len(), 7);
    assert_eq!(warn.value["metadata"]["name"], "c2");
    assert!(warn.value.get("spec").is_none());
    assert_eq!(run("ConfigMap", body, Format::Json, FieldValidation::Ignore).expect("accepts").warnings.len(), 0);
}

#[test]
fn yaml_is_read_like_json() {
    let body =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c1\n  foo: 1\ndata:\n  a: \"x\"\n  a: \"y\"\n  5: 'z'\n";
    let read = run("ConfigMap", body, Format::Yaml, FieldValidation::Warn).expect("readable");
    assert_eq!(read.value["data"].to_string(), r#"{"5":"z","a":"y"}"#);
    let strict = run("ConfigMap", body, Format::Yaml, FieldValidation::Strict).expect_err("strict refuses");
    let wanted = "yaml: unmarshal errors:\n  line 8: key \"a\" already set in map, unknown field \"metadata.foo\"";
    assert_eq!(strict.to_string(), format!("strict decoding error: {wanted}"));
    assert_eq!(read.warnings, [r#"line 8: key "a" already set in map"#, r#"unknown field "metadata.foo""#]);
    let wrong = run("Deployment", "spec:\n  replicas: \"3\"\n", Format::Yaml, FieldValidation::Warn);
    assert!(matches!(wrong, Err(DecodeError::Type(_))), "{wrong:?}");
    assert!(matches!(run("Pod", "a: [", Format::Yaml, FieldValidation::Warn), Err(DecodeError::Syntax(_))));
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = format!("{{\"status\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for format in [Format::Json, Format::Yaml] {
        assert!(run("Namespace", &deep, format, FieldValidation::Strict).is_err());
        assert!(type_meta(deep.as_bytes(), format).is_err());
    }
    let big = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(3 << 20));
    assert!(run("ConfigMap", &big, Format::Json, FieldValidation::Strict).is_ok());
}

#[test]
fn unreadable_bodies_are_quoted() {
    let body = br#"{"apiVersion":"apps/v1","kind":"Deployment","#;
    let error = type_meta(body, Format::Json).expect_err("cut off");
    assert_eq!(
        error.status("v1", "Deployment", body).message,
        r#"the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: unexpected end of JSON input ({"apiVersion":"apps/v1","kind" ...)"#
    );
}
