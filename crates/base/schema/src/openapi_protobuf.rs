//! The protobuf form of an OpenAPI v2 document, which kubectl and Helm ask for where v3 does not help them.
//!
//! The form is that of the gnostic project's `openapi.v2` messages: one table of field numbers, and one walk over the
//! JSON document. It holds what the documents of this crate use, but for the list of security requirements, which no client
//! of this form reads.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

use Form::{
    Choice, Double, Extensions, Flag, Int, Many, Named, One, Parameters, SchemaOrFlag, Text, Texts, Yaml, Yamls,
};

/// How a field of the JSON document is written.
enum Form {
    Text,
    /// A list of texts; one text counts as a list of one.
    Texts,
    Flag,
    Int,
    Double,
    /// Any value, as text.
    Yaml,
    Yamls,
    One(&'static Message),
    Many(&'static Message),
    /// An object with free keys: a message whose field of this number repeats pairs of name and value.
    Named(u32, &'static Message),
    /// A message whose field of this number is chosen among others, and holds the value.
    Choice(u32, &'static Message),
    /// `additionalProperties`.
    SchemaOrFlag,
    /// Parameters choose their message by `in`.
    Parameters,
    /// Every key that begins with `x-`.
    Extensions,
}

struct Field(&'static str, u32, Form);

struct Message(&'static [Field]);

static DOCUMENT: Message = Message(&[
    Field("swagger", 1, Text),
    Field("info", 2, One(&Message(&[Field("title", 1, Text), Field("version", 2, Text)]))),
    Field("paths", 8, Named(2, &PATH_ITEM)),
    Field("definitions", 9, Named(1, &SCHEMA)),
    Field("securityDefinitions", 13, Named(1, &Message(&[Field("", 2, One(&API_KEY))]))),
]);
static API_KEY: Message = Message(&[Field("type", 1, Text), Field("name", 2, Text), Field("in", 3, Text)]);
static PATH_ITEM: Message = Message(&[
    Field("get", 2, One(&OPERATION)),
    Field("put", 3, One(&OPERATION)),
    Field("post", 4, One(&OPERATION)),
    Field("delete", 5, One(&OPERATION)),
    Field("patch", 8, One(&OPERATION)),
    Field("parameters", 9, Parameters),
    Field("", 10, Extensions),
]);
static OPERATION: Message = Message(&[
    Field("description", 3, Text),
    Field("operationId", 5, Text),
    Field("produces", 6, Texts),
    Field("consumes", 7, Texts),
    Field("parameters", 8, Parameters),
    Field("responses", 9, Named(1, &Message(&[Field("", 1, One(&RESPONSE))]))),
    Field("", 13, Extensions),
]);
static RESPONSE: Message = Message(&[Field("description", 1, Text), Field("schema", 2, Choice(1, &SCHEMA))]);
static BODY: Message = Message(&[
    Field("description", 1, Text),
    Field("name", 2, Text),
    Field("in", 3, Text),
    Field("required", 4, Flag),
    Field("schema", 5, One(&SCHEMA)),
]);
static QUERY: Message = Message(&[
    Field("required", 1, Flag),
    Field("in", 2, Text),
    Field("description", 3, Text),
    Field("name", 4, Text),
    Field("type", 6, Text),
]);
static PATH: Message = Message(&[
    Field("required", 1, Flag),
    Field("in", 2, Text),
    Field("description", 3, Text),
    Field("name", 4, Text),
    Field("type", 5, Text),
]);
static SCHEMA: Message = Message(&[
    Field("$ref", 1, Text),
    Field("format", 2, Text),
    Field("title", 3, Text),
    Field("description", 4, Text),
    Field("default", 5, Yaml),
    Field("multipleOf", 6, Double),
    Field("maximum", 7, Double),
    Field("exclusiveMaximum", 8, Flag),
    Field("minimum", 9, Double),
    Field("exclusiveMinimum", 10, Flag),
    Field("maxLength", 11, Int),
    Field("minLength", 12, Int),
    Field("pattern", 13, Text),
    Field("maxItems", 14, Int),
    Field("minItems", 15, Int),
    Field("uniqueItems", 16, Flag),
    Field("maxProperties", 17, Int),
    Field("minProperties", 18, Int),
    Field("required", 19, Texts),
    Field("enum", 20, Yamls),
    Field("additionalProperties", 21, SchemaOrFlag),
    Field("type", 22, Choice(1, &Message(&[]))),
    Field("items", 23, Choice(1, &SCHEMA)),
    Field("allOf", 24, Many(&SCHEMA)),
    Field("properties", 25, Named(1, &SCHEMA)),
    Field("", 31, Extensions),
]);

/// The bytes of an OpenAPI v2 document.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    message(&DOCUMENT, document)
}

fn message(of: &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(object) = value.as_object() else { return out };
    for Field(name, number, form) in of.0 {
        if name.is_empty() {
            unnamed(form, *number, value, object, &mut out);
        } else if let Some(value) = object.get(*name) {
            field(form, *number, value, &mut out);
        }
    }
    out
}

/// Fields that no key names: extensions, and messages that wrap the whole object.
fn unnamed(form: &Form, number: u32, whole: &Value, object: &Map<String, Value>, out: &mut Vec<u8>) {
    match form {
        Extensions => {
            for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
                bytes(number, &named(name, &yaml(value)), out);
            }
        }
        One(of) => bytes(number, &message(of, whole), out),
        _ => {}
    }
}

fn field(form: &Form, number: u32, value: &Value, out: &mut Vec<u8>) {
    let items = || value.as_array().into_iter().flatten();
    match form {
        Text => bytes(number, value.as_str().unwrap_or_default().as_bytes(), out),
        Texts => items().for_each(|item| field(&Text, number, item, out)),
        Flag => varint(number, u64::from(value.as_bool().unwrap_or_default()), out),
        // The sign is carried by all 64 bits, as int64 does.
        Int => varint(number, value.as_i64().unwrap_or_default().cast_unsigned(), out),
        Double => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.extend(value.as_f64().unwrap_or_default().to_le_bytes());
        }
        Yaml => bytes(number, &yaml(value), out),
        Yamls => items().for_each(|item| bytes(number, &yaml(item), out)),
        One(of) => bytes(number, &message(of, value), out),
        Many(of) => items().for_each(|item| bytes(number, &message(of, item), out)),
        Named(inner, of) => {
            let mut pairs = Vec::new();
            for (name, value) in value.as_object().into_iter().flatten() {
                bytes(*inner, &named(name, &message(of, value)), &mut pairs);
            }
            bytes(number, &pairs, out);
        }
        Choice(inner, of) => {
            let mut wrapped = Vec::new();
            match value {
                Value::Object(_) => bytes(*inner, &message(of, value), &mut wrapped),
                Value::String(_) => field(&Text, *inner, value, &mut wrapped),
                _ => field(&Texts, *inner, value, &mut wrapped),
            }
            bytes(number, &wrapped, out);
        }
        SchemaOrFlag => {
            let mut wrapped = Vec::new();
            match value {
                Value::Bool(_) => field(&Flag, 2, value, &mut wrapped),
                schema => field(&One(&SCHEMA), 1, schema, &mut wrapped),
            }
            bytes(number, &wrapped, out);
        }
        Parameters => items().for_each(|item| bytes(number, &parameter(item), out)),
        Extensions => {}
    }
}

/// A parameter in its three wrappings: item, parameter, and where it is not the body, its place.
fn parameter(value: &Value) -> Vec<u8> {
    let (mut parameter, mut item) = (Vec::new(), Vec::new());
    let mut elsewhere = |number, of| {
        let mut place = Vec::new();
        bytes(number, &message(of, value), &mut place);
        bytes(2, &place, &mut parameter);
    };
    match value["in"].as_str() {
        Some("path") => elsewhere(4, &PATH),
        Some("query") => elsewhere(3, &QUERY),
        _ => bytes(1, &message(&BODY, value), &mut parameter),
    }
    bytes(1, &parameter, &mut item);
    item
}

fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(1, name.as_bytes(), &mut out);
    bytes(2, value, &mut out);
    out
}

/// Any value is carried as YAML, which JSON is.
fn yaml(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(2, value.to_string().as_bytes(), &mut out);
    out
}

fn bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Bytes as `number:text` for what is text, and `number{...}` for messages, which is enough to read them by eye.
    fn shown(mut bytes: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (number, wire) = prost::encoding::decode_key(&mut bytes).ok()?;
            match wire {
                WireType::Varint => {
                    out.push(format!("{number}={}", prost::encoding::decode_varint(&mut bytes).ok()?));
                }
                WireType::LengthDelimited => {
                    let length = usize::try_from(prost::encoding::decode_varint(&mut bytes).ok()?).ok()?;
                    let (inner, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    let text = || format!("{number}:{}", String::from_utf8_lossy(inner));
                    out.push(shown(inner).map_or_else(text, |message| format!("{number}{{{message}}}")));
                }
                _ => return None,
            }
        }
        Some(out.join(" "))
    }

    #[test]
    fn documents_have_gnostics_numbers() {
        let table = [
            (json!({"swagger": "2.0", "info": {"title": "T", "version": "v"}}), "1:2.0 2{1:T 2:v}"),
            (
                json!({"definitions": {"A": {"type": "object", "required": ["b"], "x-kind": {"b": 1}}}}),
                "9{1{1:A 2{19:b 22{1:object} 31{1:x-kind 2{2:{\"b\":1}}}}}}",
            ),
            (
                json!({"definitions": {"A": {"items": {"$ref": "B"}, "additionalProperties": true}}}),
                "9{1{1:A 2{21{2=1} 23{1{1:B}}}}}",
            ),
            (
                json!({"definitions": {"A": {"properties": {"p": {"maxLength": 5}}, "allOf": [{"$ref": "B"}]}}}),
                "9{1{1:A 2{24{1:B} 25{1{1:p 2{11=5}}}}}}",
            ),
            (
                json!({"paths": {"/x": {"patch": {"parameters": [
                    {"in": "query", "name": "dryRun"}, {"in": "body", "name": "body", "schema": {"$ref": "B"}}]}}}}),
                "8{2{1:/x 2{8{8{1{2{3{2:query 4:dryRun}}}} 8{1{1{2:body 3:body 5{1:B}}}}}}}}",
            ),
            (
                json!({"paths": {"/x": {"get": {"responses": {"200": {"description": "OK", "schema": {"$ref": "B"}}}}}}}),
                "8{2{1:/x 2{2{9{1{1:200 2{1{1:OK 2{1{1:B}}}}}}}}}}",
            ),
        ];
        for (document, wanted) in table {
            assert_eq!(shown(&v2_protobuf(&document)).as_deref(), Some(wanted), "{document}");
        }
    }
}
