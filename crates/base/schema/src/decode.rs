//! Decoding: JSON or YAML bytes, or a value made by a patch, checked against a type and brought to upstream's form.

use std::fmt;

use meta::{Reason, Status};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::model::{Omit, Shape, Struct, Type};

/// Nesting accepted in a body; deeper ones are answered with 400 before they can exhaust the stack.
pub const DEPTH_MAX: usize = 120;
/// Strict decoding stops collecting complaints here, as upstream does.
pub const STRICT_ISSUES_MAX: usize = 100;
/// Bytes of the body quoted in an error about an unreadable one.
const QUOTED_BYTES_MAX: usize = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

/// The `fieldValidation` query parameter: what to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// Parses the query parameter; absent or empty means `Warn`, an unknown word is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// A checked object and the warnings to send with the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// Why a body is not an object of the type asked for. Always final: the client has to change the body.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON or YAML at all, or nested too deeply.
    #[error("{0}")]
    Syntax(String),
    /// A value has the wrong form.
    #[error("{0}")]
    Type(String),
    /// `fieldValidation=Strict` and the body has unknown or duplicate fields.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// Opens the list of what is wrong with YAML, as upstream prints it.
const YAML_HEAD: &str = "yaml: unmarshal errors:";

impl DecodeError {
    /// The error that strict decoding makes of warnings: those about lines of YAML are one complaint.
    pub fn strict(warnings: Vec<String>) -> Self {
        let (lines, mut issues): (Vec<String>, Vec<String>) =
            warnings.into_iter().partition(|warning| warning.starts_with("line "));
        if !lines.is_empty() {
            issues.insert(0, format!("{YAML_HEAD}\n  {}", lines.join("\n  ")));
        }
        Self::Strict(issues)
    }

    /// The 400 that upstream answers for this body, sent where a `kind` of `version` was expected.
    pub fn status(&self, version: &str, kind: &str, body: &[u8]) -> Box<Status> {
        let message = match self {
            Self::Syntax(why) => format!(
                "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {why} ({})",
                quote(body)
            ),
            other => format!("{kind} in version {version:?} cannot be handled as a {kind}: {other}"),
        };
        Status::failure(Reason::BadRequest, message)
    }
}

fn quote(body: &[u8]) -> String {
    let (head, dots) = match body.len() {
        0 => return "<empty>".into(),
        n if n > QUOTED_BYTES_MAX => (&body[..QUOTED_BYTES_MAX], " ..."),
        _ => (body, ""),
    };
    if body[0] == b'{' {
        return format!("{}{dots}", String::from_utf8_lossy(head));
    }
    format!("{}{dots}", head.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Decodes a whole object: unknown fields are pruned and reported, nulls and omitted zero values are dropped, and
/// quantities and times are brought to their canonical form.
pub fn decode(ty: &Type, body: &[u8], format: Format, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    run(ty, Input::Bytes(body, format), validation, true)
}

/// Decodes a part of an object, as a patch or an apply configuration is: nothing is filled in or left out.
pub fn decode_partial(
    ty: &Type,
    body: &[u8],
    format: Format,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    run(ty, Input::Bytes(body, format), validation, false)
}

/// Checks a value as [`decode_partial`] checks bytes.
pub fn conform_partial(ty: &Type, value: Value, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    run(ty, Input::Value(value), validation, false)
}

/// Checks a value that a patch has made, exactly as if it had been sent.
pub fn conform(ty: &Type, value: Value, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    run(ty, Input::Value(value), validation, true)
}

/// `apiVersion` and `kind` of a body whose type is not known yet.
pub fn type_meta(body: &[u8], format: Format) -> Result<(String, String), DecodeError> {
    let value = decode_partial(&Type::any(), body, format, FieldValidation::Ignore)?.value;
    let Value::Object(map) = &value else {
        let target =
            r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        let what = what(&value);
        return Err(DecodeError::Syntax(format!("json: cannot unmarshal {what} into Go value of type {target}")));
    };
    let text = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => {
            let what = what(other);
            Err(DecodeError::Syntax(format!(
                "json: cannot unmarshal {what} into Go struct field .{key} of type string"
            )))
        }
    };
    Ok((text("apiVersion")?, text("kind")?))
}

fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

enum Input<'a> {
    Bytes(&'a [u8], Format),
    Value(Value),
}

fn run(ty: &Type, input: Input<'_>, validation: FieldValidation, whole: bool) -> Result<Decoded, DecodeError> {
    let yaml = matches!(input, Input::Bytes(_, Format::Yaml));
    let mut state = State { whole, yaml, ..State::default() };
    let seed = Node { state: &mut state, ty };
    let outcome: Result<Value, String> = match input {
        Input::Bytes(body, Format::Json) => {
            let mut json = serde_json::Deserializer::from_slice(body);
            seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value)).map_err(|error| syntax(&error))
        }
        Input::Bytes(body, Format::Yaml) => {
            let options =
                serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough };
            serde_saphyr::with_deserializer_from_slice_with_options(body, options, |yaml| seed.deserialize(yaml))
                .map_err(|error| format!("yaml: {}", error.to_string().lines().next().unwrap_or_default()))
        }
        Input::Value(value) => seed.deserialize(value).map_err(|error| error.to_string()),
    };
    if let Some(error) = state.error.take() {
        return Err(error);
    }
    let value = outcome.map_err(DecodeError::Syntax)?;
    let mut issues = state.duplicates;
    issues.append(&mut state.issues);
    match validation {
        FieldValidation::Strict if !issues.is_empty() => Err(DecodeError::strict(issues)),
        FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new() }),
        _ => Ok(Decoded { value, warnings: issues }),
    }
}

/// The key of an entry and, in YAML, the line it stands on.
struct Key {
    yaml: bool,
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = (String, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if !self.yaml {
            return String::deserialize(deserializer).map(|name| (name, 0));
        }
        let key = serde_saphyr::Spanned::<String>::deserialize(deserializer)?;
        Ok((key.value, key.defined.line()))
    }
}

fn syntax(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let text = error.to_string();
    match text.contains("recursion limit") {
        true => "exceeded max depth".into(),
        false => text,
    }
}

/// What one decoding run remembers while it walks down.
#[derive(Default)]
struct State<'t> {
    whole: bool,
    yaml: bool,
    path: Vec<Step<'t>>,
    issues: Vec<String>,
    duplicates: Vec<String>,
    error: Option<DecodeError>,
}

enum Step<'t> {
    Field(&'t Struct, &'t str),
    Key(String),
    Index(usize),
}

impl State<'_> {
    /// `spec.containers[0].image`, ending in `last`.
    fn place(&self, last: &str) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => out.push_str(&format!("[{index}]")),
                Step::Field(_, name) => push_name(&mut out, name),
                Step::Key(name) => push_name(&mut out, name),
            }
        }
        push_name(&mut out, last);
        out
    }

    fn report_unknown(&mut self, name: &str) {
        if self.issues.len() < STRICT_ISSUES_MAX {
            let place = self.place(name);
            self.issues.push(format!("unknown field {place:?}"));
        }
    }

    fn report_duplicate(&mut self, name: &str, line: u64) {
        if self.duplicates.len() + self.issues.len() >= STRICT_ISSUES_MAX {
            return;
        }
        if self.yaml {
            self.duplicates.push(format!("line {line}: key {name:?} already set in map"));
        } else {
            let place = self.place(name);
            self.issues.push(format!("duplicate field {place:?}"));
        }
    }

    /// Go's words for a value of the wrong form: map keys and indexes are not part of its path.
    fn mismatch(&self, what: &str, ty: &Type) -> DecodeError {
        let fields: Vec<&str> =
            self.path.iter().filter_map(|step| if let Step::Field(_, n) = step { Some(*n) } else { None }).collect();
        let owner = self
            .path
            .iter()
            .rev()
            .find_map(|s| if let Step::Field(owner, _) = s { Some(owner.short_name()) } else { None });
        let target = match owner {
            Some(owner) => format!("Go struct field {owner}.{} of type", fields.join(".")),
            None => "Go value of type".to_owned(),
        };
        DecodeError::Type(format!("json: cannot unmarshal {what} into {target} {}", ty.go_name()))
    }
}

fn push_name(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}

struct Node<'s, 't> {
    state: &'s mut State<'t>,
    ty: &'t Type,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.state.path.len() >= DEPTH_MAX {
            return self.fail(DecodeError::Syntax("exceeded max depth".into()));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'t> Node<'_, 't> {
    /// Stops the run; the real error is kept in the state, because formats wrap theirs with positions.
    fn fail<E: serde::de::Error>(self, error: DecodeError) -> Result<Value, E> {
        self.state.error = Some(error);
        Err(E::custom("stopped"))
    }

    fn mismatch<E: serde::de::Error>(self, what: &str) -> Result<Value, E> {
        let error = match self.ty.shape {
            Shape::Quantity => DecodeError::Type(QUANTITY_RULE.into()),
            _ => self.state.mismatch(what, self.ty),
        };
        self.fail(error)
    }

    fn number<E: serde::de::Error>(self, number: serde_json::Number) -> Result<Value, E> {
        let fits = match self.ty.shape {
            Shape::Int32 | Shape::IntOrString => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Shape::Int64 => number.as_i64().is_some(),
            Shape::Double | Shape::Any | Shape::Deduced => true,
            Shape::Quantity => return self.quantity(&number.to_string()),
            _ => return self.mismatch("number"),
        };
        if fits { Ok(Value::Number(number)) } else { self.mismatch(&format!("number {number}")) }
    }

    fn quantity<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        match meta::quantity::canonical(text) {
            Ok(canonical) => Ok(Value::String(canonical)),
            Err(_) => self.fail(DecodeError::Type(QUANTITY_RULE.into())),
        }
    }

    fn time<E: serde::de::Error>(self, text: &str, micros: bool) -> Result<Value, E> {
        let parsed = match micros {
            true => meta::time::parse_micros(text).map(meta::time::format_micros),
            false => meta::time::parse_seconds(text).map(meta::time::format_seconds),
        };
        let layout = if micros { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
        match parsed {
            Some(canonical) => Ok(Value::String(canonical)),
            None => self.fail(DecodeError::Type(format!(
                "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
            ))),
        }
    }

    fn bytes<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        use base64::Engine as _;
        let compact: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        match base64::engine::general_purpose::STANDARD.decode(&compact) {
            Ok(_) => Ok(Value::String(compact)),
            Err(error) => {
                let at = match error {
                    base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                    _ => compact.len() / 4 * 4,
                };
                self.fail(DecodeError::Type(format!("illegal base64 data at input byte {at}")))
            }
        }
    }

    /// What Go's decoder makes of a null inside a list or map: the zero value.
    fn zero(ty: &Type) -> Value {
        match &ty.shape {
            Shape::Bool => Value::Bool(false),
            Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => 0.into(),
            Shape::String | Shape::Bytes => "".into(),
            Shape::Quantity => "0".into(),
            Shape::Struct { of, .. } => {
                let mut map = Map::new();
                fill(of.get(), &mut map);
                Value::Object(map)
            }
            _ => Value::Null,
        }
    }

    fn structure<'de, A: MapAccess<'de>>(self, of: &'t Struct, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut seen = vec![false; of.fields.len()];
        while let Some((name, line)) = entries.next_key_seed(Key { yaml: self.state.yaml })? {
            let Ok(at) = of.fields.binary_search_by(|field| (*field.name).cmp(&*name)) else {
                self.state.report_unknown(&name);
                entries.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = &of.fields[at];
            if std::mem::replace(&mut seen[at], true) {
                self.state.report_duplicate(&name, line);
            }
            self.state.path.push(Step::Field(of, &field.name));
            let value = entries.next_value_seed(Node { state: &mut *self.state, ty: &field.ty })?;
            self.state.path.pop();
            let dropped = self.state.whole && (value.is_null() || field.omit == Omit::Zero && is_zero(&value));
            if dropped {
                map.remove(&name)
            } else {
                map.insert(name, value)
            };
        }
        if self.state.whole {
            fill(of, &mut map);
        }
        Ok(Value::Object(map))
    }
}

const QUANTITY_RULE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// Structs that upstream's encoder always writes appear as `{}`, and the counters of a status as 0.
fn fill(of: &Struct, map: &mut Map<String, Value>) {
    for field in of.fields.iter().filter(|field| field.omit == Omit::Never) {
        if map.contains_key(&*field.name) {
            continue;
        }
        if let Some(inner) = field.ty.as_struct() {
            let mut nested = Map::new();
            fill(inner, &mut nested);
            map.insert(field.name.to_string(), Value::Object(nested));
        } else if of.name.ends_with("Status") && matches!(field.ty.shape, Shape::Int32 | Shape::Int64) {
            map.insert(field.name.to_string(), 0.into());
        }
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match self.ty.shape {
            Shape::Bool | Shape::Any | Shape::Deduced => Ok(Value::Bool(value)),
            _ => self.mismatch("bool"),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.number(number),
            None => self.mismatch("number"),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        match self.ty.shape {
            Shape::String | Shape::IntOrString | Shape::Any | Shape::Deduced => Ok(Value::String(text.to_owned())),
            Shape::Quantity => self.quantity(text),
            Shape::Time => self.time(text, false),
            Shape::MicroTime => self.time(text, true),
            Shape::Bytes => self.bytes(text),
            _ => self.mismatch("string"),
        }
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        match self.ty.shape {
            Shape::String | Shape::IntOrString | Shape::Any | Shape::Deduced => Ok(Value::String(text)),
            _ => self.visit_str(&text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let item: &Type = match &self.ty.shape {
            Shape::List { item, .. } => item,
            Shape::Any | Shape::Deduced => &ANY,
            _ => return self.mismatch("array"),
        };
        let typed_whole = self.state.whole && !matches!(self.ty.shape, Shape::Any);
        let mut list = Vec::new();
        loop {
            self.state.path.push(Step::Index(list.len()));
            let next = elements.next_element_seed(Node { state: &mut *self.state, ty: item })?;
            self.state.path.pop();
            match next {
                None => return Ok(Value::Array(list)),
                Some(Value::Null) if typed_whole => list.push(Self::zero(item)),
                Some(value) => list.push(value),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let value_type: &Type = match &self.ty.shape {
            Shape::Struct { of, .. } => {
                let of = of.get();
                return self.structure(of, entries);
            }
            Shape::Map { value, .. } => value,
            Shape::Any | Shape::Deduced | Shape::Raw | Shape::FieldsV1 => &ANY,
            _ => return self.mismatch("object"),
        };
        let mut map = Map::new();
        while let Some((name, line)) = entries.next_key_seed(Key { yaml: self.state.yaml })? {
            if map.contains_key(&name) {
                self.state.report_duplicate(&name, line);
            }
            self.state.path.push(Step::Key(name.clone()));
            let value = entries.next_value_seed(Node { state: &mut *self.state, ty: value_type })?;
            self.state.path.pop();
            let null = value.is_null() && self.state.whole && matches!(self.ty.shape, Shape::Map { .. });
            map.insert(name, if null { Self::zero(value_type) } else { value });
        }
        Ok(Value::Object(map))
    }
}

static ANY: Type = Type::any();
