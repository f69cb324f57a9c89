//! Value rules of a custom resource's schema: bounds, patterns, enumerations and their combinations.

use serde_json::{Map, Value};

/// What a value must satisfy. Nested rules (`allOf`, `not`, ...) are rules again, without a shape of their own.
#[derive(Debug, Default)]
pub struct Rules {
    /// Allowed JSON types; empty allows all.
    pub types: Box<[Box<str>]>,
    pub nullable: bool,
    pub format: Box<str>,
    pub values: Box<[Value]>,
    pub pattern: Option<(Box<str>, regex::Regex)>,
    pub minimum: Option<Bound>,
    pub maximum: Option<Bound>,
    pub multiple_of: Option<f64>,
    pub length: Range,
    pub items: Range,
    pub properties: Range,
    pub required: Box<[Box<str>]>,
    pub all_of: Box<[Rules]>,
    pub any_of: Box<[Rules]>,
    pub one_of: Box<[Rules]>,
    pub not: Option<Box<Rules>>,
    /// Rules of fields and elements where no shape carries them: below `allOf` and its kin, and names in metadata.
    pub fields: Box<[(Box<str>, Rules)]>,
    pub element: Option<Box<Rules>>,
    pub entry: Option<Box<Rules>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub at: f64,
    pub exclusive: bool,
}

/// How many characters, elements or fields there may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range {
    pub min: Option<u64>,
    pub max: Option<u64>,
}

impl Rules {
    /// The rules of one schema node, without those of its fields and elements.
    pub(super) fn own(schema: &Map<String, Value>) -> Self {
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or_default();
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let list = |key: &str| schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let bound = |key: &str, exclusive: &str| number(key).map(|at| Bound { at, exclusive: flag(exclusive) });
        let nested = |key: &str| list(key).iter().map(Self::whole).collect();
        let types: Box<[Box<str>]> = match (flag("x-kubernetes-int-or-string"), text("type")) {
            (true, _) => ["integer".into(), "string".into()].into(),
            (false, "") => Box::default(),
            (false, one) => [one.into()].into(),
        };
        Self {
            types,
            nullable: flag("nullable"),
            format: text("format").into(),
            values: list("enum").into(),
            pattern: regex::Regex::new(text("pattern"))
                .ok()
                .filter(|_| !text("pattern").is_empty())
                .map(|regex| (text("pattern").into(), regex)),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            length: Range { min: count("minLength"), max: count("maxLength") },
            items: Range { min: count("minItems"), max: count("maxItems") },
            properties: Range { min: count("minProperties"), max: count("maxProperties") },
            required: list("required").iter().filter_map(Value::as_str).map(Into::into).collect(),
            all_of: nested("allOf"),
            any_of: nested("anyOf"),
            one_of: nested("oneOf"),
            not: schema.get("not").map(|not| Box::new(Self::whole(not))),
            ..Self::default()
        }
    }

    /// The rules of a node and everything below it.
    pub(super) fn whole(schema: &Value) -> Self {
        let Some(map) = schema.as_object() else { return Self::default() };
        let below = |key: &str| map.get(key).filter(|one| one.is_object()).map(|one| Box::new(Self::whole(one)));
        let fields = map.get("properties").and_then(Value::as_object).into_iter().flatten();
        Self {
            fields: fields.map(|(name, one)| (name.as_str().into(), Self::whole(one))).collect(),
            element: below("items"),
            entry: below("additionalProperties"),
            ..Self::own(map)
        }
    }
}
