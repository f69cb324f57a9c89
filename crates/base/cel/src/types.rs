//! The types of values, as far as they are known before anything runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a value may be.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Type {
    /// Anything: checked when it runs.
    #[default]
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<ListType>),
    /// Of keys and values.
    Map(Arc<(Type, Type)>),
    Object(Arc<ObjectType>),
    Optional(Arc<Type>),
    /// A type as a value.
    Type,
    /// A value of a library: `kubernetes.Quantity`.
    Library(&'static str),
}

/// How lists compare and join.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    /// Elements are known by these fields.
    Map(Vec<String>),
}

#[derive(Debug, Default, PartialEq)]
pub struct ListType {
    pub item: Type,
    pub kind: ListKind,
}

/// An object with known fields.
#[derive(Debug, Default)]
pub struct ObjectType {
    pub name: String,
    /// By the names that expressions use.
    pub fields: BTreeMap<String, ObjectField>,
}

#[derive(Debug)]
pub struct ObjectField {
    /// The name in JSON.
    pub name: String,
    pub ty: Type,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Type {
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(ListType { item, kind: ListKind::Atomic }))
    }

    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// An object with these fields, by their JSON names.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let fields = fields.into_iter().filter_map(|(name, ty)| Some((escape(&name)?, ObjectField { name, ty })));
        Self::Object(Arc::new(ObjectType { name: name.to_owned(), fields: fields.collect() }))
    }

    pub fn is_dyn(&self) -> bool {
        *self == Self::Dyn
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// Whether a value of the other type may stand where one of this is wanted.
    pub fn accepts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            // Objects of schemas may be null where their authors said so.
            (Self::Null, Self::Object(_) | Self::Optional(_) | Self::Timestamp | Self::Duration | Self::Library(_))
            | (Self::Object(_) | Self::Optional(_) | Self::Timestamp | Self::Duration | Self::Library(_), Self::Null) => {
                true
            }
            (Self::List(a), Self::List(b)) => a.item.accepts(&b.item),
            (Self::Map(a), Self::Map(b)) => a.0.accepts(&b.0) && a.1.accepts(&b.1),
            (Self::Optional(a), Self::Optional(b)) => a.accepts(b),
            _ => self == other,
        }
    }

    /// The type of a value that is of one or the other.
    pub fn join(a: &Self, b: &Self) -> Self {
        match (a, b) {
            (a, b) if a == b => a.clone(),
            (Self::List(x), Self::List(y)) => Self::list(Self::join(&x.item, &y.item)),
            (Self::Map(x), Self::Map(y)) => Self::map(Self::join(&x.0, &y.0), Self::join(&x.1, &y.1)),
            (Self::Optional(x), Self::Optional(y)) => Self::optional(Self::join(x, y)),
            _ => Self::Dyn,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::List(list) => write!(f, "list({})", list.item),
            Self::Map(map) => write!(f, "map({}, {})", map.0, map.1),
            Self::Object(object) => f.write_str(&object.name),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Type => f.write_str("type"),
            Self::Library(name) => f.write_str(name),
        }
    }
}

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name under which an expression reads a field; `None` where no name could.
///
/// ```
/// assert_eq!(cel::escape("namespace").as_deref(), Some("__namespace__"));
/// assert_eq!(cel::escape("a-b.c").as_deref(), Some("a__dash__b__dot__c"));
/// assert_eq!(cel::escape("a$"), None);
/// ```
pub fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let (text, length) = match c {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            c if c.is_ascii_alphanumeric() || c == '_' => (&rest[..1], 1),
            _ => return None,
        };
        escaped.push_str(text);
        rest = &rest[length..];
    }
    Some(escaped)
}
