//! Admission policies: expressions that change or refuse writes, where bindings say so, with parameters if they name any.

mod bound;
mod mutating;
mod types;
mod validating;

use std::sync::{Arc, OnceLock};

use access::admission::matching::{Labels, Rule};
use arc_swap::ArcSwapOption;
use cel::{Activation, Env, Program, Type};
use kinds::expressions::compile;
use meta::{ApiResult, GroupResource};
use serde_json::Value;

use super::AdmissionRequest;
use super::webhooks::{namespace_labels, object_target, version};
use crate::cache::ResourceCache;
use crate::engine::Engine;
use crate::registry::Served;

pub use mutating::{MutatingPass, MutatingPolicies};
pub use types::start;
pub use validating::ValidatingPolicies;

const GROUP: &str = "admissionregistration.k8s.io";

/// Which requests a policy or a binding is about: `matchConstraints`, `matchResources`.
struct Constraints {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
    namespaces: Labels,
    objects: Labels,
}

/// The version of its resource in which a policy sees an object; `None` is the request's own.
type Version = Option<Arc<Served>>;

impl Constraints {
    fn new(value: &Value) -> Self {
        Self {
            rules: Rule::all(&value["resourceRules"]),
            excluded: Rule::all(&value["excludeResourceRules"]),
            equivalent: value["matchPolicy"] != "Exact",
            namespaces: Labels::new(&value["namespaceSelector"]),
            objects: Labels::new(&value["objectSelector"]),
        }
    }

    /// The outer `None`: the request is none of its business. Without rules every resource is meant.
    fn matches(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> ApiResult<Option<Version>> {
        let target = object_target(request);
        if version(&self.excluded, self.equivalent, request, &target).is_some() {
            return Ok(None);
        }
        let found =
            if self.rules.is_empty() { Some(None) } else { version(&self.rules, self.equivalent, request, &target) };
        let Some(found) = found else { return Ok(None) };
        let fits = self.namespaces.is_everything()
            || namespace_labels(request, object)?.is_none_or(|labels| self.namespaces.matches(&labels));
        Ok((fits && self.objects.matches_object(object, request.old)).then_some(found))
    }
}

/// The `variables` of a policy, in their order.
struct Variables(Vec<(String, Result<Program, String>)>);

impl Variables {
    /// The variables, and what the expressions after them may name.
    fn new(spec: &Value, env: Env) -> (Self, Env) {
        let mut all = Vec::new();
        let mut known: Vec<(String, Type)> = Vec::new();
        let with = |known: &[(String, Type)]| {
            let fields = Type::object("kubernetes.variables", known.iter().cloned());
            env.clone().variable("variables", fields)
        };
        for variable in spec["variables"].as_array().into_iter().flatten() {
            let text = |key: &str| variable[key].as_str().unwrap_or_default();
            let program = compile(text("expression"), &with(&known), &[]);
            let ty = program.as_ref().map(|program| program.result().clone()).unwrap_or_default();
            known.push((text("name").to_owned(), ty));
            all.push((text("name").to_owned(), program));
        }
        let env = with(&known);
        (Self(all), env)
    }

    /// Computes them. One without a value is an error where it is read.
    fn define<'a>(&'a self, vars: &mut Activation<'a>) {
        for (name, program) in &self.0 {
            let value = match program {
                Ok(program) => program.eval(vars),
                Err(why) => Err(cel::EvalError { message: why.clone(), too_costly: false }),
            };
            let value = value.map_err(|error| cel::EvalError {
                message: format!("composited variable {name:?} fails to evaluate: {error}"),
                ..error
            });
            vars.define(name, value);
        }
    }
}

/// Policies with their bindings, compiled again after one of either changed.
struct Compiled<P> {
    caches: OnceLock<(Arc<ResourceCache>, Arc<ResourceCache>)>,
    list: ArcSwapOption<((u64, u64), Vec<P>)>,
}

impl<P> Default for Compiled<P> {
    fn default() -> Self {
        Self { caches: OnceLock::new(), list: ArcSwapOption::empty() }
    }
}

impl<P> Compiled<P> {
    /// What is in force now; `None` where nothing is. `make` takes a policy and its bindings.
    fn get(
        &self,
        engine: &Engine,
        (policies, bindings): (&'static str, &'static str),
        make: impl Fn(&Value, Vec<Value>) -> P,
    ) -> Option<Arc<((u64, u64), Vec<P>)>> {
        let cache = |plural| engine.cache.resource(&GroupResource::new(GROUP, plural));
        let caches = self.caches.get_or_init(|| (cache(policies), cache(bindings)));
        let last = (caches.0.last(), caches.1.last());
        let mut list = self.list.load_full();
        if list.as_ref().is_none_or(|list| list.0 != last) {
            let new = Arc::new((last, all(&caches.0, &caches.1, make)));
            self.list.store(Some(new.clone()));
            list = Some(new);
        }
        list.filter(|list| !list.1.is_empty())
    }
}

fn all<P>(policies: &ResourceCache, bindings: &ResourceCache, make: impl Fn(&Value, Vec<Value>) -> P) -> Vec<P> {
    let values = |cache: &ResourceCache| -> Vec<Value> {
        cache.snapshot(0).objects.values().filter_map(|object| object.value().ok()).collect()
    };
    let bindings = values(bindings);
    let mut made = Vec::new();
    for policy in values(policies) {
        let own = bindings.iter().filter(|binding| binding["spec"]["policyName"] == policy["metadata"]["name"]);
        let own: Vec<Value> = own.cloned().collect();
        if !own.is_empty() {
            made.push(make(&policy, own));
        }
    }
    made
}
