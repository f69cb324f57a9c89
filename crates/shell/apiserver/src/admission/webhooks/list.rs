//! The configurations of one kind, compiled, and compiled again after they changed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use access::admission::matching::{Labels, Rule, Target, labels};
use arc_swap::ArcSwapOption;
use meta::{ApiResult, GroupResource};
use serde_json::Value;

use super::super::AdmissionRequest;
use super::super::expressions::Conditions;
use super::namespace_of;
use crate::backend::Backend;
use crate::cache::ResourceCache;
use crate::engine::Engine;

const GROUP: &str = "admissionregistration.k8s.io";

/// One webhook of a configuration.
pub struct Webhook {
    pub name: String,
    /// Tells webhooks of equal names in several configurations apart.
    pub key: String,
    pub rules: Vec<Rule>,
    pub equivalent: bool,
    pub namespaces: Labels,
    pub objects: Labels,
    pub conditions: Conditions,
    pub ignores_failures: bool,
    pub timeout: Duration,
    pub reinvoke: bool,
    pub has_side_effects: bool,
    /// `v1` or `v1beta1`; empty where it understands neither.
    pub review_version: &'static str,
    pub backend: Result<Backend, String>,
}

impl Webhook {
    fn new(configuration: &str, at: usize, webhook: &Value) -> Self {
        let text = |key: &str| webhook[key].as_str().unwrap_or_default();
        let versions = webhook["admissionReviewVersions"].as_array();
        let known = versions.into_iter().flatten().find_map(|version| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        });
        Self {
            name: text("name").to_owned(),
            key: format!("{configuration}/{}/{at}", text("name")),
            rules: Rule::all(&webhook["rules"]),
            equivalent: text("matchPolicy") != "Exact",
            namespaces: Labels::new(&webhook["namespaceSelector"]),
            objects: Labels::new(&webhook["objectSelector"]),
            conditions: Conditions::new(&webhook["matchConditions"], false),
            ignores_failures: text("failurePolicy") == "Ignore",
            timeout: Duration::from_secs(webhook["timeoutSeconds"].as_u64().unwrap_or(10)),
            reinvoke: text("reinvocationPolicy") == "IfNeeded",
            has_side_effects: !matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            review_version: known.unwrap_or_default(),
            backend: Backend::of_client_config(&webhook["clientConfig"]),
        }
    }
}

struct Compiled {
    /// The last change that it knows of.
    last: u64,
    webhooks: Vec<Webhook>,
}

/// The webhooks of all configurations of one kind, by the configurations' names.
#[derive(Default)]
pub struct List {
    cache: OnceLock<Arc<ResourceCache>>,
    compiled: ArcSwapOption<Compiled>,
}

/// What is in force for one request.
pub struct InForce(Arc<Compiled>);

impl InForce {
    pub fn iter(&self) -> std::slice::Iter<'_, Webhook> {
        self.0.webhooks.iter()
    }
}

impl List {
    /// The webhooks as the cache has them now; `None` where there are none.
    pub fn get(&self, engine: &Engine, plural: &'static str) -> Option<InForce> {
        let cache = self.cache.get_or_init(|| engine.cache.resource(&GroupResource::new(GROUP, plural)));
        let last = cache.last();
        let mut compiled = self.compiled.load_full();
        if compiled.as_ref().is_none_or(|compiled| compiled.last != last) {
            let new = Arc::new(Compiled { last, webhooks: compile(cache) });
            self.compiled.store(Some(new.clone()));
            compiled = Some(new);
        }
        compiled.filter(|compiled| !compiled.webhooks.is_empty()).map(InForce)
    }
}

fn compile(cache: &ResourceCache) -> Vec<Webhook> {
    let snapshot = cache.snapshot(0);
    let mut all = Vec::new();
    for (name, object) in snapshot.objects.iter() {
        let Ok(configuration) = object.value() else { continue };
        let webhooks = configuration["webhooks"].as_array().into_iter().flatten().enumerate();
        all.extend(webhooks.map(|(at, webhook)| Webhook::new(name, at, webhook)));
    }
    all
}

/// The coordinates of a request for rules.
pub fn object_target<'a>(request: &'a AdmissionRequest<'_>) -> Target<'a> {
    let kind = &request.served.kind;
    Target {
        group: &kind.group,
        version: &kind.version,
        resource: &kind.plural,
        subresource: request.subresource,
        operation: request.operation.as_str(),
        namespace: namespace_of(request),
        name: request.name,
    }
}

/// The labels that a namespaceSelector looks at; `None` for what is in no namespace and not one itself.
pub fn namespace_labels(request: &AdmissionRequest<'_>, object: Option<&Value>) -> ApiResult<Option<Value>> {
    let target = object_target(request);
    if target.is_namespace() && request.subresource.is_empty() {
        return Ok(object.or(request.old).map(|namespace| labels(namespace).clone()));
    }
    if target.namespace.is_empty() {
        return Ok(None);
    }
    let namespace = request.engine.cached("", "namespaces", "", target.namespace);
    let namespace = namespace.map(|object| object.value()).transpose()?;
    let resource = GroupResource::new("", "namespaces");
    let namespace = namespace.ok_or_else(|| meta::Status::not_found(&resource, target.namespace))?;
    Ok(Some(labels(&namespace).clone()))
}
