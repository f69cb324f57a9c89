//! What a binding adds to a policy: a narrower choice of requests, and parameters.

use meta::labels::Selector;
use meta::{ApiResult, GroupResource};
use serde_json::Value;

use super::super::AdmissionRequest;
use super::super::webhooks::namespace_of;
use super::Constraints;
use crate::convert;

/// One binding of a policy.
pub struct Binding {
    pub name: String,
    pub constraints: Option<Constraints>,
    param_ref: Value,
    pub actions: Vec<String>,
}

/// The kind of a policy's parameters.
pub struct ParamKind {
    api_version: String,
    kind: String,
}

impl ParamKind {
    pub fn of(spec: &Value) -> Option<Self> {
        let text = |key: &str| spec["paramKind"][key].as_str().unwrap_or_default().to_owned();
        spec["paramKind"].is_object().then(|| Self { api_version: text("apiVersion"), kind: text("kind") })
    }
}

impl Binding {
    pub fn new(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let actions = spec["validationActions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Self {
            name: binding["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            constraints: spec["matchResources"].is_object().then(|| Constraints::new(&spec["matchResources"])),
            param_ref: spec["paramRef"].clone(),
            actions: actions.map(str::to_owned).collect(),
        }
    }

    pub fn matches(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> ApiResult<bool> {
        match &self.constraints {
            None => Ok(true),
            Some(constraints) => Ok(constraints.matches(request, object)?.is_some()),
        }
    }

    /// The parameter objects that the policy runs with, one run for each; `Null` where it takes none.
    ///
    /// # Errors
    /// What is wrong with the reference, in upstream's words.
    pub async fn params(&self, kind: Option<&ParamKind>, request: &AdmissionRequest<'_>) -> Result<Vec<Value>, String> {
        let Some(kind) = kind.filter(|_| self.param_ref.is_object()) else { return Ok(vec![Value::Null]) };
        let registry = request.engine.registry();
        let (group, version) = kind.api_version.split_once('/').unwrap_or(("", &kind.api_version));
        let served = registry.find_kind(group, version, &kind.kind);
        let unknown = || format!("paramKind kind `{}, Kind={}` not known", kind.api_version, kind.kind);
        let served = served.ok_or_else(unknown)?;
        let text = |key: &str| self.param_ref[key].as_str().unwrap_or_default();
        let namespace = match (served.is_namespaced(), text("namespace"), namespace_of(request)) {
            (false, "", _) => "",
            (false, _, _) => {
                return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
            }
            (true, "", "") => {
                let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
                return Err(why.to_owned());
            }
            (true, "", own) => own,
            (true, named, _) => named,
        };
        let stored: &GroupResource = &served.stored_as;
        let mut found: Vec<Value> = if text("name").is_empty() {
            let selector = Selector::from_label_selector(&self.param_ref["selector"]);
            let selector = selector.ok_or("one of name or selector must be provided")?;
            let snapshot = request.engine.cache.resource(stored).snapshot(request.engine.cache.reached());
            let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
            let values = snapshot.objects.iter().filter(|(key, _)| key.starts_with(&prefix));
            let values = values.filter_map(|(_, object)| object.value().ok());
            values.filter(|value| selector.matches(access::admission::matching::labels(value))).collect()
        } else {
            let key = served.local_key(namespace, text("name"));
            let object = request.engine.cache.resource(stored).get(&key);
            object.and_then(|object| object.value().ok()).into_iter().collect()
        };
        if found.is_empty() && text("parameterNotFoundAction") == "Deny" {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
        }
        convert::all_from_stored(&request.engine.cache, served, &mut found).await.map_err(|status| status.message)?;
        Ok(found)
    }
}
