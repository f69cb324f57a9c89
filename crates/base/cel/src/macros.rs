//! Methods that are loops: `all`, `exists`, `map`, and their kin.

use crate::ast::{Expr, Kind, Macro, MacroKind, Mistake};

/// The method as a loop where its name and its arguments make it one.
pub fn expand(at: usize, of: Expr, name: String, args: Vec<Expr>) -> Result<Expr, Mistake> {
    use MacroKind::{
        All, Exists, ExistsOne, Filter, Map, OptFlatMap, OptMap, SortBy, TransformList, TransformMap, TransformMapEntry,
    };
    // Kind, names of variables, whether a filter comes before the body.
    let (kind, vars, filtered) = match (name.as_str(), args.len()) {
        ("all", 2) => (All, 1, false),
        ("exists", 2) => (Exists, 1, false),
        ("exists_one" | "existsOne", 2) => (ExistsOne, 1, false),
        ("map", 2) => (Map, 1, false),
        ("map", 3) => (Map, 1, true),
        ("filter", 2) => (Filter, 1, false),
        ("all", 3) => (All, 2, false),
        ("exists", 3) => (Exists, 2, false),
        ("existsOne", 3) => (ExistsOne, 2, false),
        ("transformList", 3) => (TransformList, 2, false),
        ("transformList", 4) => (TransformList, 2, true),
        ("transformMap", 3) => (TransformMap, 2, false),
        ("transformMap", 4) => (TransformMap, 2, true),
        ("transformMapEntry", 3) => (TransformMapEntry, 2, false),
        ("transformMapEntry", 4) => (TransformMapEntry, 2, true),
        ("sortBy", 2) => (SortBy, 1, false),
        ("optMap", 2) => (OptMap, 1, false),
        ("optFlatMap", 2) => (OptFlatMap, 1, false),
        _ => return Ok(Expr { at, kind: Kind::Call { name, target: Some(Box::new(of)), args } }),
    };
    let mut args = args.into_iter();
    let mut names = Vec::with_capacity(vars);
    for arg in args.by_ref().take(vars) {
        match arg.kind {
            Kind::Ident(name) => names.push(name),
            _ => return Err(Mistake { at: arg.at, why: "argument must be a simple name".to_owned() }),
        }
    }
    let filter = if filtered { args.next() } else { None };
    let Some(body) = args.next() else { return Err(Mistake { at, why: "argument is missing".to_owned() }) };
    Ok(Expr { at, kind: Kind::Macro(Box::new(Macro { kind, over: of, vars: names, filter, body })) })
}
