//! ResourceQuotas: the last word about a write, charged to the quotas' status before the object is stored.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use access::quota::{Change, Evaluator, Quota, amounts, check};
use async_trait::async_trait;
use meta::{ApiResult, Status};
use serde_json::Value;
use tokio::sync::Mutex;

use super::{Admission, AdmissionRequest, Operation, in_namespace};
use crate::engine::Stored;
use crate::limits::{QUOTA_RETRIES_MAX, QUOTA_TURNS};
use crate::registry::Served;

/// Checks and charges quotas. Must come after everything else that may refuse: what is charged and then refused is
/// given back only when the controller counts again.
pub struct ResourceQuota {
    /// Writes to one namespace take turns, so that they do not undo each other's charges by conflicts; the
    /// compare-and-swap on the quota holds between servers.
    turns: Vec<Mutex<()>>,
}

impl Default for ResourceQuota {
    fn default() -> Self {
        Self { turns: (0..QUOTA_TURNS).map(|_| Mutex::default()).collect() }
    }
}

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> ApiResult<()> {
        let kind = &request.served.kind;
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if !writes || !request.served.is_namespaced() {
            return Ok(());
        }
        let Some(evaluator) = Evaluator::of(&kind.group, &kind.plural) else { return Ok(()) };
        if !evaluator.handles(request.subresource, object, request.old) {
            return Ok(());
        }
        let names: Vec<String> = in_namespace(request.engine, "", "resourcequotas", request.namespace)
            .map(|object| object.map(|quota| quota["metadata"]["name"].as_str().unwrap_or_default().to_owned()))
            .collect::<ApiResult<_>>()?;
        if names.is_empty() {
            return Ok(());
        }
        let _turn = self.turn(request.namespace).lock().await;
        let now = jiff::Timestamp::now().as_second();
        let change = Change { evaluator: &evaluator, subresource: request.subresource, object, old: request.old, now };
        charge(request, &change, names).await
    }
}

impl ResourceQuota {
    fn turn(&self, namespace: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % QUOTA_TURNS as u64).unwrap_or(0);
        &self.turns[place]
    }
}

/// Checks all quotas, then writes what changed; those that somebody else changed meanwhile are checked again.
async fn charge(request: &AdmissionRequest<'_>, change: &Change<'_>, mut names: Vec<String>) -> ApiResult<()> {
    let registry = request.engine.registry();
    let Some(served) = registry.find_resource("", "resourcequotas") else { return Ok(()) };
    let mut last = String::new();
    for _ in 0..QUOTA_RETRIES_MAX {
        let mut stored = Vec::with_capacity(names.len());
        for name in &names {
            stored.extend(request.engine.read(served, request.namespace, name).await?);
        }
        let quotas: Vec<Quota> = stored.iter().map(|stored| Quota::read(&stored.value)).collect();
        let charged =
            check(&quotas, change).map_err(|why| Status::forbidden(&request.served.resource(), request.name, &why))?;
        if request.dry_run {
            return Ok(());
        }
        names.clear();
        for (place, used) in charged {
            let name = quotas[place].name.as_str();
            if !write(request, served, name, &stored[place], &used).await? {
                names.push(name.to_owned());
                name.clone_into(&mut last);
            }
        }
        if names.is_empty() {
            return Ok(());
        }
    }
    Err(Status::modified(&served.resource(), &last))
}

async fn write(
    request: &AdmissionRequest<'_>,
    served: &Arc<Served>,
    name: &str,
    old: &Stored,
    used: &amounts::Amounts,
) -> ApiResult<bool> {
    let mut new = old.value.clone();
    new["status"]["used"] = amounts::write(used);
    Ok(request.engine.replace(served, (request.namespace, name), old, &new).await?.is_some())
}
