//! `x-kubernetes-validations`: rules of a schema's author, as expressions over a value and what it was before.
//!
//! An expression is compiled when the first object is checked by it; a definition's own check compiles it to look for
//! mistakes and forgets it again.

use std::sync::OnceLock;

use cel::{Activation, Env, Program, Type as Cel, Value as CelValue};
use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Map, Value};

use super::before::Before;
use super::cel_types::cel_type;
use crate::model::{Shape, Type};

/// Cost of all expressions for one object, in steps.
const OBJECT_COST_MAX: u64 = 10_000_000;
/// Characters of a computed message.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// The rules of one place of a schema.
#[derive(Debug, Default)]
pub struct Expressions {
    rules: Box<[Rule]>,
    /// The type of `self`.
    itself: OnceLock<Cel>,
}

#[derive(Debug)]
struct Rule {
    text: Box<str>,
    message: Box<str>,
    message_expression: Box<str>,
    reason: Box<str>,
    field_path: Box<str>,
    optional_old: bool,
    program: OnceLock<Result<Program, String>>,
    message_program: OnceLock<Option<Program>>,
}

impl Expressions {
    /// The rules of a schema node, where it has any.
    pub(super) fn of(schema: &Map<String, Value>) -> Option<Box<Self>> {
        let list = schema.get("x-kubernetes-validations")?.as_array().filter(|list| !list.is_empty())?;
        let rule = |rule: &Value| {
            let text = |key: &str| rule[key].as_str().unwrap_or_default().into();
            Rule {
                text: text("rule"),
                message: text("message"),
                message_expression: text("messageExpression"),
                reason: text("reason"),
                field_path: text("fieldPath"),
                optional_old: rule["optionalOldSelf"] == true,
                program: OnceLock::new(),
                message_program: OnceLock::new(),
            }
        };
        Some(Box::new(Self { rules: list.iter().map(rule).collect(), itself: OnceLock::new() }))
    }
}

/// The variables of a rule.
pub(super) fn env(itself: &Cel, optional_old: bool) -> Env {
    let old = if optional_old { Cel::optional(itself.clone()) } else { itself.clone() };
    Env::default().variable("self", itself.clone()).variable("oldSelf", old)
}

/// Compiles a rule, which must answer true or false.
pub(super) fn compile_rule(text: &str, env: &Env, wanted: &Cel) -> Result<Program, String> {
    let program = Program::compile(text, env).map_err(|error| format!("compilation failed: {error}"))?;
    if wanted.accepts(program.result()) {
        return Ok(program);
    }
    let what = if *wanted == Cel::Bool { "cel expression" } else { "messageExpression" };
    Err(format!("{what} must evaluate to a {wanted}"))
}

impl Rule {
    fn program(&self, itself: &Cel) -> &Result<Program, String> {
        self.program.get_or_init(|| compile_rule(&self.text, &env(itself, self.optional_old), &Cel::Bool))
    }

    /// What is said where the rule is broken.
    fn detail<'a>(&'a self, itself: &Cel, vars: &Activation<'a>) -> String {
        if !self.message_expression.is_empty() {
            let program = self.message_program.get_or_init(|| {
                compile_rule(&self.message_expression, &env(itself, self.optional_old), &Cel::String).ok()
            });
            let made = program.as_ref().and_then(|program| program.eval(vars).ok());
            let made = made.as_ref().and_then(|value| value.as_str()).map(str::trim);
            let usable = |text: &&str| !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_BYTES_MAX;
            if let Some(text) = made.filter(usable) {
                return text.to_owned();
            }
        }
        match self.message.trim() {
            "" => format!("failed rule: {}", self.text.trim()),
            message => message.to_owned(),
        }
    }

    /// As errors name the rule.
    fn name(&self) -> &str {
        if self.message.is_empty() { self.text.trim() } else { self.message.trim() }
    }

    fn error(&self, place: &FieldPath, value: &Value, detail: &str) -> FieldError {
        match &*self.reason {
            "FieldValueForbidden" => FieldError::forbidden(place, detail),
            "FieldValueRequired" => FieldError::required(place, detail),
            "FieldValueDuplicate" => FieldError::duplicate(place, value.clone()),
            _ if value.is_object() || value.is_array() => {
                let message = format!("Invalid value: {detail}");
                FieldError { field: place.clone(), reason: "FieldValueInvalid", message }
            }
            _ => FieldError::invalid(place, value.clone(), detail),
        }
    }
}

/// What the rules of a whole object found.
#[derive(Debug, Default)]
pub struct Found {
    pub errors: FieldErrors,
    /// Broken by a part that did not change: told, not held against the writer.
    pub warnings: Vec<String>,
    cost: u64,
    exhausted: bool,
}

/// Runs all rules of an object. `old` is the object as it was; absent on create.
pub fn run(ty: &Type, value: &Value, old: Option<&Value>) -> Found {
    let mut found = Found::default();
    if ty.has_expressions() {
        visit(ty, value, Before::of(value, old), &FieldPath::default(), &mut found);
    }
    found
}

fn visit(ty: &Type, value: &Value, before: Before<'_>, path: &FieldPath, found: &mut Found) {
    let Some(custom) = ty.custom.as_ref().filter(|_| !value.is_null() && !found.exhausted) else { return };
    if let Some(expressions) = &custom.expressions {
        rules(ty, expressions, value, before, path, found);
    }
    match (&ty.shape, value) {
        (Shape::Struct { of, atomic }, Value::Object(map)) => {
            for field in of.get().fields.iter().filter(|field| field.ty.has_expressions()) {
                let Some(inner) = map.get(&*field.name) else { continue };
                let below = before.entry(&field.name, inner, *atomic);
                visit(&field.ty, inner, below, &path.child(&field.name), found);
            }
        }
        (Shape::Map { value: ty, atomic }, Value::Object(map)) if ty.has_expressions() => {
            for (key, inner) in map {
                visit(ty, inner, before.entry(key, inner, *atomic), &path.key(key), found);
            }
        }
        (Shape::List { item, kind }, Value::Array(list)) if item.has_expressions() => {
            for (at, inner) in list.iter().enumerate() {
                visit(item, inner, before.element(inner, kind, item), &path.index(at), found);
            }
        }
        _ => {}
    }
}

fn rules(ty: &Type, expressions: &Expressions, value: &Value, before: Before<'_>, path: &FieldPath, found: &mut Found) {
    let itself = expressions.itself.get_or_init(|| cel_type(ty, "self"));
    let what = if value.is_object() {
        "object"
    } else if value.is_array() {
        "array"
    } else {
        super::validate::type_name(value)
    };
    for rule in &expressions.rules {
        let program = match rule.program(itself) {
            Ok(program) => program,
            Err(why) => {
                found.errors.push(FieldError::invalid(path, what, format!("rule compile error: {why}")));
                continue;
            }
        };
        let uses_old = program.uses("oldSelf");
        if uses_old && before.old.is_none() && !rule.optional_old {
            continue;
        }
        let mut vars = Activation::default();
        vars.set("self", CelValue::typed(value, itself));
        let old = before.old.map(|old| CelValue::typed(old, itself));
        match (rule.optional_old, old) {
            (true, old) => vars.set("oldSelf", CelValue::optional(old)),
            (false, Some(old)) => vars.set("oldSelf", old),
            (false, None) => {}
        }
        let answer = program.eval(&vars);
        found.cost += vars.cost();
        if found.cost > OBJECT_COST_MAX {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            found.errors.push(FieldError::invalid(path, what, why));
            found.exhausted = true;
            return;
        }
        let name = rule.name();
        let error = match answer {
            Ok(answer) if answer.as_bool() == Some(true) => continue,
            Ok(_) => {
                let detail = rule.detail(itself, &vars);
                rule.error(&place(path, &rule.field_path), value, &detail)
            }
            Err(error) if error.too_costly => {
                let why = format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
                );
                found.errors.push(FieldError::invalid(path, what, why));
                found.exhausted = true;
                return;
            }
            Err(error) if error.message.starts_with("no such overload") => {
                let why = format!(
                    "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
                );
                found.errors.push(FieldError::invalid(path, what, why));
                continue;
            }
            Err(error) => {
                found.errors.push(FieldError::invalid(path, what, format!("{error} evaluating rule: {name}")));
                continue;
            }
        };
        if !uses_old && before.unchanged {
            found.warnings.push(error.to_string());
        } else {
            found.errors.push(error);
        }
    }
}

/// The place that a rule speaks of: `.spec.a`, `['a']`.
fn place(path: &FieldPath, below: &str) -> FieldPath {
    let mut path = path.clone();
    let mut rest = below.trim();
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix("['") {
            let (key, after) = inside.split_once("']").unwrap_or((inside, ""));
            path = path.key(&key.replace("\\'", "'"));
            rest = after;
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        path = path.child(&rest[..end]);
        rest = &rest[end..];
    }
    path
}
