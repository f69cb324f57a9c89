//! What rules may cost at most, estimated from the sizes that a schema allows.

use cel::{Program, Shape};
use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

/// Estimated steps of one rule, for all places where it may run.
const RULE_COST_MAX: f64 = 10_000_000.0;
/// The same of all rules of a definition.
const TOTAL_COST_MAX: f64 = 100_000_000.0;
/// The largest request, which bounds what no schema bounds.
const REQUEST_BYTES_MAX: f64 = 3.0 * 1024.0 * 1024.0;
/// How much text one step looks at.
const CHARACTERS_PER_STEP: f64 = 10.0;

/// The sizes of values that a schema allows.
pub struct Sizes;

impl Sizes {
    /// Elements of a list: as many of the smallest as fit a request, where nothing is said.
    pub fn items(schema: &Value) -> f64 {
        schema["maxItems"].as_f64().unwrap_or_else(|| REQUEST_BYTES_MAX / (smallest(&schema["items"]) + 1.0))
    }

    /// Entries of a map: each has a key of at least two quotes, a colon and a comma.
    pub fn entries(schema: &Value) -> f64 {
        let value = smallest(&schema["additionalProperties"]);
        schema["maxProperties"].as_f64().unwrap_or_else(|| REQUEST_BYTES_MAX / (value + 4.0))
    }

    /// Characters of a text.
    fn characters(schema: &Value) -> f64 {
        let format = schema["format"].as_str().unwrap_or_default();
        let longest = schema["enum"]
            .as_array()
            .map(|all| all.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or_default() as f64);
        match format {
            "date" => 10.0,
            "date-time" | "duration" => 32.0,
            _ => schema["maxLength"].as_f64().or(longest).unwrap_or(REQUEST_BYTES_MAX),
        }
    }
}

/// Bytes of the smallest value of a schema.
fn smallest(schema: &Value) -> f64 {
    match schema["type"].as_str().unwrap_or_default() {
        "string" | "object" | "array" => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = required.filter(|name| schema["properties"][*name]["default"].is_null());
            2.0 + fields.map(|name| name.len() as f64 + 4.0 + smallest(&schema["properties"][name])).sum::<f64>()
        }
        "boolean" => 4.0,
        _ => 1.0,
    }
}

/// The most steps that a rule over values of this schema takes.
pub fn estimate(program: &Program, schema: &Value) -> f64 {
    program.cost(&Place(Some(schema)))
}

/// A place of a schema that an expression may walk through.
#[derive(Clone, Copy)]
struct Place<'a>(Option<&'a Value>);

impl Shape for Place<'_> {
    fn field(&self, name: &str) -> Self {
        let Some(schema) = self.0 else { return Self(None) };
        let properties = schema["properties"].as_object();
        let named = properties.and_then(|all| all.iter().find(|(key, _)| cel::escape(key).as_deref() == Some(name)));
        let below = named.map(|(_, one)| one).or_else(|| schema.get("additionalProperties"));
        Self(below.filter(|below| below.is_object()))
    }

    fn element(&self) -> Self {
        let Some(schema) = self.0 else { return Self(None) };
        let below = schema.get("items").or_else(|| schema.get("additionalProperties"));
        Self(below.filter(|below| below.is_object()))
    }

    fn size(&self) -> f64 {
        let Some(schema) = self.0 else { return REQUEST_BYTES_MAX };
        match schema["type"].as_str().unwrap_or_default() {
            "array" => Sizes::items(schema),
            "object" => Sizes::entries(schema),
            "string" => Sizes::characters(schema) / CHARACTERS_PER_STEP,
            _ => 1.0,
        }
    }
}

/// What the rules of a definition cost together.
#[derive(Default)]
pub struct Total {
    sum: f64,
    /// The most costly, for the error.
    costly: Vec<(FieldPath, f64)>,
}

impl Total {
    pub fn add(&mut self, place: &FieldPath, cost: f64, what: &str, errors: &mut FieldErrors) {
        if cost > RULE_COST_MAX {
            errors.push(FieldError::forbidden(place, message(what, cost, RULE_COST_MAX)));
        }
        self.sum += cost;
        self.costly.push((place.clone(), cost));
    }

    pub fn report(mut self, path: &FieldPath, errors: &mut FieldErrors) {
        if self.sum <= TOTAL_COST_MAX {
            return;
        }
        const SHOWN_MAX: usize = 4;
        self.costly.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (place, _) in self.costly.iter().take(SHOWN_MAX).filter(|(_, cost)| *cost > TOTAL_COST_MAX / 100.0) {
            errors.push(FieldError::forbidden(
                place,
                "contributed to estimated rule & messageExpression cost total exceeding cost limit",
            ));
        }
        let what = "x-kubernetes-validations estimated rule & messageExpression cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(path, message(what, self.sum, TOTAL_COST_MAX)));
    }
}

fn message(what: &str, cost: f64, limit: f64) -> String {
    let factor = cost / limit;
    let by = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {by} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
