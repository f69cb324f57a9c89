//! Schemas of custom resources: text in, upstream's answers out.

use meta::FieldPath;
use schema::custom::{check_schema, coerce_metadata, compile, fill_defaults, prune, validate, validate_change};
use serde_json::{Value, json};

fn schema() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "required": ["must"], "properties": {
        "must": {"type": "string"},
        "int": {"type": "integer", "minimum": 2, "maximum": 10, "multipleOf": 2},
        "exint": {"type": "integer", "minimum": 2, "maximum": 10, "exclusiveMinimum": true, "exclusiveMaximum": true},
        "str": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
        "en": {"type": "string", "enum": ["b", "a", "c"]},
        "ios": {"x-kubernetes-int-or-string": true},
        "list": {"type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "mp": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "j"], "items": {
            "type": "object", "required": ["k"],
            "properties": {"k": {"type": "string"}, "j": {"type": "integer", "default": 1}}}},
        "obj": {"type": "object", "minProperties": 2, "maxProperties": 3, "additionalProperties": {"type": "integer"}},
        "nul": {"type": "string", "nullable": true},
        "one": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "all": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "allOf": [{"properties": {"a": {"minimum": 5}}}, {"required": ["b"]}]},
        "ip": {"type": "string", "format": "ipv4"},
        "i32": {"type": "integer", "format": "int32"},
        "emb": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        "def": {"type": "object", "default": {}, "properties": {"x": {"type": "string", "default": "hi"}}}}}}})
}

#[test]
fn broken_rules_are_told_in_upstreams_words() {
    let ty = compile("Rule", Some(&schema()));
    for (spec, expected) in [
        (json!({}), vec!["spec.must: Required value"]),
        (
            json!({"must": 1}),
            vec![r#"spec.must: Invalid value: "integer": spec.must in body must be of type string: "integer""#],
        ),
        (
            json!({"must": "a", "ios": true}),
            vec![r#"spec.ios: Invalid value: "boolean": spec.ios in body must be of type integer,string: "boolean""#],
        ),
        (
            json!({"must": "a", "int": 1}),
            vec![
                "spec.int: Invalid value: 1: spec.int in body should be a multiple of 2",
                "spec.int: Invalid value: 1: spec.int in body should be greater than or equal to 2",
            ],
        ),
        (
            json!({"must": "a", "int": 1.5}),
            vec![
                r#"spec.int: Invalid value: "number": spec.int in body must be of type integer: "number""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in spec.int"#,
                "spec.int: Invalid value: 1.5: spec.int in body should be a multiple of 2",
                "spec.int: Invalid value: 1.5: spec.int in body should be greater than or equal to 2",
            ],
        ),
        (
            json!({"must": "a", "exint": 10}),
            vec!["spec.exint: Invalid value: 10: spec.exint in body should be less than 10"],
        ),
        (
            json!({"must": "a", "str": "A"}),
            vec![r#"spec.str: Invalid value: "A": spec.str in body should be at least 2 chars long"#],
        ),
        (json!({"must": "a", "str": "abcde"}), vec!["spec.str: Too long: may not be more than 4 bytes"]),
        (
            json!({"must": "a", "str": "AB"}),
            vec![r#"spec.str: Invalid value: "AB": spec.str in body should match '^[a-z]+$'"#],
        ),
        (
            json!({"must": "a", "en": 4}),
            vec![
                r#"spec.en: Invalid value: "integer": spec.en in body must be of type string: "integer""#,
                r#"spec.en: Unsupported value: 4: supported values: "b", "a", "c""#,
            ],
        ),
        (
            json!({"must": "a", "list": [1]}),
            vec!["spec.list: Invalid value: 1: spec.list in body should have at least 2 items"],
        ),
        (
            json!({"must": "a", "list": [1, 2, 3, "4"]}),
            vec![
                "spec.list: Too many: 4: must have at most 3 items",
                r#"spec.list[3]: Invalid value: "string": spec.list[3] in body must be of type integer: "string""#,
            ],
        ),
        (
            json!({"must": "a", "set": ["a", "a"], "mp": [{"k": "a"}, {"k": "a", "j": 1}]}),
            vec![r#"spec.mp[1]: Duplicate value: {"j":1,"k":"a"}"#, r#"spec.set[1]: Duplicate value: "a""#],
        ),
        (
            json!({"must": "a", "obj": {"a": 1}, "nul": null}),
            vec!["spec.obj: Invalid value: 1: spec.obj in body should have at least 2 properties"],
        ),
        (
            json!({"must": "a", "one": {}}),
            vec![
                r#"<nil>: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.one.a: Required value",
            ],
        ),
        (
            json!({"must": "a", "one": {"a": 1, "b": 2}}),
            vec![
                r#"<nil>: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
        (
            json!({"must": "a", "all": {"a": 1}}),
            vec![
                "spec.all.a: Invalid value: 1: spec.all.a in body should be greater than or equal to 5",
                "spec.all.b: Required value",
                r#"<nil>: Invalid value: "": "spec.all" must validate all the schemas (allOf). None validated"#,
            ],
        ),
        (
            json!({"must": "a", "ip": "x", "i32": 3_000_000_000_i64}),
            vec![
                r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.i32"#,
                r#"spec.ip: Invalid value: "x": spec.ip in body must be of type ipv4: "x""#,
            ],
        ),
        (json!({"must": "a", "emb": {}}), vec!["spec.emb.apiVersion: Required value", "spec.emb.kind: Required value"]),
        (json!(5), vec![r#"spec: Invalid value: "integer": spec in body must be of type object: "integer""#]),
        (
            json!({"must": "a", "ios": "50%", "int": 4.0, "nul": null, "emb": {"apiVersion": "v1", "kind": "X", "y": 1}}),
            vec![],
        ),
    ] {
        let object = json!({"apiVersion": "example.com/v1", "kind": "Rule", "metadata": {"name": "a"}, "spec": spec});
        let errors: Vec<String> = validate(&ty, &object).iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected, "{spec}");
    }
}

#[test]
fn an_old_fault_is_forgiven_where_it_can_be_told_that_it_is_old() {
    let small = json!({"type": "integer", "maximum": 5});
    let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "n": small}}});
    let unique = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["must"], "properties": {
        "must": {"type": "string"}, "n": small, "plain": {"type": "array", "items": small}, "keyed": keyed, "set": unique}}}});
    let ty = compile("Rule", Some(&schema));
    for (old, new, expected) in [
        (json!({"must": "a", "n": 9}), json!({"must": "b", "n": 9}), vec![]),
        (
            json!({"must": "a", "n": 9}),
            json!({"must": "a", "n": 8}),
            vec!["spec.n: Invalid value: 8: spec.n in body should be less than or equal to 5"],
        ),
        (json!({"must": "a", "plain": [9, 1]}), json!({"must": "b", "plain": [9, 1]}), vec![]),
        (
            json!({"must": "a", "plain": [9, 1]}),
            json!({"must": "a", "plain": [9, 2]}),
            vec!["spec.plain[0]: Invalid value: 9: spec.plain[0] in body should be less than or equal to 5"],
        ),
        (
            json!({"must": "a", "keyed": [{"k": "x", "n": 9}]}),
            json!({"must": "a", "keyed": [{"k": "y"}, {"k": "x", "n": 9}]}),
            vec![],
        ),
        (
            json!({"must": "a", "keyed": [{"k": "x", "n": 9}]}),
            json!({"must": "a", "keyed": [{"k": "y", "n": 9}]}),
            vec!["spec.keyed[0].n: Invalid value: 9: spec.keyed[0].n in body should be less than or equal to 5"],
        ),
        (json!({"n": 1}), json!({"n": 2}), vec!["spec.must: Required value"]),
        (json!({"must": "a", "set": ["x", "x"]}), json!({"must": "b", "set": ["x", "x"]}), vec![]),
        (
            json!({"must": "a", "set": ["x"]}),
            json!({"must": "a", "set": ["x", "x"]}),
            vec![r#"spec.set[1]: Duplicate value: "x""#],
        ),
    ] {
        let of = |spec: &Value| json!({"apiVersion": "example.com/v1", "kind": "Rule", "spec": spec});
        let found = validate_change(&ty, &of(&new), &of(&old));
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{old} -> {new}");
    }
}

#[test]
fn unknown_fields_go_and_defaults_come() {
    let ty = compile("Rule", Some(&schema()));
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Rule", "top": 1,
        "metadata": {"name": "a", "foo": 1},
        "spec": {"must": "a", "un": 1, "int": null, "nul": null, "mp": [{"k": "x", "z": 1}],
            "emb": {"apiVersion": "v1", "kind": "X", "y": 1, "metadata": {"name": "n", "bar": 1}}}});
    assert_eq!(prune(&ty, &mut object), ["spec.mp[0].z", "spec.un", "top"]);
    assert_eq!(coerce_metadata(&ty, &mut object, false).unwrap(), ["metadata.foo", "spec.emb.metadata.bar"]);
    assert!(fill_defaults(&ty, &mut object));
    assert_eq!(
        object["spec"],
        json!({"must": "a", "nul": null, "mp": [{"k": "x", "j": 1}], "def": {"x": "hi"},
            "emb": {"apiVersion": "v1", "kind": "X", "y": 1, "metadata": {"name": "n"}}})
    );
    assert!(!fill_defaults(&ty, &mut object), "defaults are filled in once");
    object["metadata"]["labels"] = json!({"a": 1});
    assert!(coerce_metadata(&ty, &mut object.clone(), false).is_err());
    coerce_metadata(&ty, &mut object, true).unwrap();
    assert_eq!(object["metadata"], json!({"name": "a"}), "what cannot be read is dropped from stored objects");
}

#[test]
fn only_structural_schemas_are_accepted() {
    for (schema, expected) in [
        (schema(), vec![]),
        (
            json!({"properties": {"a": {"type": "string"}}}),
            vec!["s.type: Required value: must not be empty at the root"],
        ),
        (
            json!({"type": "object", "properties": {"a": {}}}),
            vec!["s.properties[a].type: Required value: must not be empty for specified object fields"],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            vec!["s.properties[a].items: Required value: must be specified"],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
            vec![r#"s.properties[a].default: Invalid value: "string":  in body must be of type integer: "string""#],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "x-kubernetes-preserve-unknown-fields": false}}}),
            vec![
                "s.properties[a].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
            ],
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}),
            vec!["s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]"],
        ),
        (
            json!({"type": "object", "uniqueItems": true}),
            vec![
                "s.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
    ] {
        let errors: Vec<String> = check_schema(&schema, &FieldPath::new("s")).iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected, "{schema}");
    }
}
