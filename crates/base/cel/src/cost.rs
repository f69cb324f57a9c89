//! What an expression may cost at most, by the sizes of the values that it reads.

use crate::ast::{Expr, Kind, Literal, Macro, MacroKind};

/// A place of a schema, as far as it says how large values are.
pub trait Shape: Clone {
    #[must_use]
    fn field(&self, name: &str) -> Self;
    /// An element of a list, or a value of a map.
    #[must_use]
    fn element(&self) -> Self;
    /// Steps to look at the whole value once: its elements, or its characters by tens.
    fn size(&self) -> f64;
}

/// The cost of a part, and what its value looks like where that is known.
struct Part<S> {
    cost: f64,
    shape: Option<S>,
    /// Steps to look at the value once.
    size: f64,
}

impl<S> Part<S> {
    fn scalar(cost: f64) -> Self {
        Self { cost, shape: None, size: 1.0 }
    }
}

pub fn estimate<S: Shape>(expr: &Expr, root: &S) -> f64 {
    Estimator { root, scope: Vec::new() }.of(expr).cost
}

struct Estimator<'a, S> {
    root: &'a S,
    scope: Vec<(&'a str, Option<S>)>,
}

impl<'a, S: Shape> Estimator<'a, S> {
    fn shaped(cost: f64, shape: Option<S>) -> Part<S> {
        let size = shape.as_ref().map_or(1.0, Shape::size);
        Part { cost, shape, size }
    }

    fn of(&mut self, expr: &'a Expr) -> Part<S> {
        match &expr.kind {
            Kind::Literal(Literal::String(text)) => {
                Part { size: (text.len() as f64 / 10.0).ceil(), ..Part::scalar(0.0) }
            }
            Kind::Literal(_) => Part::scalar(0.0),
            Kind::Ident(name) => {
                let known = self.scope.iter().rev().find(|(known, _)| known == name).map(|(_, shape)| shape.clone());
                let shape = match (known, name.as_str()) {
                    (Some(shape), _) => shape,
                    (None, "self" | "oldSelf") => Some(self.root.clone()),
                    (None, _) => None,
                };
                Self::shaped(1.0, shape)
            }
            Kind::Select { of, field, test, .. } => {
                let part = self.of(of);
                // Looking whether something is there costs nothing of its own.
                let cost = part.cost + f64::from(u8::from(!test));
                if *test { Part::scalar(cost) } else { Self::shaped(cost, part.shape.map(|shape| shape.field(field))) }
            }
            Kind::Call { name, target, args } => self.call(name, target.as_deref(), args),
            Kind::List(items) => {
                let cost: f64 = items.iter().map(|(item, _)| self.of(item).cost).sum();
                Part { cost: cost + 10.0, shape: None, size: items.len() as f64 }
            }
            Kind::Map(entries) => {
                let cost: f64 = entries.iter().map(|(key, value, _)| self.of(key).cost + self.of(value).cost).sum();
                Part { cost: cost + 30.0, shape: None, size: entries.len() as f64 }
            }
            Kind::Struct(_, fields) => {
                let cost: f64 = fields.iter().map(|(_, value, _)| self.of(value).cost).sum();
                Part::scalar(cost + 40.0)
            }
            Kind::Macro(of) => self.macro_cost(of),
        }
    }

    fn call(&mut self, name: &str, target: Option<&'a Expr>, args: &'a [Expr]) -> Part<S> {
        let parts: Vec<Part<S>> = target.into_iter().chain(args).map(|arg| self.of(arg)).collect();
        let paid: f64 = parts.iter().map(|part| part.cost).sum();
        let size = |at: usize| parts.get(at).map_or(1.0, |part| part.size);
        let whole: f64 = parts.iter().map(|part| part.size).sum();
        match (name, target.is_some()) {
            ("_?_:_", _) => {
                let branch = parts[1].cost.max(parts[2].cost);
                Part { cost: parts[0].cost + branch, shape: None, size: size(1).max(size(2)) }
            }
            ("_[_]" | "_[?_]", _) => {
                Self::shaped(paid + 1.0, parts.into_iter().next().and_then(|p| p.shape).map(|s| s.element()))
            }
            ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_", _) => {
                Part::scalar(paid + size(0).min(size(1)).max(1.0))
            }
            ("@in", _) => Part::scalar(paid + size(1)),
            ("_+_", _) => Part { cost: paid + whole.max(1.0), shape: None, size: whole },
            ("contains", true) => Part::scalar(paid + size(0) * size(1).max(1.0)),
            ("matches", _) => Part::scalar(paid + (size(0) + 1.0) * (size(1) * 2.5).max(1.0)),
            ("startsWith" | "endsWith", true) => Part::scalar(paid + size(1)),
            ("find" | "findAll", true) => {
                Part { cost: paid + (size(0) + 1.0) * (size(1) * 2.5).max(1.0), shape: None, size: size(0) }
            }
            ("indexOf" | "lastIndexOf", true) => Part::scalar(paid + size(0) * size(1).max(1.0)),
            ("isSorted" | "sum" | "min" | "max", true) => Part::scalar(paid + size(0)),
            ("sets.contains" | "sets.equivalent" | "sets.intersects", false) => Part::scalar(paid + size(0) * size(1)),
            (
                "split" | "replace" | "substring" | "trim" | "lowerAscii" | "upperAscii" | "join" | "reverse"
                | "format",
                true,
            ) => Part { cost: paid + whole, shape: None, size: whole },
            (
                "url" | "isURL" | "ip" | "isIP" | "cidr" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver",
                false,
            ) => Part::scalar(paid + size(0)),
            ("sort" | "distinct" | "flatten" | "slice", true) => {
                let shape = parts.into_iter().next().and_then(|part| part.shape);
                Part { cost: paid + whole * 2.0, shape, size: whole }
            }
            ("orValue" | "or" | "value", true) => {
                let shape = parts.into_iter().next().and_then(|part| part.shape);
                Self::shaped(paid + 1.0, shape)
            }
            _ => Part::scalar(paid + 1.0),
        }
    }

    fn macro_cost(&mut self, of: &'a Macro) -> Part<S> {
        let over = self.of(&of.over);
        let is_optional = matches!(of.kind, MacroKind::OptMap | MacroKind::OptFlatMap);
        let element = match is_optional {
            true => over.shape.clone(),
            false => over.shape.as_ref().map(Shape::element),
        };
        let many = if is_optional { 1.0 } else { over.size };
        let depth = self.scope.len();
        for (at, name) in of.vars.iter().enumerate() {
            let is_value = at + 1 == of.vars.len();
            self.scope.push((name, element.clone().filter(|_| is_value)));
        }
        let filter = of.filter.as_ref().map_or(0.0, |filter| self.of(filter).cost);
        let body = self.of(&of.body);
        self.scope.truncate(depth);
        let cost = over.cost + many * (filter + body.cost + 3.0);
        match of.kind {
            MacroKind::All | MacroKind::Exists | MacroKind::ExistsOne => Part::scalar(cost),
            MacroKind::Filter | MacroKind::SortBy => Part { cost, shape: over.shape, size: many },
            _ => Part { cost: cost + many * 10.0, shape: None, size: many },
        }
    }
}
