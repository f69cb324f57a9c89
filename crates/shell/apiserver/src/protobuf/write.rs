//! From JSON to a protobuf body, in one pass and without a tree in between.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use meta::Status;
use schema::{Field, Shape, Struct, Type};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{MAGIC, ProtobufError, Result, SCHEMA, SCHEMA_OR_BOOL, numbers, type_of};

const LENGTH_DELIMITED: u64 = 2;

/// What an object says of itself.
#[derive(Default, Deserialize)]
struct TypeMeta {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// An object or a list of a built-in kind as a body.
///
/// # Errors
/// The kind has no protobuf form, or the object does not fit its type.
pub fn object(json: &[u8]) -> Result<Vec<u8>> {
    let of: TypeMeta = serde_json::from_slice(json)?;
    let form = type_of(&of.api_version, &of.kind);
    let form = form.ok_or_else(|| ProtobufError::NoForm(format!("{} {}", of.api_version, of.kind)))?;
    let mut out = Vec::with_capacity(json.len());
    out.extend_from_slice(MAGIC);
    nested(&mut out, 1, |out| {
        text(out, 1, &of.api_version);
        text(out, 2, &of.kind);
    });
    nested(&mut out, 2, |out| match form.as_struct() {
        Some(of) => Fields { of, out }.deserialize(&mut serde_json::Deserializer::from_slice(json)),
        None => Ok(()),
    })?;
    Ok(out)
}

/// One frame of a watch: the length of the event, then the event without a body's opening.
///
/// # Errors
/// As for [`object`].
pub fn event(kind: &str, json: &[u8]) -> Result<Bytes> {
    let object = object(json)?;
    let mut out = vec![0; 4];
    text(&mut out, 1, kind);
    nested(&mut out, 2, |out| bytes(out, 1, &object));
    let length = u32::try_from(out.len() - 4).map_err(|_| ProtobufError::Truncated)?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.into())
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, number: u32, wire: u64) {
    varint(out, u64::from(number) << 3 | wire);
}

fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    tag(out, number, LENGTH_DELIMITED);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn text(out: &mut Vec<u8>, number: u32, value: &str) {
    bytes(out, number, value.as_bytes());
}

fn integer(out: &mut Vec<u8>, number: u32, value: i64) {
    tag(out, number, 0);
    varint(out, value.cast_unsigned());
}

/// A message as a field: most are so short that their length is one byte, for which room is left.
fn nested<T>(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    tag(out, number, LENGTH_DELIMITED);
    let at = out.len();
    out.push(0);
    let done = write(out);
    let length = out.len() - at - 1;
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out[at] = short,
        _ => {
            let mut prefix = Vec::with_capacity(5);
            varint(&mut prefix, length as u64);
            out.splice(at..=at, prefix);
        }
    }
    done
}

/// A field below the messages that it is nested in. Each field opens them anew; readers put together what belongs to one
/// message.
fn within<T>(out: &mut Vec<u8>, path: &[u32], write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    match path {
        [] => write(out),
        [first, rest @ ..] => nested(out, *first, |out| within(out, rest, write)),
    }
}

/// The fields of a struct, without the length before them.
struct Fields<'a> {
    of: &'a Struct,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.of.short_name())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        while let Some(field) = entries.next_key_seed(Name(self.of))? {
            let Some(field) = field else {
                entries.next_value::<IgnoredAny>()?;
                continue;
            };
            let (ty, name) = (&*field.ty, &*field.name);
            if field.number > 0 {
                entries.next_value_seed(Put { ty, name, number: field.number, out: &mut *self.out })?;
                continue;
            }
            match numbers(self.of, field).as_slice() {
                [above @ .., own] => {
                    within(self.out, above, |out| entries.next_value_seed(Put { ty, name, number: *own, out }))?;
                }
                [] => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A key, looked up where it stands.
struct Name<'a>(&'a Struct);

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Option<&'a Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> std::result::Result<Self::Value, E> {
        Ok(self.0.field(name))
    }
}

/// A value as field `number`; nothing is written for null.
struct Put<'a> {
    ty: &'a Type,
    name: &'a str,
    number: u32,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Put<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        match &self.ty.shape {
            Shape::Raw | Shape::FieldsV1 => {
                let raw = Box::<RawValue>::deserialize(deserializer)?;
                if raw.get() != "null" {
                    nested(self.out, self.number, |out| text(out, 1, raw.get()));
                }
                Ok(())
            }
            Shape::Any | Shape::Deduced => {
                let value = Value::deserialize(deserializer)?;
                any(self.out, self.number, self.name, &value).map_err(D::Error::custom)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl Put<'_> {
    fn misfit<E: Error>(&self, what: &str) -> E {
        E::custom(format!("{}: {what}", self.name))
    }

    fn number<E: Error>(self, value: i64) -> std::result::Result<(), E> {
        match self.ty.shape {
            Shape::Int32 | Shape::Int64 => integer(self.out, self.number, value),
            Shape::Double => self.double(value as f64),
            Shape::IntOrString => nested(self.out, self.number, |out| {
                integer(out, 1, 0);
                integer(out, 2, value);
            }),
            Shape::Quantity => nested(self.out, self.number, |out| text(out, 1, &value.to_string())),
            _ => return Err(self.misfit("a number")),
        }
        Ok(())
    }

    fn double(self, value: f64) {
        tag(self.out, self.number, 1);
        self.out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

impl<'de> Visitor<'de> for Put<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of {}", self.name)
    }

    fn visit_unit<E: Error>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> std::result::Result<(), E> {
        match self.ty.shape {
            Shape::Bool => {
                integer(self.out, self.number, value.into());
                Ok(())
            }
            _ => Err(self.misfit("a bool")),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> std::result::Result<(), E> {
        self.number(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> std::result::Result<(), E> {
        self.number(value.cast_signed())
    }

    fn visit_f64<E: Error>(self, value: f64) -> std::result::Result<(), E> {
        match self.ty.shape {
            Shape::Double => {
                self.double(value);
                Ok(())
            }
            _ => Err(self.misfit("a fraction")),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> std::result::Result<(), E> {
        match self.ty.shape {
            Shape::String => text(self.out, self.number, value),
            Shape::Quantity => nested(self.out, self.number, |out| text(out, 1, value)),
            Shape::IntOrString => nested(self.out, self.number, |out| {
                integer(out, 1, 1);
                text(out, 3, value);
            }),
            Shape::Bytes => {
                let decoded = STANDARD.decode(value).map_err(E::custom)?;
                bytes(self.out, self.number, &decoded);
            }
            Shape::Time | Shape::MicroTime => {
                let time: jiff::Timestamp = value.parse().map_err(E::custom)?;
                nested(self.out, self.number, |out| {
                    integer(out, 1, time.as_second());
                    integer(out, 2, time.subsec_nanosecond().into());
                });
            }
            _ => return Err(self.misfit("text")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        let Shape::List { item, .. } = &self.ty.shape else { return Err(self.misfit("a list")) };
        let Self { name, number, out, .. } = self;
        while items.next_element_seed(Put { ty: item, name, number, out: &mut *out })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        match &self.ty.shape {
            Shape::Struct { of, .. } => {
                nested(self.out, self.number, |out| Fields { of: of.get(), out }.visit_map(entries))
            }
            Shape::Map { value: ty, .. } => {
                while let Some(key) = entries.next_key::<String>()? {
                    let name = self.name;
                    nested(self.out, self.number, |out| {
                        text(out, 1, &key);
                        match &ty.shape {
                            // A list in a map is a message with its items as field 1.
                            Shape::List { .. } => {
                                nested(out, 2, |out| entries.next_value_seed(Put { ty, name, number: 1, out }))
                            }
                            _ => entries.next_value_seed(Put { ty, name, number: 2, out }),
                        }
                    })?;
                }
                Ok(())
            }
            _ => Err(self.misfit("an object")),
        }
    }
}

/// A JSON value inside of a JSON schema: as JSON text, or as the schemas and lists that may stand for it.
fn any(out: &mut Vec<u8>, number: u32, name: &str, value: &Value) -> serde_json::Result<()> {
    let schema = |out: &mut Vec<u8>, at: u32, value: &Value| {
        let form = schema::builtin().by_name(SCHEMA);
        match form.as_ref().and_then(|form| form.as_struct()) {
            Some(of) => nested(out, at, |out| Fields { of, out }.deserialize(value)),
            None => Ok(()),
        }
    };
    match (name, value) {
        // Null is a value that an enumeration may allow.
        (name, Value::Null) if name != "enum" => Ok(()),
        ("items", Value::Array(all)) => nested(out, number, |out| all.iter().try_for_each(|one| schema(out, 2, one))),
        ("items", one) => nested(out, number, |out| schema(out, 1, one)),
        ("dependencies", Value::Array(names)) => {
            nested(out, number, |out| names.iter().filter_map(Value::as_str).for_each(|one| text(out, 2, one)));
            Ok(())
        }
        ("dependencies", one) => nested(out, number, |out| schema(out, 1, one)),
        (name, Value::Bool(allows)) if SCHEMA_OR_BOOL.contains(&name) => {
            nested(out, number, |out| integer(out, 1, (*allows).into()));
            Ok(())
        }
        (name, one) if SCHEMA_OR_BOOL.contains(&name) => nested(out, number, |out| {
            integer(out, 1, 1);
            schema(out, 2, one)
        }),
        (_, value) => {
            let json = serde_json::to_string(value)?;
            nested(out, number, |out| text(out, 1, &json));
            Ok(())
        }
    }
}

impl From<ProtobufError> for Box<Status> {
    fn from(error: ProtobufError) -> Self {
        Status::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{message, open};
    use super::*;
    use serde_json::json;

    /// Written and read again, an object is what it was.
    fn check(value: &Value) {
        let bytes = object(value.to_string().as_bytes()).unwrap();
        let envelope = open(&bytes).unwrap();
        assert_eq!(value["apiVersion"], envelope.api_version);
        assert_eq!(value["kind"], envelope.kind);
        let mut read = message(&type_of(&envelope.api_version, &envelope.kind).unwrap(), envelope.raw).unwrap();
        let mut wanted = value.clone();
        for kind in ["apiVersion", "kind"] {
            wanted.as_object_mut().unwrap().remove(kind);
        }
        // What items say of themselves stays behind.
        for item in wanted.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            item.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind"));
        }
        sort(&mut read);
        sort(&mut wanted);
        assert_eq!(read, wanted);
    }

    /// Puts raw JSON text into one form.
    fn sort(value: &mut Value) {
        *value = serde_json::from_str(&value.to_string()).unwrap();
    }

    #[test]
    fn objects_survive_the_way_out_and_in() {
        check(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "generation": -1,
            "creationTimestamp": "2026-01-02T03:04:05Z", "managedFields": [{"manager": "m", "fieldsV1": {"f:data": {}}}],
            "labels": {"k": "v", "empty": ""}}, "data": {"k": "v".repeat(300)}, "binaryData": {"b": "AAEC"},
            "immutable": true}));
        check(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "500m"}},
                "env": [{"name": "e", "valueFrom": {"configMapKeyRef": {"name": "n", "key": "k", "optional": false}}}],
                "envFrom": [{"prefix": "p", "secretRef": {"name": "s"}}],
                "livenessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 3},
                "readinessProbe": {"tcpSocket": {"port": 80}}}],
            "ephemeralContainers": [{"name": "e", "image": "i", "command": ["a", "b"], "targetContainerName": "c"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "projected": {"sources": [
                {"configMap": {"name": "n", "items": [{"key": "k", "path": "p"}]}}]}}]},
            "status": {"startTime": "2026-01-02T03:04:05Z"}}));
        check(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {}, "spec":
            {"capacity": {"storage": "1Gi"}, "local": {"path": "/x"}}}));
        check(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {},
            "spec": {"renewTime": "2026-01-02T03:04:05.000006Z", "leaseDurationSeconds": 15}}));
        check(&json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {}, "spec": {"matchConstraints": {"resourceRules": [{"resourceNames": ["r"],
                "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
                "validations": [{"expression": "true"}], "variables": [{"name": "n", "expression": "1"}]}}));
        check(&json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
            "spec": {"extra": {"a": ["b", "c"]}}}));
        check(&json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {}, "revision": 1,
            "data": {"spec": {"template": {"x": [1, 2.5, null]}}}}));
        check(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
            "metadata": {"resourceVersion": "1", "remainingItemCount": 2}, "items": [{"metadata": {"name": "a"}}]}));
        check(&json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404,
            "details": {"name": "a", "causes": [{"reason": "r"}]}}));
    }

    #[test]
    fn schemas_in_schemas_survive() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "array", "items": {"type": "string", "enum": ["x", null, 1]}, "default": ["x"]},
            "b": {"additionalProperties": {"type": "integer", "maximum": 2.5}, "type": "object"},
            "c": {"additionalProperties": true, "type": "object"}}});
        check(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {},
            "spec": {"group": "g", "versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}));
    }

    #[test]
    fn lists_and_events_hold_objects() {
        check(&json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}));
        let json = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
        let frame = event("ADDED", json).unwrap();
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        // The event holds its type, then the object with a body's opening.
        assert_eq!(&frame[4..11], b"\x0a\x05ADDED");
        assert!(frame.ends_with(&object(json).unwrap()));
        assert!(object(br#"{"apiVersion":"example.com/v1","kind":"Widget"}"#).is_err());
        assert!(object(br#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":1}}"#).is_err());
    }
}
