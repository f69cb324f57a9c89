//! LimitRanges: defaults for containers that state nothing, and bounds of pods and claims.

use access::admission::limit_range::{check_claim, check_pod, default_pod};
use async_trait::async_trait;
use meta::{ApiResult, Status};
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation, in_namespace};

pub struct LimitRanger;

/// What the ranges of a namespace say something about.
enum Subject {
    Pod,
    Claim,
}

fn subject(request: &AdmissionRequest<'_>) -> Option<Subject> {
    let kind = &request.served.kind;
    // What is going away is left alone.
    if !kind.group.is_empty() || request.old.is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null()) {
        return None;
    }
    match (kind.plural.as_ref(), request.subresource, request.operation) {
        ("pods", "", Operation::Create) | ("pods", "resize", Operation::Update) => Some(Subject::Pod),
        ("persistentvolumeclaims", "", Operation::Create | Operation::Update) => Some(Subject::Claim),
        _ => None,
    }
}

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Value) -> ApiResult<()> {
        if matches!(subject(request), Some(Subject::Pod)) {
            for range in in_namespace(request.engine, "", "limitranges", request.namespace) {
                default_pod(object, &range?);
            }
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> ApiResult<()> {
        let check = match subject(request) {
            Some(Subject::Pod) => check_pod,
            Some(Subject::Claim) => check_claim,
            None => return Ok(()),
        };
        for range in in_namespace(request.engine, "", "limitranges", request.namespace) {
            check(object, &range?).map_err(|why| Status::forbidden(&request.served.resource(), request.name, &why))?;
        }
        Ok(())
    }
}
