//! The order in which a write is looked at: built-in plugins, mutating policies and webhooks, allocation, and the
//! judges after validation.

use meta::ApiResult;
use serde_json::Value;

use super::AdmissionRequest;
use super::policies::MutatingPass;
use super::webhooks::{Pass, Webhooks};

/// Plugins that take something for the object, which happens once and after everybody had their say.
const LATE: [&str; 2] = ["ServiceAllocation", "ResourceQuota"];

fn is_late(name: &str) -> bool {
    LATE.contains(&name)
}

/// Lets everybody change the object. What webhooks changed is shown to the built-in plugins once more, and to the
/// webhooks that asked for it.
pub async fn mutate(request: &AdmissionRequest<'_>, object: &mut Value) -> ApiResult<()> {
    let webhooks = &request.engine.webhooks;
    Box::pin(builtin(request, object)).await?;
    let policies = &request.engine.mutating_policies;
    policies.mutate(request, object, MutatingPass::First).await?;
    let mut pass = Pass::default();
    if webhooks.mutate(request, Some(object), &mut pass).await? {
        Box::pin(builtin(request, object)).await?;
        policies.mutate(request, object, MutatingPass::Again).await?;
        webhooks.mutate(request, Some(object), &mut pass).await?;
    }
    for plugin in request.engine.config.admission.iter().filter(|plugin| is_late(plugin.name())) {
        plugin.mutate(request, object).await?;
    }
    Ok(())
}

async fn builtin(request: &AdmissionRequest<'_>, object: &mut Value) -> ApiResult<()> {
    for plugin in request.engine.config.admission.iter().filter(|plugin| !is_late(plugin.name())) {
        plugin.mutate(request, object).await?;
    }
    Ok(())
}

/// The same for what is never stored, or stored by code of its own: a binding, an eviction, a review. Only what the
/// cluster's users configured looks at it.
pub async fn outside(request: &AdmissionRequest<'_>, object: &mut Value) -> ApiResult<()> {
    request.engine.webhooks.mutate(request, Some(object), &mut Pass::default()).await?;
    request.engine.validating_policies.validate(request, Some(object)).await?;
    request.engine.webhooks.validate(request, Some(object)).await
}

/// Tells mutating webhooks about a deletion, which nobody can change.
pub async fn before_deletion(request: &AdmissionRequest<'_>) -> ApiResult<()> {
    request.engine.webhooks.mutate(request, None, &mut Pass::default()).await.map(drop)
}

/// Lets everybody refuse the write. There is no object on a deletion.
pub async fn validate(request: &AdmissionRequest<'_>, object: Option<&Value>) -> ApiResult<()> {
    let webhooks: &Webhooks = &request.engine.webhooks;
    let plugins = &request.engine.config.admission;
    let seen = object.or(request.old).unwrap_or(&Value::Null);
    for plugin in plugins.iter().filter(|plugin| !is_late(plugin.name())) {
        plugin.validate(request, seen).await?;
    }
    request.engine.validating_policies.validate(request, object).await?;
    webhooks.validate(request, object).await?;
    for plugin in plugins.iter().filter(|plugin| is_late(plugin.name())) {
        plugin.validate(request, seen).await?;
    }
    Ok(())
}
