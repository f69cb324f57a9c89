//! Which functions there are, what they take and what they answer.

use crate::types::Type;

/// What a call with arguments of these types is.
pub enum Signature {
    Is(Type),
    Mismatch,
    Unknown,
}

pub const QUANTITY: &str = "kubernetes.Quantity";
pub const URL: &str = "kubernetes.URL";
pub const IP: &str = "net.IP";
pub const CIDR: &str = "net.CIDR";
pub const SEMVER: &str = "kubernetes.Semver";
pub const FORMAT: &str = "kubernetes.NamedFormat";
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
pub const DECISION: &str = "kubernetes.authorization.Decision";

fn lib(name: &'static str) -> Type {
    Type::Library(name)
}

/// The arguments include the target of a method, first.
pub fn signature(name: &str, is_method: bool, args: &[Type]) -> Signature {
    let found = match is_method {
        false => function(name, args),
        true => method(name, args),
    };
    match found {
        Some(Some(ty)) => Signature::Is(ty),
        Some(None) => Signature::Mismatch,
        None => Signature::Unknown,
    }
}

/// Whether arguments fit what is wanted.
fn fit(args: &[Type], wanted: &[Type]) -> bool {
    args.len() == wanted.len() && args.iter().zip(wanted).all(|(have, want)| want.accepts(have))
}

/// The first of several forms that fits.
fn one(args: &[Type], forms: &[(&[Type], Type)]) -> Option<Type> {
    let mut fitting = forms.iter().filter(|(wanted, _)| fit(args, wanted));
    let first = fitting.next()?;
    // An argument that may be anything leaves the answer open where forms answer differently.
    let open = fitting.any(|(_, ty)| *ty != first.1);
    Some(if open { Type::Dyn } else { first.1.clone() })
}

fn any_list(ty: &Type) -> bool {
    matches!(ty, Type::List(_) | Type::Dyn)
}

fn item(ty: &Type) -> Type {
    match ty {
        Type::List(list) => list.item.clone(),
        _ => Type::Dyn,
    }
}

fn function(name: &str, args: &[Type]) -> Option<Option<Type>> {
    use Type::{Bool, Bytes, Double, Duration, Dyn, Int, Null, String, Timestamp, Uint};
    let sized = |ty: &Type| matches!(ty, String | Bytes | Type::List(_) | Type::Map(_) | Dyn);
    let found = match (name, args) {
        ("_&&_" | "_||_", _) => one(args, &[(&[Bool, Bool], Bool)]),
        ("!_", _) => one(args, &[(&[Bool], Bool)]),
        ("-_", _) => one(args, &[(&[Int], Int), (&[Double], Double), (&[Duration], Duration)]),
        ("_?_:_", [condition, yes, no]) => {
            let fits = Bool.accepts(condition) && (yes.accepts(no) || no.accepts(yes));
            fits.then(|| if *yes == Null { no.clone() } else { Type::join(yes, no) })
        }
        ("_==_" | "_!=_", [a, b]) => (a.accepts(b) || b.accepts(a)).then_some(Bool),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
            let ordered =
                |ty: &Type| matches!(ty, Bool | String | Bytes | Timestamp | Duration | Dyn) || ty.is_number();
            let same = a.accepts(b) || a.is_number() && b.is_number();
            (ordered(a) && ordered(b) && same).then_some(Bool)
        }
        ("_+_", [a, b]) if any_list(a) && any_list(b) && !(a.is_dyn() && b.is_dyn()) => {
            a.accepts(b).then(|| if a.is_dyn() { b.clone() } else { a.clone() })
        }
        ("_+_", _) => one(
            args,
            &[
                (&[Int, Int], Int),
                (&[Uint, Uint], Uint),
                (&[Double, Double], Double),
                (&[String, String], String),
                (&[Bytes, Bytes], Bytes),
                (&[Duration, Duration], Duration),
                (&[Timestamp, Duration], Timestamp),
                (&[Duration, Timestamp], Timestamp),
            ],
        ),
        ("_-_", _) => one(
            args,
            &[
                (&[Int, Int], Int),
                (&[Uint, Uint], Uint),
                (&[Double, Double], Double),
                (&[Duration, Duration], Duration),
                (&[Timestamp, Duration], Timestamp),
                (&[Timestamp, Timestamp], Duration),
            ],
        ),
        ("_*_" | "_/_", _) => one(args, &[(&[Int, Int], Int), (&[Uint, Uint], Uint), (&[Double, Double], Double)]),
        ("_%_", _) => one(args, &[(&[Int, Int], Int), (&[Uint, Uint], Uint)]),
        ("@in", [_, Dyn]) => Some(Bool),
        ("@in", [key, Type::List(list)]) => list.item.accepts(key).then_some(Bool),
        ("@in", [key, Type::Map(map)]) => map.0.accepts(key).then_some(Bool),
        ("@in", [key, Type::Object(_)]) => String.accepts(key).then_some(Bool),
        ("_[_]", [of, index]) => indexed(of, index),
        ("_[?_]", [of, index]) => indexed(of, index).map(|ty| match ty {
            Type::Optional(_) => ty,
            ty => Type::optional(ty),
        }),
        ("size", [of]) => sized(of).then_some(Int),
        ("type", [_]) => Some(Type::Type),
        ("dyn", [_]) => Some(Dyn),
        ("int", [of]) => (of.is_number() || matches!(of, String | Timestamp | Duration | Dyn)).then_some(Int),
        ("uint", [of]) => (of.is_number() || matches!(of, String | Dyn)).then_some(Uint),
        ("double", [of]) => (of.is_number() || matches!(of, String | Dyn)).then_some(Double),
        ("bool", [of]) => matches!(of, Bool | String | Dyn).then_some(Bool),
        ("string", [of]) => {
            let fits = of.is_number()
                || matches!(of, Bool | String | Bytes | Timestamp | Duration | Dyn)
                || [lib(IP), lib(CIDR)].contains(of);
            fits.then_some(String)
        }
        ("bytes", [of]) => matches!(of, Bytes | String | Dyn).then_some(Bytes),
        ("duration", [of]) => matches!(of, Duration | String | Int | Dyn).then_some(Duration),
        ("timestamp", [of]) => matches!(of, Timestamp | String | Int | Dyn).then_some(Timestamp),
        ("matches", _) => one(args, &[(&[String, String], Bool)]),
        ("url", _) => one(args, &[(&[String], lib(URL))]),
        ("isURL" | "isIP" | "isCIDR" | "isQuantity" | "ip.isCanonical", _) => one(args, &[(&[String], Bool)]),
        ("ip", _) => one(args, &[(&[String], lib(IP))]),
        ("cidr", _) => one(args, &[(&[String], lib(CIDR))]),
        ("quantity", _) => one(args, &[(&[String], lib(QUANTITY))]),
        ("semver", _) => one(args, &[(&[String], lib(SEMVER)), (&[String, Bool], lib(SEMVER))]),
        ("isSemver", _) => one(args, &[(&[String], Bool), (&[String, Bool], Bool)]),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => {
            (any_list(a) && any_list(b) && a.accepts(b)).then_some(Bool)
        }
        ("strings.quote" | "jsonpatch.escapeKey", _) => one(args, &[(&[String], String)]),
        ("lists.range", _) => one(args, &[(&[Int], Type::list(Int))]),
        ("optional.of" | "optional.ofNonZeroValue", [of]) => Some(Type::optional(of.clone())),
        ("optional.none", []) => Some(Type::optional(Dyn)),
        ("format.named", _) => one(args, &[(&[String], Type::optional(lib(FORMAT)))]),
        (name, []) if name.starts_with("format.") => Some(lib(FORMAT)),
        (name, _) if FUNCTIONS.contains(&name) => None,
        _ => return None,
    };
    Some(found)
}

/// Names that exist, for calls with the wrong number of arguments.
const FUNCTIONS: [&str; 25] = [
    "_==_",
    "_!=_",
    "_<_",
    "_<=_",
    "_>_",
    "_>=_",
    "_?_:_",
    "@in",
    "_[_]",
    "_[?_]",
    "size",
    "type",
    "dyn",
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "duration",
    "timestamp",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "optional.of",
];

fn indexed(of: &Type, index: &Type) -> Option<Type> {
    match of {
        Type::Dyn => Some(Type::Dyn),
        Type::List(list) => (Type::Int.accepts(index) || index.is_number()).then(|| list.item.clone()),
        Type::Map(map) => map.0.accepts(index).then(|| map.1.clone()),
        Type::Object(_) => Type::String.accepts(index).then_some(Type::Dyn),
        Type::Optional(of) => indexed(of, index).map(Type::optional),
        _ => None,
    }
}

fn method(name: &str, args: &[Type]) -> Option<Option<Type>> {
    let rest = &args[1..];
    let found = text_method(name, args)
        .or_else(|| time_method(name, args))
        .or_else(|| list_method(name, &args[0], rest))
        .or_else(|| library_method(name, args))
        .or_else(|| authorizer_method(name, args));
    match found {
        // Several libraries have methods of one name: any that fits will do.
        Some(None) => Some(
            [
                text_method(name, args),
                time_method(name, args),
                list_method(name, &args[0], rest),
                library_method(name, args),
                authorizer_method(name, args),
            ]
            .into_iter()
            .flatten()
            .flatten()
            .next(),
        ),
        found => found,
    }
}

fn text_method(name: &str, args: &[Type]) -> Option<Option<Type>> {
    use Type::{Bool, Dyn, Int, String};
    let found = match name {
        "contains" | "startsWith" | "endsWith" | "matches" => one(args, &[(&[String, String], Bool)]),
        "charAt" => one(args, &[(&[String, Int], String)]),
        "indexOf" | "lastIndexOf" => one(args, &[(&[String, String], Int), (&[String, String, Int], Int)]),
        "lowerAscii" | "upperAscii" | "trim" => one(args, &[(&[String], String)]),
        "reverse" => one(args, &[(&[String], String)]),
        "replace" => one(args, &[(&[String, String, String], String), (&[String, String, String, Int], String)]),
        "split" => one(args, &[(&[String, String], Type::list(String)), (&[String, String, Int], Type::list(String))]),
        "substring" => one(args, &[(&[String, Int], String), (&[String, Int, Int], String)]),
        "format" => one(args, &[(&[String, Type::list(Dyn)], String)]),
        "join" => one(args, &[(&[Type::list(String)], String), (&[Type::list(String), String], String)]),
        "find" => one(args, &[(&[String, String], String)]),
        "findAll" => {
            one(args, &[(&[String, String], Type::list(String)), (&[String, String, Int], Type::list(String))])
        }
        "size" => {
            let sized = |ty: &Type| matches!(ty, String | Type::Bytes | Type::List(_) | Type::Map(_) | Dyn);
            (args.len() == 1 && sized(&args[0])).then_some(Int)
        }
        _ => return None,
    };
    Some(found)
}

fn time_method(name: &str, args: &[Type]) -> Option<Option<Type>> {
    use Type::{Duration, Int, String, Timestamp};
    let found = match name {
        "getFullYear" | "getMonth" | "getDayOfYear" | "getDayOfMonth" | "getDate" | "getDayOfWeek" => {
            one(args, &[(&[Timestamp], Int), (&[Timestamp, String], Int)])
        }
        "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds" => {
            one(args, &[(&[Timestamp], Int), (&[Timestamp, String], Int), (&[Duration], Int)])
        }
        _ => return None,
    };
    Some(found)
}

fn list_method(name: &str, list: &Type, rest: &[Type]) -> Option<Option<Type>> {
    use Type::{Bool, Int};
    let is_list = any_list(list);
    let plain = is_list && rest.is_empty();
    let found = match name {
        "isSorted" => plain.then_some(Bool),
        "sum" | "min" | "max" => plain.then(|| item(list)),
        "indexOf" | "lastIndexOf" => (is_list && rest.len() == 1 && item(list).accepts(&rest[0])).then_some(Int),
        "slice" => (is_list && fit(rest, &[Int, Int])).then(|| list.clone()),
        "flatten" => match item(list) {
            Type::List(inner) if plain => Some(Type::list(inner.item.clone())),
            _ => (is_list && (rest.is_empty() || fit(rest, &[Int]))).then(|| Type::list(Type::Dyn)),
        },
        "sort" | "distinct" | "reverse" => plain.then(|| list.clone()),
        "first" | "last" => plain.then(|| Type::optional(item(list))),
        "hasValue" => (rest.is_empty() && is_optional(list)).then_some(Bool),
        "value" => (rest.is_empty() && is_optional(list)).then(|| inner(list)),
        "or" => (rest.len() == 1 && is_optional(list) && is_optional(&rest[0])).then(|| Type::join(list, &rest[0])),
        "orValue" => {
            let fits = rest.len() == 1 && is_optional(list) && inner(list).accepts(&rest[0]);
            fits.then(|| Type::join(&inner(list), &rest[0]))
        }
        _ => return None,
    };
    Some(found)
}

fn is_optional(ty: &Type) -> bool {
    matches!(ty, Type::Optional(_) | Type::Dyn)
}

fn inner(ty: &Type) -> Type {
    match ty {
        Type::Optional(of) => of.as_ref().clone(),
        _ => Type::Dyn,
    }
}

fn library_method(name: &str, args: &[Type]) -> Option<Option<Type>> {
    use Type::{Bool, Double, Int, String};
    let (quantity, url, ip, cidr, semver) = (lib(QUANTITY), lib(URL), lib(IP), lib(CIDR), lib(SEMVER));
    let found = match name {
        "isGreaterThan" | "isLessThan" => {
            one(args, &[(&[quantity.clone(), quantity], Bool), (&[semver.clone(), semver], Bool)])
        }
        "compareTo" => one(args, &[(&[quantity.clone(), quantity], Int), (&[semver.clone(), semver], Int)]),
        "sign" | "asInteger" => one(args, &[(&[quantity], Int)]),
        "asApproximateFloat" => one(args, &[(&[quantity], Double)]),
        "isInteger" => one(args, &[(&[quantity], Bool)]),
        "add" | "sub" => one(
            args,
            &[(&[quantity.clone(), quantity.clone()], quantity.clone()), (&[quantity.clone(), Int], quantity)],
        ),
        "getScheme" | "getHost" | "getHostname" | "getPort" | "getEscapedPath" => one(args, &[(&[url], String)]),
        "getQuery" => one(args, &[(&[url], Type::map(String, Type::list(String)))]),
        "family" => one(args, &[(&[ip], Int)]),
        "isUnspecified" | "isLoopback" | "isLinkLocalMulticast" | "isLinkLocalUnicast" | "isGlobalUnicast" => {
            one(args, &[(&[ip], Bool)])
        }
        "containsIP" => one(args, &[(&[cidr.clone(), String], Bool), (&[cidr, ip], Bool)]),
        "containsCIDR" => one(args, &[(&[cidr.clone(), String], Bool), (&[cidr.clone(), cidr], Bool)]),
        "ip" => one(args, &[(&[cidr], ip)]),
        "masked" => one(args, &[(std::slice::from_ref(&cidr), cidr.clone())]),
        "prefixLength" => one(args, &[(&[cidr], Int)]),
        "major" | "minor" | "patch" => one(args, &[(&[semver], Int)]),
        "validate" => one(args, &[(&[lib(FORMAT), String], Type::optional(Type::list(String)))]),
        _ => return None,
    };
    Some(found)
}

fn authorizer_method(name: &str, args: &[Type]) -> Option<Option<Type>> {
    use Type::{Bool, String};
    let (authorizer, path, group, resource, decision) =
        (lib(AUTHORIZER), lib(PATH_CHECK), lib(GROUP_CHECK), lib(RESOURCE_CHECK), lib(DECISION));
    let found = match name {
        "path" => one(args, &[(&[authorizer, String], path)]),
        "group" => one(args, &[(&[authorizer, String], group)]),
        "serviceAccount" => one(args, &[(&[authorizer.clone(), String, String], authorizer)]),
        "resource" => one(args, &[(&[group, String], resource)]),
        "subresource" | "namespace" | "name" | "fieldSelector" | "labelSelector" => {
            one(args, &[(&[resource.clone(), String], resource)])
        }
        "check" => one(args, &[(&[path, String], decision.clone()), (&[resource, String], decision)]),
        "allowed" | "errored" => one(args, &[(&[decision], Bool)]),
        "reason" | "error" => one(args, &[(&[decision], String)]),
        _ => return None,
    };
    Some(found)
}
