//! Checks the types of an expression against what its variables are declared to be.

use crate::ast::{Expr, Kind, Literal, Macro, MacroKind, Mistake};
use crate::signatures::{AUTHORIZER, RESOURCE_CHECK, Signature, signature};
use crate::types::Type;

/// The variables that an expression may name.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: Vec<(String, Type)>,
}

/// Names of types, which are values of their own.
pub const TYPE_NAMES: [&str; 13] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
    "dyn",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
];

impl Env {
    #[must_use]
    pub fn variable(mut self, name: &str, ty: Type) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), ty));
        self
    }
}

/// The type of an expression.
pub fn check(expr: &Expr, env: &Env) -> Result<Type, Vec<Mistake>> {
    let mut checker = Checker { scope: env.variables.clone(), mistakes: Vec::new() };
    let ty = checker.of(expr);
    if checker.mistakes.is_empty() { Ok(ty) } else { Err(checker.mistakes) }
}

struct Checker {
    scope: Vec<(String, Type)>,
    mistakes: Vec<Mistake>,
}

impl Checker {
    /// Notes a mistake; what follows is checked as if anything were there.
    fn wrong(&mut self, at: usize, why: String) -> Type {
        self.mistakes.push(Mistake { at, why });
        Type::Dyn
    }

    fn of(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => self.ident(expr.at, name),
            Kind::Select { of, field, test, optional } => {
                let ty = match qualified_type(expr) {
                    Some(ty) => return ty,
                    None => self.of(of),
                };
                let found = self.field(expr.at, &ty, field);
                match (test, optional) {
                    (true, _) => Type::Bool,
                    (false, true) if !matches!(found, Type::Optional(_)) => Type::optional(found),
                    _ => found,
                }
            }
            Kind::Call { name, target, args } => self.call(expr.at, name, target.as_deref(), args),
            Kind::List(items) => {
                let types: Vec<(usize, Type)> =
                    items.iter().map(|(item, optional)| (item.at, self.element(item, *optional))).collect();
                Type::list(self.same(types))
            }
            Kind::Map(entries) => {
                let keys = entries.iter().map(|(key, _, _)| (key.at, self.of(key))).collect();
                let key = self.same(keys);
                let values =
                    entries.iter().map(|(_, value, optional)| (value.at, self.element(value, *optional))).collect();
                let value = self.same(values);
                Type::map(key, value)
            }
            Kind::Struct(name, fields) => {
                for (_, value, _) in fields {
                    self.of(value);
                }
                let is_known = name == "JSONPatch" || name == "Object" || name.starts_with("Object.");
                if is_known && self.scope.iter().any(|(variable, _)| variable == "object") {
                    return Type::Dyn;
                }
                self.wrong(expr.at, format!("undeclared reference to '{name}' (in container '')"))
            }
            Kind::Macro(of) => self.macro_type(expr.at, of),
        }
    }

    fn element(&mut self, value: &Expr, optional: bool) -> Type {
        match (self.of(value), optional) {
            (Type::Optional(of), true) => of.as_ref().clone(),
            (ty, _) => ty,
        }
    }

    /// The one type of all elements of a literal.
    fn same(&mut self, types: Vec<(usize, Type)>) -> Type {
        let mut all = types.into_iter();
        let Some((_, mut ty)) = all.next() else { return Type::Dyn };
        for (at, other) in all {
            if !ty.accepts(&other) {
                return self.wrong(at, format!("expected type '{ty}' but found '{other}'"));
            }
            ty = Type::join(&ty, &other);
        }
        ty
    }

    fn ident(&mut self, at: usize, name: &str) -> Type {
        if let Some((_, ty)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return ty.clone();
        }
        if TYPE_NAMES.contains(&name) {
            return Type::Type;
        }
        self.wrong(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn field(&mut self, at: usize, of: &Type, field: &str) -> Type {
        match of {
            Type::Dyn => Type::Dyn,
            Type::Map(map) => map.1.clone(),
            // The check of the very request.
            Type::Library(AUTHORIZER) if field == "requestResource" => Type::Library(RESOURCE_CHECK),
            Type::Object(object) => match object.fields.get(field) {
                Some(found) => found.ty.clone(),
                None => self.wrong(at, format!("undefined field '{field}'")),
            },
            Type::Optional(of) => Type::optional(self.field(at, of, field)),
            other => self.wrong(at, format!("type '{other}' does not support field selection")),
        }
    }

    fn call(&mut self, at: usize, name: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        let types: Vec<Type> = target.into_iter().chain(args).map(|arg| self.argument(name, arg)).collect();
        match signature(name, target.is_some(), &types) {
            Signature::Is(ty) => ty,
            Signature::Unknown => self.wrong(at, format!("undeclared reference to '{name}' (in container '')")),
            Signature::Mismatch => {
                let shown = |types: &[Type]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let applied = match target {
                    Some(_) => format!("{}.({})", types[0], shown(&types[1..])),
                    None => format!("({})", shown(&types)),
                };
                self.wrong(at, format!("found no matching overload for '{name}' applied to '{applied}'"))
            }
        }
    }

    /// The type of an argument; what is to be formatted may be of different types.
    fn argument(&mut self, function: &str, arg: &Expr) -> Type {
        let Kind::List(items) = &arg.kind else { return self.of(arg) };
        if function != "format" {
            return self.of(arg);
        }
        for (item, _) in items {
            self.of(item);
        }
        Type::list(Type::Dyn)
    }

    fn macro_type(&mut self, at: usize, of: &Macro) -> Type {
        use MacroKind::{OptFlatMap, OptMap};
        let over = self.of(&of.over);
        let two = of.vars.len() == 2;
        let vars = match (&over, of.kind) {
            (Type::Optional(inner), OptMap | OptFlatMap) => vec![inner.as_ref().clone()],
            (Type::Dyn, _) => vec![Type::Dyn; of.vars.len()],
            (Type::List(list), _) if two => vec![Type::Int, list.item.clone()],
            (Type::List(list), _) => vec![list.item.clone()],
            (Type::Map(map), _) if two => vec![map.0.clone(), map.1.clone()],
            (Type::Map(map), _) => vec![map.0.clone()],
            (Type::Object(_), _) if !matches!(of.kind, OptMap | OptFlatMap) => vec![Type::Dyn; of.vars.len()],
            (other, _) => {
                let why = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(of.over.at, why);
                vec![Type::Dyn; of.vars.len()]
            }
        };
        let depth = self.scope.len();
        let item = vars.first().cloned().unwrap_or_default();
        self.scope.extend(of.vars.iter().cloned().zip(vars));
        if let Some(filter) = &of.filter {
            self.boolean(filter);
        }
        let answer = self.macro_answer(at, of, &over, item);
        self.scope.truncate(depth);
        answer
    }

    fn macro_answer(&mut self, _at: usize, of: &Macro, over: &Type, item: Type) -> Type {
        match of.kind {
            MacroKind::All | MacroKind::Exists | MacroKind::ExistsOne => {
                self.boolean(&of.body);
                Type::Bool
            }
            MacroKind::Filter => {
                self.boolean(&of.body);
                Type::list(item)
            }
            MacroKind::Map | MacroKind::TransformList => Type::list(self.of(&of.body)),
            MacroKind::TransformMap => {
                let key = match over {
                    Type::Map(map) => map.0.clone(),
                    Type::List(_) => Type::Int,
                    _ => Type::Dyn,
                };
                Type::map(key, self.of(&of.body))
            }
            MacroKind::TransformMapEntry => self.of(&of.body),
            MacroKind::SortBy => {
                self.of(&of.body);
                over.clone()
            }
            MacroKind::OptMap => Type::optional(self.of(&of.body)),
            MacroKind::OptFlatMap => match self.of(&of.body) {
                ty @ (Type::Optional(_) | Type::Dyn) => ty,
                other => {
                    let why =
                        format!("found no matching overload for '_?_:_' applied to '(bool, {other}, optional_type)'");
                    self.wrong(of.body.at, why)
                }
            },
        }
    }

    fn boolean(&mut self, expr: &Expr) {
        let ty = self.of(expr);
        if !Type::Bool.accepts(&ty) {
            self.wrong(expr.at, format!("expected type 'bool' but found '{ty}'"));
        }
    }
}

/// `google.protobuf.Timestamp` and its like.
pub fn qualified_type(expr: &Expr) -> Option<Type> {
    let Kind::Select { of, field, .. } = &expr.kind else { return None };
    let Kind::Select { of: root, field: middle, .. } = &of.kind else { return None };
    let Kind::Ident(root) = &root.kind else { return None };
    let name = format!("{root}.{middle}.{field}");
    TYPE_NAMES.contains(&name.as_str()).then_some(Type::Type)
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
