//! MutatingAdmissionPolicies: expressions that change an object, by an apply configuration or a JSON patch.

use access::admission::matching;
use bytes::Bytes;
use cel::{Activation, Program, Type, Value as Cel};
use kinds::expressions::{compile, env};
use meta::{ApiResult, Status};
use objects::Manager;
use schema::FieldValidation;
use serde_json::Value;

use super::super::AdmissionRequest;
use super::super::expressions::{Conditions, Facts, Met};
use super::super::webhooks::in_version;
use super::bound::{Binding, ParamKind};
use super::validating::name_of;
use super::{Compiled, Constraints, Variables};
use crate::codec::{self, Expected};
use crate::convert;
use crate::registry::Served;
use crate::verbs::metadata;

struct Policy {
    name: String,
    ignores_failures: bool,
    reinvoked: bool,
    param_kind: Option<ParamKind>,
    constraints: Constraints,
    conditions: Conditions,
    variables: Variables,
    mutations: Vec<Mutation>,
    bindings: Vec<Binding>,
}

struct Mutation {
    applies: bool,
    program: Result<Program, String>,
}

impl Policy {
    fn new(policy: &Value, bindings: Vec<Value>) -> Self {
        let spec = &policy["spec"];
        let has_params = spec["paramKind"].is_object();
        let (variables, env) = Variables::new(spec, env(has_params));
        let mutations = spec["mutations"].as_array().into_iter().flatten().map(|mutation| {
            let applies = mutation["patchType"] == "ApplyConfiguration";
            let key = if applies { "applyConfiguration" } else { "jsonPatch" };
            let expression = mutation[key]["expression"].as_str().unwrap_or_default();
            let wanted = if applies { Type::map(Type::String, Type::Dyn) } else { Type::list(Type::Dyn) };
            Mutation { applies, program: compile(expression, &env, &[wanted]) }
        });
        Self {
            name: policy["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            ignores_failures: spec["failurePolicy"] == "Ignore",
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            param_kind: ParamKind::of(spec),
            constraints: Constraints::new(&spec["matchConstraints"]),
            conditions: Conditions::new(&spec["matchConditions"], has_params),
            mutations: mutations.collect(),
            variables,
            bindings: bindings.iter().map(Binding::new).collect(),
        }
    }
}

/// Whether the policies run for the first time on a request, or once more after others changed the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MutatingPass {
    First,
    Again,
}

/// The policies of a cluster that are bound to something.
#[derive(Default)]
pub struct MutatingPolicies(Compiled<Policy>);

/// What an expression made of an object.
enum Change {
    Apply(Value),
    Patch(Bytes),
}

impl MutatingPolicies {
    pub async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut Value,
        pass: MutatingPass,
    ) -> ApiResult<()> {
        let kinds = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        let Some(list) = self.0.get(request.engine, kinds, Policy::new) else { return Ok(()) };
        if matching::is_exempt(&request.served.kind.group, &request.served.kind.plural) {
            return Ok(());
        }
        // Boxed, so that writes which no policy is about stay small.
        Box::pin(self.mutate_by(&list.1, request, object, pass)).await
    }

    async fn mutate_by(
        &self,
        policies: &[Policy],
        request: &AdmissionRequest<'_>,
        object: &mut Value,
        pass: MutatingPass,
    ) -> ApiResult<()> {
        for policy in policies.iter().filter(|policy| pass == MutatingPass::First || policy.reinvoked) {
            let Some(version) = policy.constraints.matches(request, Some(object))? else { continue };
            for binding in &policy.bindings {
                if !binding.matches(request, Some(object))? {
                    continue;
                }
                let done = match binding.params(policy.param_kind.as_ref(), request).await {
                    Ok(params) => run(policy, version.as_deref(), request, object, &params).await,
                    Err(why) => Err(format!("failed to configure binding: {why}")),
                };
                if let Err(why) = done.or_else(|why| if policy.ignores_failures { Ok(()) } else { Err(why) }) {
                    let (policy, binding) = (&policy.name, &binding.name);
                    let why = format!("policy '{policy}' with binding '{binding}' denied request: {why}");
                    return Err(Status::forbidden(&request.served.resource(), &name_of(request, Some(object)), &why));
                }
            }
        }
        Ok(())
    }
}

/// Applies all mutations of a policy, for each parameter object.
async fn run(
    policy: &Policy,
    version: Option<&Served>,
    request: &AdmissionRequest<'_>,
    object: &mut Value,
    params: &[Value],
) -> Result<(), String> {
    let message = |status: Box<Status>| status.message;
    let served = version.unwrap_or(request.served);
    let old = match request.old {
        Some(old) => Some(in_version(request, version, old).await.map_err(message)?),
        None => None,
    };
    for params in params {
        for at in 0..policy.mutations.len() {
            let shown = in_version(request, version, object).await.map_err(message)?.into_owned();
            let change = {
                let facts = Facts::new(request, version, Some(&shown), old.as_deref());
                change(policy, at, &facts, params)?
            };
            let Some(change) = change else { break };
            let changed = changed(served, shown, change)?;
            let mut value = match version {
                Some(other) => {
                    convert::between(&request.engine.cache, other, request.served, &changed).await.map_err(message)?
                }
                None => changed,
            };
            request.served.default(&mut value);
            *object = value;
        }
    }
    Ok(())
}

/// What one mutation wants; `None` where the policy's conditions do not hold.
fn change(policy: &Policy, at: usize, facts: &Facts<'_>, params: &Value) -> Result<Option<Change>, String> {
    let mut vars = facts.variables();
    if policy.param_kind.is_some() {
        vars.set("params", Cel::json(params));
    }
    match policy.conditions.met(&vars) {
        Met::Yes => {}
        Met::No => return Ok(None),
        Met::Unknown(why) => return Err(why),
    }
    policy.variables.define(&mut vars);
    let mutation = &policy.mutations[at];
    let value = evaluate(mutation, &vars)?;
    Ok(Some(match mutation.applies {
        true => Change::Apply(value),
        false => Change::Patch(serde_json::to_vec(&value).map_err(|error| error.to_string())?.into()),
    }))
}

fn evaluate<'a>(mutation: &'a Mutation, vars: &Activation<'a>) -> Result<Value, String> {
    let program = mutation.program.as_ref().map_err(Clone::clone)?;
    let value = program.eval(vars).map_err(|error| error.message)?;
    value.to_json().ok_or_else(|| "the expression made something that is no JSON".to_owned())
}

fn changed(served: &Served, mut object: Value, change: Change) -> Result<Value, String> {
    let changed = match change {
        Change::Patch(patch) => {
            objects::json_patch(&mut object, &patch).map_err(|error| format!("error applying patch: {error}"))?;
            object
        }
        Change::Apply(mut config) => {
            let Some(fields) = config.as_object_mut() else { return Err("the configuration is no object".to_owned()) };
            for field in ["apiVersion", "kind"] {
                fields.insert(field.to_owned(), object[field].clone());
            }
            let any = schema::Type::new(schema::Shape::Any);
            let schema = Expected::from(served).schema().unwrap_or(any);
            let owners = metadata::metadata(&object).get("managedFields").cloned();
            let manager = Manager { name: "admission", api_version: &served.api_version(), subresource: "" };
            let merged = objects::apply(&schema, Some(&object), &config, &manager, &metadata::now(), true);
            let mut merged = merged.map_err(|_| "the configuration conflicts with the object".to_owned())?;
            if let Some(fields) = metadata::metadata_mut(&mut merged) {
                match owners {
                    Some(owners) => drop(fields.insert("managedFields".to_owned(), owners)),
                    None => drop(fields.remove("managedFields")),
                }
            }
            merged
        }
    };
    codec::check(served, changed, FieldValidation::Ignore).map(|decoded| decoded.value).map_err(|status| status.message)
}
