//! Expressions and what they come to, as one table: text in, text out.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use cel::{Activation, Env, Program, Type, Value};
use serde_json::json;

fn run(text: &str) -> String {
    let object = json!({
        "metadata": {"name": "web", "labels": {"a": "b", "app.io/x": "y"}},
        "spec": {"replicas": 3, "items": [1, 2, 3], "names": ["x", "y"], "ratio": 0.5, "image": "busybox:1.2",
            "nothing": null, "list": [{"n": "a", "v": 1}, {"n": "b", "v": 2}]}
    });
    let env = Env::default().variable("object", Type::Dyn);
    let program = match Program::compile(text, &env) {
        Ok(program) => program,
        Err(error) => return format!("compile: {}", error.0.lines().next().unwrap_or_default()),
    };
    let mut vars = Activation::default();
    vars.set("object", Value::json(&object));
    match program.eval(&vars) {
        Ok(value) => value.to_json().map_or_else(|| value.type_name().to_owned(), |json| json.to_string()),
        Err(error) => format!("error: {}", error.message),
    }
}

#[test]
fn expressions_have_upstreams_values() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("1 + 2 * 3 - 4", "3"),
        ("-2 - -3", "1"),
        ("7 / 2", "3"),
        ("7 % 4", "3"),
        ("1 / 0", "error: division by zero"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0x1F", "31"),
        ("1.5e3", "1500.0"),
        ("2u + 3u", "5"),
        ("1 < 1.5", "true"),
        ("'a' + \"b\"", "\"ab\""),
        (r"'\n\u0041\x42'", "\"\\nAB\""),
        (r"r'\d'", "\"\\\\d\""),
        ("b'abc'.size()", "3"),
        ("'''a'b'''", "\"a'b\""),
        ("true || object.none == 1", "true"),
        ("object.none == 1 || true", "true"),
        ("object.none == 1 && false", "false"),
        ("object.none == 1", "error: no such key: none"),
        ("object.spec.replicas > 2 ? 'many' : 'few'", "\"many\""),
        ("has(object.spec.replicas) && !has(object.spec.other)", "true"),
        ("object.metadata.labels['app.io/x']", "\"y\""),
        ("'a' in object.metadata.labels", "true"),
        ("2 in object.spec.items && !(5 in object.spec.items)", "true"),
        ("object.spec.items.all(i, i > 0)", "true"),
        ("object.spec.items.exists(i, i > 2)", "true"),
        ("object.spec.items.exists_one(i, i > 2)", "true"),
        ("object.spec.items.map(i, i * 2)", "[2,4,6]"),
        ("object.spec.items.map(i, i > 1, i * 2)", "[4,6]"),
        ("object.spec.items.filter(i, i != 2)", "[1,3]"),
        ("object.spec.list.map(e, e.n)", "[\"a\",\"b\"]"),
        ("object.spec.list.all(i, e, e.v == i + 1)", "true"),
        ("object.metadata.labels.transformMap(k, v, k + v)", "{\"a\":\"ab\",\"app.io/x\":\"app.io/xy\"}"),
        ("object.spec.items.transformList(i, v, v > 1, i)", "[1,2]"),
        ("object.spec.items.sum() == 6 && object.spec.items.max() == 3", "true"),
        ("[3, 1, 2].sort()", "[1,2,3]"),
        ("[[1], [2, 3]].flatten()", "[1,2,3]"),
        ("lists.range(3)", "[0,1,2]"),
        ("[1, 2, 2].distinct().reverse()", "[2,1]"),
        ("[1, 2].indexOf(2)", "1"),
        ("sets.contains([1, 2, 3], [3])", "true"),
        ("sets.equivalent([1, 2], [2, 1])", "true"),
        ("size('h\u{e9}') == 2", "true"),
        ("'a,b'.split(',')", "[\"a\",\"b\"]"),
        ("['a', 'b'].join('-')", "\"a-b\""),
        ("'hello'.substring(1, 3)", "\"el\""),
        ("'hello'.indexOf('l')", "2"),
        ("'hello'.replace('l', 'L')", "\"heLLo\""),
        ("'%s is %d and %.2f'.format(['a', 1, 2.0])", "\"a is 1 and 2.00\""),
        ("'abc'.matches('^a.c$')", "true"),
        ("'a1b22'.findAll('[0-9]+')", "[\"1\",\"22\"]"),
        ("object.spec.image.contains(':')", "true"),
        ("type(object.spec.replicas) == int", "true"),
        ("type(object.spec.ratio) == double && type(object.spec) == map", "true"),
        ("object.spec.nothing == null", "true"),
        ("string(1) + string(true) + string(1.5)", "\"1true1.5\""),
        ("int('12') + int(3.9)", "15"),
        ("int('x')", "error: strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("duration('1h30m').getMinutes()", "90"),
        ("duration('90s') == duration('1m30s')", "true"),
        ("timestamp('2024-02-29T12:00:00Z').getFullYear()", "2024"),
        ("timestamp('2024-03-01T00:00:00Z') - timestamp('2024-02-29T00:00:00Z') == duration('24h')", "true"),
        ("timestamp('2024-02-29T12:00:00Z').getDayOfWeek()", "4"),
        ("quantity('1Gi').isGreaterThan(quantity('500Mi'))", "true"),
        ("quantity('1.5').add(1).compareTo(quantity('2500m'))", "0"),
        ("isQuantity('1x')", "false"),
        ("ip('10.0.0.1').family()", "4"),
        ("isIP('::1') && !isIP('10.0.0')", "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", "true"),
        ("cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))", "true"),
        ("string(cidr('10.1.2.3/8').masked())", "\"10.0.0.0/8\""),
        ("url('https://a.b:81/c?d=e').getPort()", "\"81\""),
        ("url('https://a.b/c?d=e').getQuery()['d']", "[\"e\"]"),
        ("isURL('../x')", "false"),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", "true"),
        ("isSemver('1.0') || isSemver('v1.0', true)", "true"),
        ("format.dns1123Label().validate('a-b').hasValue()", "false"),
        ("format.dns1123Label().validate('A').hasValue()", "true"),
        ("object.?spec.?other.orValue(7)", "7"),
        ("object.?spec.replicas.orValue(7)", "3"),
        ("object.?spec.?other.hasValue()", "false"),
        ("object.spec[?'replicas'].optMap(r, r + 1).orValue(0)", "4"),
        ("optional.none().orValue('x')", "\"x\""),
        ("{'a': 1, ?'b': optional.none()}", "{\"a\":1}"),
        ("[1, 2] == [1, 2] && {'a': 1} == {'a': 1}", "true"),
        ("object.spec.items[5]", "error: index out of bounds: 5"),
        ("object.metadata.labels['none']", "error: no such key: none"),
    ] {
        let found = run(text);
        if found != expected {
            wrong.push(format!("{text}\n  is       {found}\n  expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    for (text, expected) in [
        ("1 +", "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting"),
        ("foo == 1", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')"),
        ("nope(1)", "ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')"),
        ("1 == 'a'", "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, string)'"),
        ("'a'.contains(1)", "ERROR: <input>:1:13: found no matching overload for 'contains' applied to 'string.(int)'"),
        ("self.none", "ERROR: <input>:1:5: undefined field 'none'"),
        ("has(self.none)", "ERROR: <input>:1:4: undefined field 'none'"),
        ("self.a.all(x, x.b)", "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension"),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'"),
        ("self.a == 1 ? 1 : 'a'", "ERROR: <input>:1:13: found no matching overload for '_?_:_'"),
    ] {
        let env = Env::default().variable("self", Type::object("object", [("a".to_owned(), Type::Int)]));
        let error = Program::compile(text, &env).unwrap_err();
        assert!(error.0.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn work_is_bounded() {
    let text = "[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(b, [0,1,2,3,4,5,6,7,8,9].all(c, \
        [0,1,2,3,4,5,6,7,8,9].all(d, [0,1,2,3,4,5,6,7,8,9].all(e, [0,1,2,3,4,5,6,7,8,9].all(f, true))))))";
    assert_eq!(run(text), "error: operation cancelled: actual cost limit exceeded");
    let deep = format!("{}1{}", "(".repeat(300), ")".repeat(300));
    assert!(run(&deep).contains("expression recursion limit exceeded"));
}
