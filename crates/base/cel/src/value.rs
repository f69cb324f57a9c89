//! Values while an expression runs. What comes from JSON is read in place, by the type that its schema declares.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use base64::Engine as _;
use meta::quantity::Quantity;
use serde_json::{Map as Fields, Value as Json};

use crate::types::{ListKind, ObjectType, Type};
use crate::{signatures, time};

static DYN: Type = Type::Dyn;
static STRING: Type = Type::String;

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Cow<'a, str>),
    Bytes(Rc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(jiff::Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Rc<Value<'a>>>),
    /// A type by its name.
    Type(Cow<'a, str>),
    Library(Rc<Library<'a>>),
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Json { items: &'a [Json], item: &'a Type, kind: &'a ListKind },
    Own(Rc<Vec<Value<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// An object with known fields.
    Object {
        fields: &'a Fields<String, Json>,
        ty: &'a ObjectType,
    },
    /// Entries of one type.
    Json {
        fields: &'a Fields<String, Json>,
        value: &'a Type,
    },
    Own(Rc<Vec<(Value<'a>, Value<'a>)>>),
}

/// A value of one of Kubernetes' libraries.
#[derive(Clone)]
pub enum Library<'a> {
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Url(Url),
    Semver([u64; 3], Vec<String>),
    /// The name of a format.
    Format(String),
    Access(&'a dyn Access, AccessQuestion),
    Answer(AccessAnswer),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    pub host: String,
    pub path: String,
    pub query: BTreeMap<String, Vec<String>>,
    pub text: String,
}

/// What an expression asks the authorizer about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessQuestion {
    /// Namespace and name of a service account; empty asks about the user of the request.
    pub service_account: Option<(String, String)>,
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub verb: String,
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessAnswer {
    pub allowed: bool,
    pub reason: String,
    pub error: String,
}

/// Who decides what a user may do.
pub trait Access {
    fn check(&self, question: &AccessQuestion) -> AccessAnswer;
}

impl std::fmt::Debug for Library<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.type_name())
    }
}

impl Library<'_> {
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Quantity(_) => signatures::QUANTITY,
            Self::Ip(_) => signatures::IP,
            Self::Cidr(..) => signatures::CIDR,
            Self::Url(_) => signatures::URL,
            Self::Semver(..) => signatures::SEMVER,
            Self::Format(_) => signatures::FORMAT,
            Self::Access(..) => signatures::AUTHORIZER,
            Self::Answer(_) => signatures::DECISION,
        }
    }
}

impl<'a> Value<'a> {
    /// A JSON value of which nothing is declared.
    pub fn json(json: &'a Json) -> Self {
        Self::typed(json, &DYN)
    }

    /// A JSON value of a declared type.
    pub fn typed(json: &'a Json, ty: &'a Type) -> Self {
        match (json, ty) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(flag), _) => Self::Bool(*flag),
            (Json::Number(number), Type::Double) => Self::Double(number.as_f64().unwrap_or_default()),
            (Json::Number(number), _) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => Self::Int(whole),
                (None, Some(whole)) => Self::Uint(whole),
                (None, None) => whole_double(number.as_f64().unwrap_or_default(), ty),
            },
            (Json::String(text), ty) => Self::text(text, ty),
            (Json::Array(items), ty) => {
                let (item, kind) = match ty {
                    Type::List(list) => (&list.item, &list.kind),
                    _ => (&DYN, &ListKind::Atomic),
                };
                Self::List(List::Json { items, item, kind })
            }
            (Json::Object(fields), Type::Object(ty)) => Self::Map(Map::Object { fields, ty }),
            (Json::Object(fields), Type::Map(map)) => Self::Map(Map::Json { fields, value: &map.1 }),
            (Json::Object(fields), _) => Self::Map(Map::Json { fields, value: &DYN }),
        }
    }

    /// A text that its declared type may make a time or bytes.
    fn text(text: &'a str, ty: &Type) -> Self {
        let made = match ty {
            Type::Timestamp => time::timestamp(text).or_else(|| time::date(text)).map(Self::Timestamp),
            Type::Duration => time::duration(text).map(Self::Duration),
            Type::Bytes => {
                base64::engine::general_purpose::STANDARD.decode(text).ok().map(|bytes| Self::Bytes(bytes.into()))
            }
            _ => None,
        };
        made.unwrap_or(Self::String(Cow::Borrowed(text)))
    }

    pub fn string(text: impl Into<String>) -> Self {
        Self::String(Cow::Owned(text.into()))
    }

    pub(crate) fn list(items: Vec<Self>) -> Self {
        Self::List(List::Own(Rc::new(items)))
    }

    pub(crate) fn map(entries: Vec<(Self, Self)>) -> Self {
        Self::Map(Map::Own(Rc::new(entries)))
    }

    pub(crate) fn library(value: Library<'a>) -> Self {
        Self::Library(Rc::new(value))
    }

    /// The user's authorizer, for expressions that ask about rights.
    pub fn authorizer(access: &'a dyn Access) -> Self {
        Self::library(Library::Access(access, AccessQuestion::default()))
    }

    /// A question to the authorizer that is complete but for its verb: `authorizer.requestResource`.
    pub fn authorizer_for(access: &'a dyn Access, question: AccessQuestion) -> Self {
        Self::library(Library::Access(access, question))
    }

    /// A value that may be absent.
    pub fn optional(value: Option<Self>) -> Self {
        Self::Optional(value.map(Rc::new))
    }

    pub(crate) fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The name of the type, as `type()` says it.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Library(library) => library.type_name(),
        }
    }

    /// The value as JSON; `None` for what JSON has no form of.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(flag) => (*flag).into(),
            Self::Int(number) => (*number).into(),
            Self::Uint(number) => (*number).into(),
            Self::Double(number) => serde_json::Number::from_f64(*number).map(Json::Number)?,
            Self::String(text) => text.as_ref().into(),
            Self::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
            Self::Duration(nanos) => time::show_duration(*nanos).into(),
            Self::Timestamp(at) => time::show_timestamp(*at).into(),
            Self::List(List::Json { items, .. }) => Json::Array(items.to_vec()),
            Self::List(list) => {
                let all: Option<Vec<Json>> = list.iter().map(|item| item.to_json()).collect();
                Json::Array(all?)
            }
            Self::Map(Map::Object { fields, .. } | Map::Json { fields, .. }) => Json::Object((*fields).clone()),
            Self::Map(map) => {
                let mut all = Fields::new();
                for (key, value) in map.entries() {
                    all.insert(key.as_str()?.to_owned(), value.to_json()?);
                }
                Json::Object(all)
            }
            Self::Optional(Some(value)) => value.to_json()?,
            Self::Optional(None) | Self::Type(_) | Self::Library(_) => return None,
        })
    }
}

/// A whole number may have come through a float.
fn whole_double<'a>(number: f64, ty: &Type) -> Value<'a> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if *ty == Type::Int && number.fract() == 0.0 && number.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation)]
        return Value::Int(number as i64);
    }
    Value::Double(number)
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json { items, .. } => items.len(),
            Self::Own(items) => items.len(),
        }
    }

    pub fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            Self::Json { items, item, .. } => items.get(at).map(|json| Value::typed(json, item)),
            Self::Own(items) => items.get(at).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    pub fn kind(&self) -> &'a ListKind {
        match self {
            Self::Json { kind, .. } => kind,
            Self::Own(_) => &ListKind::Atomic,
        }
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Object { fields, .. } | Self::Json { fields, .. } => fields.len(),
            Self::Own(entries) => entries.len(),
        }
    }

    /// The value of a field, by the name that expressions use.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Object { fields, ty } => match ty.fields.get(name) {
                Some(field) => fields.get(&field.name).map(|json| Value::typed(json, &field.ty)),
                None => fields.get(name).map(Value::json),
            },
            Self::Json { fields, value } => fields.get(name).map(|json| Value::typed(json, value)),
            Self::Own(entries) => {
                let found = entries.iter().find(|(key, _)| key.as_str() == Some(name));
                found.map(|(_, value)| value.clone())
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Own(entries), key) => {
                let found = entries.iter().find(|(known, _)| crate::ops::equal(known, key));
                found.map(|(_, value)| value.clone())
            }
            (map, Value::String(name)) => map.field(name),
            _ => None,
        }
    }

    pub fn entries(&self) -> Vec<(Value<'a>, Value<'a>)> {
        match self {
            Self::Object { fields, ty } => {
                let of = |name: &String| ty.fields.values().find(|field| field.name == *name).map_or(&DYN, |f| &f.ty);
                fields.iter().map(|(name, json)| (Value::typed_key(name), Value::typed(json, of(name)))).collect()
            }
            Self::Json { fields, value } => {
                fields.iter().map(|(name, json)| (Value::typed_key(name), Value::typed(json, value))).collect()
            }
            Self::Own(entries) => entries.as_ref().clone(),
        }
    }
}

impl<'a> Value<'a> {
    fn typed_key(name: &'a str) -> Self {
        Self::text(name, &STRING)
    }
}
