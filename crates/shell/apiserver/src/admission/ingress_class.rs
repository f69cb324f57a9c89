//! Gives a new Ingress the cluster's default class.

use async_trait::async_trait;
use meta::ApiResult;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};

const GROUP: &str = "networking.k8s.io";
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
/// Who chose a class in the old way gets no other one.
const LEGACY_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The admission plugin.
pub struct DefaultIngressClass;

#[async_trait]
impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, ingress: &mut Value) -> ApiResult<()> {
        let kind = &request.served.kind;
        let is_new = request.operation == Operation::Create && request.subresource.is_empty();
        if !is_new || kind.group != GROUP || kind.plural != "ingresses" {
            return Ok(());
        }
        if !ingress["spec"]["ingressClassName"].is_null()
            || ingress["metadata"]["annotations"][LEGACY_ANNOTATION].is_string()
        {
            return Ok(());
        }
        let classes = request.engine.snapshot(GROUP, "ingressclasses").objects;
        let marked = classes.values().filter_map(|class| class.value().ok());
        let default = newest(marked.filter(|class| class["metadata"]["annotations"][DEFAULT_ANNOTATION] == "true"));
        if let (Some(name), Some(spec)) = (default, ingress.get_mut("spec").and_then(Value::as_object_mut)) {
            spec.insert("ingressClassName".to_owned(), name.into());
        }
        Ok(())
    }
}

/// Of several default classes the newest counts, and of equally new ones the first by name.
fn newest(classes: impl Iterator<Item = Value>) -> Option<String> {
    let text = |class: &Value, field: &str| class["metadata"][field].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<(String, String)> =
        classes.map(|class| (text(&class, "creationTimestamp"), text(&class, "name"))).collect();
    all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    all.into_iter().next().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_class_counts() {
        let class = |name: &str, day: u8| json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-0{day}T00:00:00Z")}});
        let of = |classes: Vec<Value>| newest(classes.into_iter());
        assert_eq!(of(vec![]), None);
        assert_eq!(of(vec![class("a", 1), class("b", 2)]).as_deref(), Some("b"));
        assert_eq!(of(vec![class("b", 1), class("a", 1)]).as_deref(), Some("a"));
    }
}
