//! What claims and volumes get and may not do: a default class, protection while in use, growth only where a class
//! allows it.

use access::admission::storage;
use async_trait::async_trait;
use meta::{ApiResult, Status};
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};

const CLASS_GROUP: &str = "storage.k8s.io";
const CLASSES: &str = "storageclasses";

fn is(request: &AdmissionRequest<'_>, resource: &str) -> bool {
    let kind = &request.served.kind;
    request.subresource.is_empty() && kind.group.is_empty() && kind.plural == resource
}

fn classes(request: &AdmissionRequest<'_>) -> Vec<Value> {
    let classes = request.engine.snapshot(CLASS_GROUP, CLASSES);
    classes.objects.values().filter_map(|class| class.value().ok()).collect()
}

/// Gives a new claim that names no class the default one.
pub struct DefaultStorageClass;

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, claim: &mut Value) -> ApiResult<()> {
        if request.operation == Operation::Create && is(request, "persistentvolumeclaims") {
            storage::settle_class(claim, &classes(request));
        }
        Ok(())
    }
}

/// Holds claims and volumes until nobody uses them.
pub struct StorageObjectInUseProtection;

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> ApiResult<()> {
        if request.operation == Operation::Create {
            if is(request, "persistentvolumeclaims") {
                storage::protect(object, storage::CLAIM_PROTECTION);
            } else if is(request, "persistentvolumes") {
                storage::protect(object, storage::VOLUME_PROTECTION);
            }
        }
        Ok(())
    }
}

/// Lets claims grow only where their class allows it.
pub struct PersistentVolumeClaimResize;

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, claim: &Value) -> ApiResult<()> {
        let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else { return Ok(()) };
        if !is(request, "persistentvolumeclaims") {
            return Ok(());
        }
        storage::judge_growth(claim, old, &classes(request))
            .map_err(|why| Status::forbidden(&request.served.resource(), request.name, why))
    }
}
