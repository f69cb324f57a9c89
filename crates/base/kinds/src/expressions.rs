//! What expressions of admission may name: webhooks' conditions and policies share these variables.

use cel::{Env, Program, Type};
use meta::{FieldError, FieldErrors, FieldPath};

fn object(name: &str, fields: &[(&str, Type)]) -> Type {
    Type::object(name, fields.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())))
}

/// The `request` of an AdmissionReview without its objects.
fn request() -> Type {
    let text = Type::String;
    let gvk = object(
        "kubernetes.GroupVersionKind",
        &[("group", text.clone()), ("version", text.clone()), ("kind", text.clone())],
    );
    let gvr = object(
        "kubernetes.GroupVersionResource",
        &[("group", text.clone()), ("version", text.clone()), ("resource", text.clone())],
    );
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", text.clone()),
            ("uid", text.clone()),
            ("groups", Type::list(text.clone())),
            ("extra", Type::map(text.clone(), Type::list(text.clone()))),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", gvk.clone()),
            ("resource", gvr.clone()),
            ("subResource", text.clone()),
            ("requestKind", gvk),
            ("requestResource", gvr),
            ("requestSubResource", text.clone()),
            ("name", text.clone()),
            ("namespace", text.clone()),
            ("operation", text),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

/// The metadata, spec and status of a namespace that policies may read.
fn namespace() -> Type {
    let text = Type::String;
    let labels = Type::map(text.clone(), text.clone());
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text.clone()),
            ("generateName", text.clone()),
            ("namespace", text.clone()),
            ("labels", labels.clone()),
            ("annotations", labels),
            ("UID", text.clone()),
            ("uid", text.clone()),
            ("resourceVersion", text.clone()),
            ("generation", Type::Int),
            ("creationTimestamp", Type::Timestamp),
            ("deletionTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("finalizers", Type::list(text.clone())),
        ],
    );
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", Type::list(text.clone()))]);
    let status = object("kubernetes.NamespaceStatus", &[("phase", text), ("conditions", Type::list(Type::Dyn))]);
    object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)])
}

/// The type of `request`, to read a request with.
pub fn request_type() -> &'static Type {
    static TYPE: std::sync::LazyLock<Type> = std::sync::LazyLock::new(request);
    &TYPE
}

/// The type of `namespaceObject`.
pub fn namespace_type() -> &'static Type {
    static TYPE: std::sync::LazyLock<Type> = std::sync::LazyLock::new(namespace);
    &TYPE
}

/// The variables of conditions and policies; `params` for policies with parameters.
pub fn env(params: bool) -> Env {
    let env = Env::default()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("request", request_type().clone())
        .variable("namespaceObject", namespace_type().clone())
        .variable("authorizer", Type::Library(cel::AUTHORIZER));
    if params { env.variable("params", Type::Dyn) } else { env }
}

/// Compiles an expression that must answer one of these types.
///
/// # Errors
/// What upstream says about it.
pub fn compile(expression: &str, env: &Env, wanted: &[Type]) -> Result<Program, String> {
    let program = Program::compile(expression, env).map_err(|error| format!("compilation failed: {error}"))?;
    let result = program.result();
    if result.is_dyn() || wanted.is_empty() || wanted.iter().any(|ty| ty.accepts(result)) {
        return Ok(program);
    }
    match wanted {
        [one] => Err(format!("must evaluate to {one} but got {result}")),
        many => {
            let many: Vec<String> = many.iter().map(ToString::to_string).collect();
            Err(format!("must evaluate to one of [{}] but got {result}", many.join(" ")))
        }
    }
}

/// The complaint about an expression that cannot be used.
pub fn check(errors: &mut FieldErrors, expression: &str, env: &Env, wanted: &[Type], path: &FieldPath) {
    if let Err(why) = compile(expression, env, wanted) {
        errors.push(FieldError::invalid(path, expression, why));
    }
}
