//! Expressions as the parser leaves them, and mistakes with their places.

/// An expression and where it is: characters from the start.
#[derive(Debug)]
pub struct Expr {
    pub at: usize,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    Literal(Literal),
    Ident(String),
    /// `of.field`, `of.?field`, or `has(of.field)`.
    Select {
        of: Box<Expr>,
        field: String,
        test: bool,
        optional: bool,
    },
    /// A function, an operator, or a method of `target`.
    Call {
        name: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Elements, and whether each is left out when absent.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// `Object{field: value}`.
    Struct(String, Vec<(String, Expr, bool)>),
    Macro(Box<Macro>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    TransformList,
    TransformMap,
    TransformMapEntry,
    SortBy,
    OptMap,
    OptFlatMap,
}

/// A loop over a list or a map, or a step into an optional.
#[derive(Debug)]
pub struct Macro {
    pub kind: MacroKind,
    pub over: Expr,
    /// One name, or two: index or key, and value.
    pub vars: Vec<String>,
    /// Elements for which this is false are skipped.
    pub filter: Option<Expr>,
    pub body: Expr,
}

impl Expr {
    /// Whether a variable of this name is read anywhere; loops that give the name to their own do not count apart.
    pub fn uses(&self, variable: &str) -> bool {
        match &self.kind {
            Kind::Literal(_) => false,
            Kind::Ident(name) => name == variable,
            Kind::Select { of, .. } => of.uses(variable),
            Kind::Call { target, args, .. } => {
                target.iter().any(|target| target.uses(variable)) || args.iter().any(|arg| arg.uses(variable))
            }
            Kind::List(items) => items.iter().any(|(item, _)| item.uses(variable)),
            Kind::Map(entries) => entries.iter().any(|(key, value, _)| key.uses(variable) || value.uses(variable)),
            Kind::Struct(_, fields) => fields.iter().any(|(_, value, _)| value.uses(variable)),
            Kind::Macro(of) => {
                of.over.uses(variable)
                    || of.body.uses(variable)
                    || of.filter.as_ref().is_some_and(|filter| filter.uses(variable))
            }
        }
    }
}

/// Something wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub at: usize,
    pub why: String,
}

/// Mistakes as upstream prints them, each with its line and a pointer to the place.
pub fn show(text: &str, mut mistakes: Vec<Mistake>) -> String {
    mistakes.sort_by_key(|mistake| mistake.at);
    let shown = mistakes.iter().map(|mistake| {
        let before: String = text.chars().take(mistake.at).collect();
        let line = before.matches('\n').count();
        let column = before.chars().rev().take_while(|c| *c != '\n').count();
        let source = text.lines().nth(line).unwrap_or_default();
        let dots = ".".repeat(column);
        format!("ERROR: <input>:{}:{}: {}\n | {source}\n | {dots}^", line + 1, column + 1, mistake.why)
    });
    shown.collect::<Vec<_>>().join("\n")
}
