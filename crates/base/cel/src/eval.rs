//! Runs a checked expression.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use regex::Regex;

use crate::ast::{Expr, Kind, Literal, Macro, MacroKind};
use crate::check::{TYPE_NAMES, qualified_type};
use crate::value::{List, Map, Value};
use crate::{CALL_COST_MAX, functions, ops};

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    pub message: String,
    /// The expression cost too much; nothing can make up for that.
    pub too_costly: bool,
}

impl std::fmt::Display for EvalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EvalError {}

/// The variable behind `authorizer.requestResource`.
pub const REQUEST_CHECK: &str = "authorizer.requestResource";

pub type Evaluated<'a> = Result<Value<'a>, EvalError>;

pub fn fail<T>(message: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError { message: message.into(), too_costly: false })
}

pub fn no_overload<T>() -> Result<T, EvalError> {
    fail("no such overload")
}

/// The values of an expression's variables.
#[derive(Default)]
pub struct Activation<'a> {
    values: Vec<(&'static str, Value<'a>)>,
    /// The fields of `variables`; one without a value says why when it is read.
    computed: Vec<(&'a str, Evaluated<'a>)>,
    cost: Cell<u64>,
}

impl<'a> Activation<'a> {
    pub fn set(&mut self, name: &'static str, value: Value<'a>) {
        self.values.retain(|(known, _)| *known != name);
        self.values.push((name, value));
    }

    /// Adds a field to `variables`, which later expressions read.
    pub fn define(&mut self, name: &'a str, value: Evaluated<'a>) {
        self.computed.push((name, value));
    }

    /// What all evaluations with these variables have cost so far.
    pub fn cost(&self) -> u64 {
        self.cost.get()
    }
}

/// A variable of a loop and those around it.
struct Scope<'s, 'a> {
    name: &'a str,
    value: Value<'a>,
    outer: Option<&'s Scope<'s, 'a>>,
}

pub struct Machine<'m, 'a> {
    vars: &'m Activation<'a>,
    cost: Cell<u64>,
    regexes: RefCell<HashMap<String, Rc<Regex>>>,
}

pub fn run<'a>(expr: &'a Expr, vars: &Activation<'a>) -> Evaluated<'a> {
    let machine = Machine { vars, cost: Cell::new(0), regexes: RefCell::default() };
    let answer = machine.of(expr, None);
    vars.cost.set(vars.cost.get().saturating_add(machine.cost.get()));
    answer
}

impl<'a> Machine<'_, 'a> {
    /// Pays for work.
    pub fn pay(&self, steps: usize) -> Result<(), EvalError> {
        let cost = self.cost.get().saturating_add(steps as u64);
        self.cost.set(cost);
        if cost > CALL_COST_MAX {
            return Err(EvalError {
                message: "operation cancelled: actual cost limit exceeded".to_owned(),
                too_costly: true,
            });
        }
        Ok(())
    }

    /// A pattern, compiled once for each evaluation.
    pub fn regex(&self, pattern: &str) -> Result<Rc<Regex>, EvalError> {
        if let Some(known) = self.regexes.borrow().get(pattern) {
            return Ok(known.clone());
        }
        let Ok(compiled) = Regex::new(pattern) else {
            return fail(format!("error parsing regexp: {pattern}"));
        };
        let compiled = Rc::new(compiled);
        self.regexes.borrow_mut().insert(pattern.to_owned(), compiled.clone());
        Ok(compiled)
    }

    fn of(&self, expr: &'a Expr, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        self.pay(1)?;
        match &expr.kind {
            Kind::Literal(literal) => Ok(literal_value(literal)),
            Kind::Ident(name) => self.ident(name, scope),
            Kind::Select { of, field, test, optional } => self.select(expr, of, field, (*test, *optional), scope),
            Kind::Call { name, target, args } => self.call(name, target.as_deref(), args, scope),
            Kind::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    list.extend(self.element(item, *optional, scope)?);
                }
                Ok(Value::list(list))
            }
            Kind::Map(entries) => {
                let mut map = Vec::with_capacity(entries.len());
                for (key, value, optional) in entries {
                    let key = self.of(key, scope)?;
                    if map.iter().any(|(known, _)| ops::equal(known, &key)) {
                        return fail("insert failed: key already exists");
                    }
                    map.extend(self.element(value, *optional, scope)?.map(|value| (key, value)));
                }
                Ok(Value::map(map))
            }
            Kind::Struct(_, fields) => {
                let mut map = Vec::with_capacity(fields.len());
                for (name, value, optional) in fields {
                    let value = self.element(value, *optional, scope)?;
                    map.extend(value.map(|value| (Value::String(Cow::Borrowed(name.as_str())), value)));
                }
                Ok(Value::map(map))
            }
            Kind::Macro(of) => self.loop_of(of, scope),
        }
    }

    /// An element of a literal; an optional one may be nothing.
    fn element(
        &self,
        expr: &'a Expr,
        optional: bool,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Option<Value<'a>>, EvalError> {
        match (self.of(expr, scope)?, optional) {
            (Value::Optional(found), true) => Ok(found.map(|value| value.as_ref().clone())),
            (_, true) => no_overload(),
            (value, false) => Ok(Some(value)),
        }
    }

    fn ident(&self, name: &'a str, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let mut scope = scope;
        while let Some(frame) = scope {
            if frame.name == name {
                return Ok(frame.value.clone());
            }
            scope = frame.outer;
        }
        if let Some((_, value)) = self.vars.values.iter().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        if TYPE_NAMES.contains(&name) {
            return Ok(Value::Type(Cow::Borrowed(name)));
        }
        fail(format!("no such attribute(s): {name}"))
    }

    fn select(
        &self,
        expr: &'a Expr,
        of: &'a Expr,
        field: &'a str,
        (test, optional): (bool, bool),
        scope: Option<&Scope<'_, 'a>>,
    ) -> Evaluated<'a> {
        if qualified_type(expr).is_some() {
            let short = if field == "Duration" { "google.protobuf.Duration" } else { "google.protobuf.Timestamp" };
            return Ok(Value::Type(Cow::Borrowed(short)));
        }
        if matches!(&of.kind, Kind::Ident(name) if name == "variables") {
            let found = self.vars.computed.iter().find(|(name, _)| *name == field);
            return match (found, test) {
                (found, true) => Ok(Value::Bool(found.is_some())),
                (Some((_, value)), false) => value.clone(),
                (None, false) => fail(format!("no such key: {field}")),
            };
        }
        let value = self.of(of, scope)?;
        if field == "requestResource" && matches!(value, Value::Library(_)) {
            return self.ident(REQUEST_CHECK, None);
        }
        member(&value, field, test, optional)
    }

    fn call(
        &self,
        name: &'a str,
        target: Option<&'a Expr>,
        args: &'a [Expr],
        scope: Option<&Scope<'_, 'a>>,
    ) -> Evaluated<'a> {
        match (name, args) {
            ("_&&_", [left, right]) => return self.either(left, right, false, scope),
            ("_||_", [left, right]) => return self.either(left, right, true, scope),
            ("_?_:_", [condition, yes, no]) => {
                return match self.of(condition, scope)? {
                    Value::Bool(true) => self.of(yes, scope),
                    Value::Bool(false) => self.of(no, scope),
                    _ => no_overload(),
                };
            }
            ("orValue" | "or", [other]) if target.is_some() => {
                let Some(target) = target else { return no_overload() };
                return match (self.of(target, scope)?, name) {
                    (Value::Optional(Some(value)), "orValue") => Ok(value.as_ref().clone()),
                    (Value::Optional(None), _) => self.of(other, scope),
                    (value @ Value::Optional(_), _) => Ok(value),
                    _ => no_overload(),
                };
            }
            _ => {}
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in target.into_iter().chain(args) {
            values.push(self.of(arg, scope)?);
        }
        functions::call(self, name, target.is_some(), values)
    }

    /// `&&` and `||`: one side that settles the answer makes up for an error of the other.
    fn either(&self, left: &'a Expr, right: &'a Expr, settles: bool, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let first = self.of(left, scope);
        match &first {
            Ok(Value::Bool(found)) if *found == settles => return first,
            Err(error) if error.too_costly => return first,
            _ => {}
        }
        match (first, self.of(right, scope)) {
            (_, Ok(Value::Bool(found))) if found == settles => Ok(Value::Bool(settles)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!settles)),
            _ => no_overload(),
        }
    }

    fn loop_of(&self, of: &'a Macro, scope: Option<&Scope<'_, 'a>>) -> Evaluated<'a> {
        let over = self.of(&of.over, scope)?;
        if let MacroKind::OptMap | MacroKind::OptFlatMap = of.kind {
            let Value::Optional(inside) = over else { return no_overload() };
            let Some(inside) = inside else { return Ok(Value::Optional(None)) };
            let frame = Scope { name: &of.vars[0], value: inside.as_ref().clone(), outer: scope };
            let value = self.of(&of.body, Some(&frame))?;
            return Ok(if of.kind == MacroKind::OptMap { Value::some(value) } else { value });
        }
        let pairs = pairs(over, of.vars.len() == 2)?;
        let mut answer = Answer::new(of.kind);
        for (first, second) in pairs {
            self.pay(1)?;
            let outer = Scope { name: &of.vars[0], value: first.clone(), outer: scope };
            let inner = second.zip(of.vars.get(1)).map(|(value, name)| Scope { name, value, outer: Some(&outer) });
            let frame = inner.as_ref().unwrap_or(&outer);
            if let Some(filter) = &of.filter {
                match self.of(filter, Some(frame))? {
                    Value::Bool(true) => {}
                    Value::Bool(false) => continue,
                    _ => return no_overload(),
                }
            }
            if answer.take(&first, self.of(&of.body, Some(frame)))? {
                break;
            }
        }
        answer.value()
    }
}

/// What a loop goes over: values, or keys and values.
fn pairs<'a>(over: Value<'a>, two: bool) -> Result<Vec<(Value<'a>, Option<Value<'a>>)>, EvalError> {
    Ok(match over {
        Value::List(list) if two => {
            let numbered = list.iter().enumerate();
            numbered.map(|(at, value)| (Value::Int(i64::try_from(at).unwrap_or(i64::MAX)), Some(value))).collect()
        }
        Value::List(list) => list.iter().map(|value| (value, None)).collect(),
        Value::Map(map) if two => map.entries().into_iter().map(|(key, value)| (key, Some(value))).collect(),
        Value::Map(map) => map.entries().into_iter().map(|(key, _)| (key, None)).collect(),
        _ => return no_overload(),
    })
}

/// What a loop has found so far.
struct Answer<'a> {
    kind: MacroKind,
    items: Vec<Value<'a>>,
    entries: Vec<(Value<'a>, Value<'a>)>,
    count: usize,
    settled: bool,
    error: Option<EvalError>,
}

impl<'a> Answer<'a> {
    fn new(kind: MacroKind) -> Self {
        Self { kind, items: Vec::new(), entries: Vec::new(), count: 0, settled: false, error: None }
    }

    /// Takes what the body answered for an element; true ends the loop.
    fn take(&mut self, element: &Value<'a>, found: Evaluated<'a>) -> Result<bool, EvalError> {
        match self.kind {
            MacroKind::All | MacroKind::Exists => {
                let settles = self.kind == MacroKind::Exists;
                match found {
                    Ok(Value::Bool(flag)) => self.settled = flag == settles,
                    Ok(_) => return no_overload(),
                    Err(error) if error.too_costly => return Err(error),
                    Err(error) => self.error = Some(error),
                }
                return Ok(self.settled);
            }
            MacroKind::ExistsOne => self.count += usize::from(flag(&found?)?),
            MacroKind::Filter => {
                if flag(&found?)? {
                    self.items.push(element.clone());
                }
            }
            MacroKind::Map | MacroKind::TransformList => self.items.push(found?),
            MacroKind::TransformMap => self.entries.push((element.clone(), found?)),
            MacroKind::SortBy => self.entries.push((found?, element.clone())),
            MacroKind::TransformMapEntry => match found? {
                Value::Map(map) => {
                    for (key, value) in map.entries() {
                        if self.entries.iter().any(|(known, _)| ops::equal(known, &key)) {
                            return fail("insert failed: key already exists");
                        }
                        self.entries.push((key, value));
                    }
                }
                _ => return no_overload(),
            },
            MacroKind::OptMap | MacroKind::OptFlatMap => return no_overload(),
        }
        Ok(false)
    }

    fn value(mut self) -> Evaluated<'a> {
        match self.kind {
            MacroKind::All | MacroKind::Exists => {
                let settles = self.kind == MacroKind::Exists;
                match (self.settled, self.error) {
                    (true, _) => Ok(Value::Bool(settles)),
                    (false, Some(error)) => Err(error),
                    (false, None) => Ok(Value::Bool(!settles)),
                }
            }
            MacroKind::ExistsOne => Ok(Value::Bool(self.count == 1)),
            MacroKind::TransformMap | MacroKind::TransformMapEntry => Ok(Value::map(self.entries)),
            MacroKind::SortBy => {
                ops::sort_by_key(&mut self.entries)?;
                Ok(Value::list(self.entries.into_iter().map(|(_, value)| value).collect()))
            }
            _ => Ok(Value::list(self.items)),
        }
    }
}

fn flag(value: &Value<'_>) -> Result<bool, EvalError> {
    value.as_bool().map_or_else(no_overload, Ok)
}

/// A field of a value, whether there is one, or an optional of it.
fn member<'a>(value: &Value<'a>, field: &str, test: bool, optional: bool) -> Evaluated<'a> {
    let found = match value {
        Value::Map(map) => map.field(field),
        Value::Optional(None) if test => return Ok(Value::Bool(false)),
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) if test => return member(inner, field, true, false),
        Value::Optional(Some(inner)) => return member(inner, field, false, true),
        _ => return no_overload(),
    };
    match (found, test, optional) {
        (found, true, _) => Ok(Value::Bool(found.is_some())),
        (Some(value @ Value::Optional(_)), _, true) => Ok(value),
        (Some(value), _, true) => Ok(Value::some(value)),
        (None, _, true) => Ok(Value::Optional(None)),
        (Some(value), _, _) => Ok(value),
        (None, _, _) => fail(format!("no such key: {field}")),
    }
}

fn literal_value(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(flag) => Value::Bool(*flag),
        Literal::Int(number) => Value::Int(*number),
        Literal::Uint(number) => Value::Uint(*number),
        Literal::Double(number) => Value::Double(*number),
        Literal::String(text) => Value::String(Cow::Borrowed(text)),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}

/// `of[index]`, or an optional of it.
pub fn index<'a>(of: &Value<'a>, at: &Value<'a>, optional: bool) -> Evaluated<'a> {
    let found = match of {
        Value::List(list) => list_item(list, at)?,
        Value::Map(map) => map_entry(map, at),
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => return index(inner, at, true),
        _ => return no_overload(),
    };
    match (found, optional) {
        (Some(value), true) => Ok(Value::some(value)),
        (None, true) => Ok(Value::Optional(None)),
        (Some(value), false) => Ok(value),
        (None, false) => match (of, at) {
            (Value::List(_), at) => fail(format!("index out of bounds: {}", crate::strings::plain(at))),
            (_, key) => fail(format!("no such key: {}", crate::strings::plain(key))),
        },
    }
}

fn list_item<'a>(list: &List<'a>, at: &Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
    let at = match at {
        Value::Int(at) => usize::try_from(*at).ok(),
        Value::Uint(at) => usize::try_from(*at).ok(),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Value::Double(at) if at.fract() == 0.0 && *at >= 0.0 => Some(*at as usize),
        Value::Double(_) => None,
        _ => return no_overload(),
    };
    Ok(at.and_then(|at| list.get(at)))
}

fn map_entry<'a>(map: &Map<'a>, key: &Value<'a>) -> Option<Value<'a>> {
    match (map, key) {
        // In brackets, keys are as JSON has them.
        (Map::Object { fields, ty }, Value::String(name)) => {
            let known = ty.fields.values().find(|field| field.name == **name);
            match known {
                Some(field) => fields.get(&field.name).map(|json| Value::typed(json, &field.ty)),
                None => fields.get(&**name).map(Value::json),
            }
        }
        _ => map.get(key),
    }
}
