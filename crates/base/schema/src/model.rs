//! The model: what a value at one place of an object may be, and how its parts merge.

use std::sync::{Arc, LazyLock};

use meta::Gvk;
use serde_json::Value;

use crate::custom::Custom;
use crate::table::builtin;

/// A shared type; cloning is cheap.
pub type TypeRef = Arc<Type>;

static DEDUCED: LazyLock<TypeRef> = LazyLock::new(|| Type::new(Shape::Deduced));

/// What a value may be, with what a custom resource's author added.
#[derive(Debug)]
pub struct Type {
    pub shape: Shape,
    /// Set on the types of custom resources.
    pub custom: Option<Box<Custom>>,
}

/// The form of a value on the wire.
#[derive(Debug)]
pub enum Shape {
    Bool,
    Int32,
    Int64,
    Double,
    String,
    /// Base64 text.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Any object: an embedded resource or untyped options.
    Raw,
    /// The set of fields that a manager owns; any object.
    FieldsV1,
    /// Any JSON value.
    Any,
    /// Any JSON value whose objects apply merges field by field: what a custom resource keeps without a schema.
    Deduced,
    Struct {
        of: StructRef,
        /// Replaced as a whole by apply.
        atomic: bool,
    },
    List {
        kind: ListKind,
        item: TypeRef,
    },
    Map {
        atomic: bool,
        value: TypeRef,
    },
}

/// How apply sees a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Not stated: atomic for apply.
    Unstated,
    Atomic,
    /// Elements are unique scalars.
    Set,
    /// Elements are structs known by these fields.
    Map(Box<[Box<str>]>),
}

/// A struct by its row in the built-in table, or a custom one.
#[derive(Clone, Debug)]
pub enum StructRef {
    Builtin(u32),
    Own(Arc<Struct>),
}

impl StructRef {
    pub fn get(&self) -> &Struct {
        match self {
            Self::Builtin(row) => builtin().row(*row),
            Self::Own(own) => own,
        }
    }
}

/// A set of named fields.
#[derive(Debug)]
pub struct Struct {
    /// The OpenAPI name without the leading `io.k8s.`: `api.core.v1.PodSpec`.
    pub name: Box<str>,
    pub gvk: Option<Gvk>,
    /// Replaced as a whole by apply wherever it occurs.
    pub atomic: bool,
    /// Sorted by name.
    pub fields: Box<[Field]>,
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok().map(|at| &self.fields[at])
    }

    /// The last part of the name: `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// As Go prints the type: `v1.PodSpec`.
    fn go_name(&self) -> &str {
        self.name.rmatch_indices('.').nth(1).map_or(&*self.name, |(at, _)| &self.name[at + 1..])
    }
}

/// When upstream's encoder leaves a field out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omit {
    /// When absent; zero values stay.
    Null,
    /// When zero: `false`, `0`, `""`, `[]`, `{}`.
    Zero,
    /// Never: structs and numbers appear with their zero value.
    Never,
}

/// How a strategic merge treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Lists merge (by `key`, or as sets of scalars) instead of being replaced.
    pub merge: bool,
    /// Fields of the object that the patch's `$retainKeys` does not name are cleared.
    pub retain_keys: bool,
    pub key: Option<Box<str>>,
}

#[derive(Debug)]
pub struct Field {
    pub name: Box<str>,
    pub ty: TypeRef,
    pub required: bool,
    pub omit: Omit,
    pub patch: Patch,
    pub default: Option<Value>,
    /// Protobuf field number; 0 where the message nests the field differently.
    pub number: u32,
    /// The values allowed, where the schema lists them.
    pub values: Box<[Box<str>]>,
}

impl Type {
    pub fn new(shape: Shape) -> TypeRef {
        Arc::new(Self { shape, custom: None })
    }

    /// The type of any JSON value.
    pub const fn any() -> Self {
        Self { shape: Shape::Any, custom: None }
    }

    /// Whether rules that are expressions are here or below.
    pub fn has_expressions(&self) -> bool {
        self.custom.as_ref().is_some_and(|custom| custom.has_expressions)
    }

    pub fn as_struct(&self) -> Option<&Struct> {
        match &self.shape {
            Shape::Struct { of, .. } => Some(of.get()),
            _ => None,
        }
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.as_struct()?.field(name)
    }

    /// The type below a key of a struct or map.
    pub fn child(&self, key: &str) -> Option<&TypeRef> {
        match &self.shape {
            Shape::Struct { of, .. } => match of.get().field(key) {
                Some(field) => Some(&field.ty),
                None => self.custom.as_ref().filter(|custom| custom.preserves_unknown).map(|_| &*DEDUCED),
            },
            Shape::Map { value, .. } => Some(value),
            Shape::Deduced => Some(&DEDUCED),
            _ => None,
        }
    }

    /// The type of a list's elements.
    pub fn item(&self) -> Option<&TypeRef> {
        match &self.shape {
            Shape::List { item, .. } => Some(item),
            _ => None,
        }
    }

    /// Whether apply replaces the value as a whole.
    pub fn is_atomic(&self) -> bool {
        match &self.shape {
            Shape::Struct { of, atomic } => *atomic || of.get().atomic,
            Shape::Map { atomic, .. } => *atomic,
            Shape::List { kind, .. } => matches!(kind, ListKind::Unstated | ListKind::Atomic),
            Shape::Deduced => false,
            _ => true,
        }
    }

    /// As Go prints the type in an unmarshalling error: `int32`, `[]v1.Container`.
    pub(crate) fn go_name(&self) -> String {
        match &self.shape {
            Shape::Bool => "bool".into(),
            Shape::Int32 | Shape::IntOrString => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Double => "float64".into(),
            Shape::String | Shape::Time | Shape::MicroTime | Shape::Quantity => "string".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::Raw | Shape::FieldsV1 | Shape::Any | Shape::Deduced => "map[string]interface {}".into(),
            Shape::Struct { of, .. } => of.get().go_name().into(),
            Shape::List { item, .. } => format!("[]{}", item.go_name()),
            Shape::Map { value, .. } => format!("map[string]{}", value.go_name()),
        }
    }
}
