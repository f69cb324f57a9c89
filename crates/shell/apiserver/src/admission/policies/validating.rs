//! ValidatingAdmissionPolicies: expressions that must hold for a write.

use access::admission::matching;
use cel::{Program, Type, Value as Cel};
use kinds::expressions::{compile, env};
use meta::{ApiResult, Cause, Reason, Status};
use serde_json::Value;

use super::super::AdmissionRequest;
use super::super::expressions::{Conditions, Facts, Met};
use super::super::webhooks::in_version;
use super::bound::{Binding, ParamKind};
use super::{Compiled, Constraints, Variables};
use crate::warnings;

/// Cost of all expressions of one policy for one request, in steps.
const POLICY_COST_MAX: u64 = 10_000_000;
/// Bytes of a computed message.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

struct Policy {
    name: String,
    ignores_failures: bool,
    param_kind: Option<ParamKind>,
    constraints: Constraints,
    conditions: Conditions,
    variables: Variables,
    validations: Vec<Validation>,
    bindings: Vec<Binding>,
}

struct Validation {
    expression: String,
    program: Result<Program, String>,
    message: String,
    message_program: Option<Program>,
    reason: String,
}

impl Policy {
    fn new(policy: &Value, bindings: Vec<Value>) -> Self {
        let spec = &policy["spec"];
        let has_params = spec["paramKind"].is_object();
        let (variables, env) = Variables::new(spec, env(has_params));
        let validations = spec["validations"].as_array().into_iter().flatten().map(|validation| {
            let text = |key: &str| validation[key].as_str().unwrap_or_default();
            let message = text("messageExpression").trim();
            Validation {
                expression: text("expression").to_owned(),
                program: compile(text("expression"), &env, &[Type::Bool]),
                message: text("message").trim().to_owned(),
                message_program: (!message.is_empty()).then(|| compile(message, &env, &[Type::String]).ok()).flatten(),
                reason: text("reason").to_owned(),
            }
        });
        Self {
            name: policy["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            ignores_failures: spec["failurePolicy"] == "Ignore",
            param_kind: ParamKind::of(spec),
            constraints: Constraints::new(&spec["matchConstraints"]),
            conditions: Conditions::new(&spec["matchConditions"], has_params),
            validations: validations.collect(),
            variables,
            bindings: bindings.iter().map(Binding::new).collect(),
        }
    }
}

/// Something that a policy found wrong.
struct Finding {
    message: String,
    reason: String,
}

impl Finding {
    fn failed(message: String) -> Self {
        Self { message, reason: String::new() }
    }
}

/// The policies of a cluster that are bound to something.
#[derive(Default)]
pub struct ValidatingPolicies(Compiled<Policy>);

impl ValidatingPolicies {
    pub async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> ApiResult<()> {
        let kinds = ("validatingadmissionpolicies", "validatingadmissionpolicybindings");
        let Some(list) = self.0.get(request.engine, kinds, Policy::new) else { return Ok(()) };
        if matching::is_exempt(&request.served.kind.group, &request.served.kind.plural) {
            return Ok(());
        }
        // Boxed, so that writes which no policy is about stay small.
        Box::pin(self.validate_by(&list.1, request, object)).await
    }

    async fn validate_by(
        &self,
        policies: &[Policy],
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
    ) -> ApiResult<()> {
        let mut denied: Option<Box<Status>> = None;
        for policy in policies {
            let Some(version) = policy.constraints.matches(request, object)? else { continue };
            for binding in &policy.bindings {
                if !binding.matches(request, object)? {
                    continue;
                }
                let found = match binding.params(policy.param_kind.as_ref(), request).await {
                    Ok(params) => self.run(policy, version.as_deref(), request, object, &params).await?,
                    Err(_) if policy.ignores_failures => Vec::new(),
                    Err(why) => {
                        let finding = Finding::failed(format!("failed to configure binding: {why}"));
                        denied = denied.or_else(|| Some(refusal(request, object, policy, binding, &finding)));
                        continue;
                    }
                };
                for finding in found {
                    for action in &binding.actions {
                        match action.as_str() {
                            "Deny" => {
                                denied = denied.or_else(|| Some(refusal(request, object, policy, binding, &finding)))
                            }
                            "Warn" => warnings::add(&format!(
                                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                                policy.name, binding.name, finding.message
                            )),
                            _ => {}
                        }
                    }
                }
            }
        }
        denied.map_or(Ok(()), Err)
    }

    async fn run(
        &self,
        policy: &Policy,
        version: Option<&crate::registry::Served>,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
        params: &[Value],
    ) -> ApiResult<Vec<Finding>> {
        let object = match object {
            Some(object) => Some(in_version(request, version, object).await?),
            None => None,
        };
        let old = match request.old {
            Some(old) => Some(in_version(request, version, old).await?),
            None => None,
        };
        let facts = Facts::new(request, version, object.as_deref(), old.as_deref());
        Ok(params.iter().flat_map(|params| judge(policy, &facts, params)).collect())
    }
}

/// What a policy finds wrong with one request and one parameter object.
fn judge(policy: &Policy, facts: &Facts<'_>, params: &Value) -> Vec<Finding> {
    let failed = |message: String| match policy.ignores_failures {
        true => Vec::new(),
        false => vec![Finding::failed(message)],
    };
    let mut vars = facts.variables();
    if policy.param_kind.is_some() {
        vars.set("params", Cel::json(params));
    }
    match policy.conditions.met(&vars) {
        Met::Yes => {}
        Met::No => return Vec::new(),
        Met::Unknown(why) => return failed(why),
    }
    policy.variables.define(&mut vars);
    let mut found = Vec::new();
    for validation in &policy.validations {
        let answer = match &validation.program {
            Ok(program) => program.eval(&vars).map_err(|error| error.message),
            Err(why) => Err(why.clone()),
        };
        if vars.cost() > POLICY_COST_MAX {
            found.extend(failed(
                "validation failed due to running out of cost budget, no further validation rules will be run"
                    .to_owned(),
            ));
            break;
        }
        match answer {
            Ok(answer) if answer.as_bool() == Some(true) => {}
            Ok(_) => found.push(Finding { message: message(validation, &vars), reason: validation.reason.clone() }),
            Err(why) => {
                found.extend(failed(format!("expression '{}' resulted in error: {why}", validation.expression)))
            }
        }
    }
    found
}

fn message<'a>(validation: &'a Validation, vars: &cel::Activation<'a>) -> String {
    let made = validation.message_program.as_ref().and_then(|program| program.eval(vars).ok());
    let made = made.as_ref().and_then(|value| value.as_str()).map(str::trim);
    let usable = |text: &&str| !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_BYTES_MAX;
    match (made.filter(usable), validation.message.as_str()) {
        (Some(made), _) => made.to_owned(),
        (None, "") => format!("failed expression: {}", validation.expression.trim()),
        (None, own) => own.to_owned(),
    }
}

fn refusal(
    request: &AdmissionRequest<'_>,
    object: Option<&Value>,
    policy: &Policy,
    binding: &Binding,
    finding: &Finding,
) -> Box<Status> {
    let message = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
        policy.name, binding.name, finding.message
    );
    let name = name_of(request, object);
    let mut status = Status::forbidden(&request.served.resource(), &name, &message);
    let reason = if finding.reason.is_empty() { "Invalid" } else { &finding.reason };
    reason.clone_into(&mut status.reason);
    status.code = match reason {
        "Unauthorized" => Reason::Unauthorized.code(),
        "Forbidden" => Reason::Forbidden.code(),
        "RequestEntityTooLarge" => Reason::RequestEntityTooLarge.code(),
        _ => Reason::Invalid.code(),
    };
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { message, ..Cause::default() });
    }
    status
}

/// The name in refusals, also of an object that has none yet.
pub fn name_of(request: &AdmissionRequest<'_>, object: Option<&Value>) -> String {
    let text = |key: &str| object.and_then(|object| object["metadata"][key].as_str()).unwrap_or_default();
    let found = [request.name, text("name"), text("generateName")].into_iter().find(|name| !name.is_empty());
    found.unwrap_or("Unknown").to_owned()
}
