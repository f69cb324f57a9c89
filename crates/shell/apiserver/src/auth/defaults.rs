//! The default roles and bindings: made at the first start, repaired at every later one.

use access::defaults;
use futures::StreamExt;
use meta::ApiResult;
use serde_json::Value;

use crate::engine::Engine;

/// How often a repair is tried against concurrent writers.
const ATTEMPTS_MAX: u32 = 5;
/// Objects looked at at the same time.
const REPAIRS_MAX: usize = 64;

/// Every default object.
pub fn objects() -> Vec<Value> {
    let (roles, bindings) = defaults::all();
    let roles_as_objects = roles.iter().map(|role| role.to_object(&roles));
    roles_as_objects.chain(bindings.iter().map(defaults::DefaultBinding::to_object)).collect()
}

/// Adds to existing default objects what they miss (rules, subjects, labels), and keeps aggregated roles complete.
pub async fn repair(engine: &Engine) -> ApiResult<()> {
    let repairs = objects().into_iter().map(|wanted| async move {
        let plural = match wanted["kind"].as_str().unwrap_or_default() {
            "Role" => "roles",
            "ClusterRole" => "clusterroles",
            "RoleBinding" => "rolebindings",
            _ => "clusterrolebindings",
        };
        repair_one(engine, plural, &wanted).await
    });
    let mut running = futures::stream::iter(repairs).buffer_unordered(REPAIRS_MAX);
    while let Some(repaired) = running.next().await {
        repaired?;
    }
    Ok(())
}

async fn repair_one(engine: &Engine, plural: &str, wanted: &Value) -> ApiResult<()> {
    let registry = engine.registry();
    let Some(served) = registry.find("rbac.authorization.k8s.io", "v1", plural) else { return Ok(()) };
    let metadata = &wanted["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let name = metadata["name"].as_str().unwrap_or_default();
    for _ in 0..ATTEMPTS_MAX {
        let Some(existing) = engine.read(served, namespace, name).await? else { return Ok(()) };
        let Some(repaired) = defaults::reconcile(&existing.value, wanted) else { return Ok(()) };
        if engine.replace(served, (namespace, name), &existing, &repaired).await?.is_some() {
            tracing::info!(plural, name, "added missing rules or subjects to a default object");
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_default_is_there_twice() {
        let mut seen = BTreeMap::new();
        for object in objects() {
            let key = format!("{} {} {}", object["kind"], object["metadata"]["namespace"], object["metadata"]["name"]);
            assert!(seen.insert(key.clone(), ()).is_none(), "{key}");
        }
    }
}
