//! Checks the expressions of validating policies against the types of what they match, and says in their status what
//! does not fit. It changes nothing about what a policy does.

use std::sync::Arc;

use cel::{Env, Type};
use kinds::expressions::{compile, env};
use schema::custom::resource_cel_type;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{GROUP, Variables};
use crate::bootstrap::change;
use crate::changes::Changes;
use crate::engine::Engine;
use crate::registry::{Registry, Served};
use crate::verbs::{metadata, update};

const PLURAL: &str = "validatingadmissionpolicies";
/// Kinds that one rule of a policy is checked against, as upstream.
const KINDS_MAX: usize = 10;

/// Checks what is there, then follows policies and definitions until cancelled.
pub fn start(engine: &Arc<Engine>, stop: CancellationToken) {
    let engine = engine.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow(&engine) => {}
        }
    });
}

async fn follow(engine: &Engine) {
    let definitions = ("apiextensions.k8s.io", "customresourcedefinitions");
    let mut changes = Changes::new(&engine.cache, [(GROUP, PLURAL), definitions]);
    loop {
        let mut done = true;
        for object in engine.snapshot(GROUP, PLURAL).objects.values() {
            if let Ok(policy) = object.value() {
                done &= settle(engine, &policy).await;
            }
        }
        changes.next(done).await;
    }
}

/// Writes what was found into a policy's status; false where that has to be tried again.
async fn settle(engine: &Engine, policy: &Value) -> bool {
    let found = check(&engine.registry(), policy);
    let generation = &policy["metadata"]["generation"];
    let is_told =
        |of: &Value| of["status"]["typeChecking"] == found && of["status"]["observedGeneration"] == *generation;
    if is_told(policy) {
        return true;
    }
    let name = metadata::text(policy, "name");
    let told = change(engine, (GROUP, "v1", PLURAL), name, update::Part::Status, "kube-apiserver", |old| {
        let mut new = old.clone();
        // A newer policy gets its own result.
        if old["metadata"]["generation"] == *generation {
            new["status"]["typeChecking"] = found.clone();
            new["status"]["observedGeneration"] = generation.clone();
        }
        Ok(new)
    });
    match told.await {
        Ok(()) => true,
        Err(error) if error.is(meta::Reason::NotFound) => true,
        Err(error) => {
            tracing::warn!(%error, name, "writing the result of a policy's type check failed");
            false
        }
    }
}

/// The result as a status holds it.
fn check(registry: &Registry, policy: &Value) -> Value {
    let spec = &policy["spec"];
    let envs: Vec<(String, Env)> = kinds(registry, spec)
        .into_iter()
        .filter_map(|served| Some((title(served), env_of(registry, spec, served)?)))
        .collect();
    let mut warnings = Vec::new();
    for (at, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = validation[field].as_str().unwrap_or_default();
            let complaints = envs.iter().filter(|_| !expression.is_empty()).filter_map(|(title, env)| {
                let why = compile(expression, env, &[]).err()?;
                Some(format!("{title}: {why}\n"))
            });
            let complaints: Vec<String> = complaints.collect();
            if !complaints.is_empty() {
                let place = format!("spec.validations[{at}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": complaints.join("\n")}));
            }
        }
    }
    if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) }
}

fn title(served: &Served) -> String {
    format!("{}, Kind={}", served.api_version(), served.kind.kind)
}

/// What expressions may name where the object is of a kind.
fn env_of(registry: &Registry, spec: &Value, served: &Served) -> Option<Env> {
    let object = type_of(served)?;
    let has_params = spec["paramKind"].is_object();
    let mut env = env(has_params).variable("object", object.clone()).variable("oldObject", object);
    let text = |key: &str| spec["paramKind"][key].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    if let Some(params) = registry.find_kind(group, version, text("kind")).and_then(|served| type_of(served)) {
        env = env.variable("params", params);
    }
    Some(Variables::new(spec, env).1)
}

fn type_of(served: &Served) -> Option<Type> {
    let gvk = served.kind.gvk();
    let schema = match &served.custom {
        Some(custom) => custom.schema.clone()?,
        None => schema::builtin().type_of(&gvk)?.clone(),
    };
    Some(resource_cel_type(&schema, &gvk.kind))
}

/// The kinds that the rules of a policy name one by one; a rule with a wildcard says nothing about types.
fn kinds<'a>(registry: &'a Registry, spec: &Value) -> Vec<&'a Served> {
    let mut found: Vec<&Served> = Vec::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let words =
            |key: &str| -> Vec<&str> { rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
        let [groups, versions, resources] = ["apiGroups", "apiVersions", "resources"].map(words);
        if [&groups, &versions].iter().any(|words| words.contains(&"*")) {
            continue;
        }
        let resources = resources.into_iter().filter(|name| !name.contains(['*', '/']));
        let of_rule = resources.flat_map(|resource| {
            let versions = groups.iter().flat_map(|group| versions.iter().map(move |version| (*group, *version)));
            versions.filter_map(move |(group, version)| registry.find(group, version, resource)).collect::<Vec<_>>()
        });
        for served in of_rule.take(KINDS_MAX) {
            if !found.iter().any(|known| known.kind.gvk() == served.kind.gvk()) {
                found.push(served);
            }
        }
    }
    found.sort_by_key(|served| title(served));
    found
}
