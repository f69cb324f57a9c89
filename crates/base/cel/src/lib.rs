//! The Common Expression Language as Kubernetes speaks it: parsed, checked against declared types, and run on JSON in
//! place.
//!
//! The interpreters that exist as libraries have no checker, and copy every object into values of their own. Kubernetes
//! refuses an expression that names a field which its schema does not have, and runs expressions on each write; so this
//! one checks types, reads `serde_json` values where they are, and counts what it does.

mod ast;
mod check;
mod cost;
mod eval;
mod functions;
mod lexer;
mod macros;
mod ops;
mod parser;
mod signatures;
mod strings;
mod time;
mod types;
mod value;

pub use check::Env;
pub use cost::Shape;
pub use eval::{Activation, EvalError, Evaluated, REQUEST_CHECK};
pub use signatures::{AUTHORIZER, RESOURCE_CHECK};
pub use types::{ListKind, ListType, ObjectField, ObjectType, Type, escape};
pub use value::{Access, AccessAnswer, AccessQuestion, Value};

/// Cost of one evaluation, in steps; more ends it.
pub const CALL_COST_MAX: u64 = 1_000_000;
/// Nesting of parentheses, calls and lists in an expression.
pub const DEPTH_MAX: usize = 100;
/// Bytes of one expression.
pub const EXPRESSION_BYTES_MAX: usize = 100_000;

/// A checked expression.
#[derive(Debug)]
pub struct Program {
    expr: ast::Expr,
    result: Type,
}

/// Why an expression cannot be used, as upstream prints it: every mistake with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError(pub String);

impl std::fmt::Display for CompileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CompileError {}

impl Program {
    /// Parses and checks an expression.
    ///
    /// ```
    /// use cel::{Activation, Env, Program, Type, Value};
    /// let env = Env::default().variable("object", Type::Dyn);
    /// let program = Program::compile("object.spec.replicas <= 5 && has(object.metadata)", &env).unwrap();
    /// let object = serde_json::json!({"metadata": {}, "spec": {"replicas": 3}});
    /// let mut vars = Activation::default();
    /// vars.set("object", Value::json(&object));
    /// assert_eq!(program.eval(&vars).unwrap().as_bool(), Some(true));
    /// ```
    ///
    /// # Errors
    /// The expression is no expression, or its types do not fit.
    pub fn compile(text: &str, env: &Env) -> Result<Self, CompileError> {
        let shown = |mistakes: Vec<ast::Mistake>| CompileError(ast::show(text, mistakes));
        let expr = parser::parse(text).map_err(|mistake| shown(vec![mistake]))?;
        let result = check::check(&expr, env).map_err(shown)?;
        Ok(Self { expr, result })
    }

    /// The type that evaluation answers.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// Whether the expression names a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.expr.uses(variable)
    }

    /// The most steps that the expression takes where `self` is of this shape.
    pub fn cost(&self, root: &impl Shape) -> f64 {
        cost::estimate(&self.expr, root)
    }

    /// Runs the expression.
    ///
    /// # Errors
    /// What the values do not allow, in upstream's words, or that it costs too much.
    pub fn eval<'a>(&'a self, vars: &Activation<'a>) -> Result<Value<'a>, EvalError> {
        eval::run(&self.expr, vars)
    }
}
