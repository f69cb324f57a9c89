//! Holds pods to the Pod Security Standards that the labels of their namespace name, and warns about templates.

use std::ops::Bound;

use access::admission::pod_security::{Level, Policy, is_significant, policy, sentence, violations};
use async_trait::async_trait;
use meta::{ApiResult, Status};
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest, Operation};
use crate::warnings;

/// Pods looked at when a namespace becomes stricter.
const PODS_MAX: usize = 3000;

pub struct PodSecurity;

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> ApiResult<()> {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let kind = &request.served.kind;
        match (&*kind.group, &*kind.plural, request.subresource) {
            ("", "namespaces", "") => namespace(request, object),
            ("", "pods", "" | "ephemeralcontainers") => pod(request, object),
            (_, _, "") => {
                if let Some(template) = template(&kind.group, &kind.plural, object) {
                    warn(request, &template);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What a namespace holds its pods to; nothing where no label says so.
fn policy_of(request: &AdmissionRequest<'_>) -> Option<Policy> {
    let namespace = request.engine.cached("", "namespaces", "", request.namespace)?;
    // Most namespaces say nothing, which costs no parsing.
    let text = namespace.bytes.as_ref();
    let marked = text.windows(PREFIX.len()).any(|part| part == PREFIX);
    let value = marked.then(|| namespace.value().ok()).flatten()?;
    let (found, _) = policy(access::admission::matching::labels(&value));
    let privileged = [&found.enforce, &found.audit, &found.warn].into_iter().all(|one| one.level == Level::Privileged);
    (!privileged).then_some(found)
}

const PREFIX: &[u8] = b"pod-security.kubernetes.io/";

fn pod(request: &AdmissionRequest<'_>, pod: &Value) -> ApiResult<()> {
    let Some(policy) = policy_of(request) else { return Ok(()) };
    if request.old.is_some_and(|old| !is_significant(pod, old)) {
        return Ok(());
    }
    let found = violations(policy.enforce.level, pod);
    if !found.is_empty() {
        let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, sentence(&found));
        return Err(Status::forbidden(&request.served.resource(), request.name, &why));
    }
    tell(&policy, pod);
    Ok(())
}

fn tell(policy: &Policy, pod: &Value) {
    let found = violations(policy.warn.level, pod);
    if !found.is_empty() {
        warnings::add(&format!("would violate PodSecurity \"{}\": {}", policy.warn, sentence(&found)));
    }
}

fn warn(request: &AdmissionRequest<'_>, template: &Value) {
    if let Some(policy) = policy_of(request) {
        tell(&policy, template);
    }
}

/// The pod that an object makes others make.
fn template(group: &str, plural: &str, object: &Value) -> Option<Value> {
    let path = match (group, plural) {
        ("", "podtemplates") => "/template",
        ("", "replicationcontrollers") | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            "/spec/template"
        }
        ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    let template = object.pointer(path)?;
    Some(json!({"metadata": template["metadata"], "spec": template["spec"]}))
}

/// Labels that make no sense are refused; stricter ones are told what they find.
fn namespace(request: &AdmissionRequest<'_>, namespace: &Value) -> ApiResult<()> {
    let labels = access::admission::matching::labels;
    let (new, errors) = policy(labels(namespace));
    let old = request.old.map(|old| policy(labels(old)));
    let known = old.as_ref().is_some_and(|(_, before)| *before == errors);
    if !errors.is_empty() && !known {
        return Err(Status::invalid("", "Namespace", request.name, &errors));
    }
    let Some((old, _)) = old else { return Ok(()) };
    let stricter = new.enforce.level > old.enforce.level || new.enforce.version != old.enforce.version;
    if new.enforce == old.enforce || new.enforce.level == Level::Privileged || !stricter {
        return Ok(());
    }
    existing(request, &new);
    Ok(())
}

fn existing(request: &AdmissionRequest<'_>, policy: &Policy) {
    let prefix = format!("{}/", request.name);
    let snapshot = request.engine.snapshot("", "pods");
    let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
    let pods = snapshot.objects.range::<_, str>(from).take_while(|(key, _)| key.starts_with(&prefix));
    // Reasons, with the first pod that has them and how many do.
    let mut reasons: Vec<(String, String, usize)> = Vec::new();
    for (key, pod) in pods.take(PODS_MAX) {
        let Ok(pod) = pod.value() else { continue };
        let found = violations(policy.enforce.level, &pod);
        if found.is_empty() {
            continue;
        }
        let reason = found.into_iter().map(|one| one.reason).collect::<Vec<_>>().join(", ");
        match reasons.iter_mut().find(|(known, _, _)| *known == reason) {
            Some((_, _, count)) => *count += 1,
            None => reasons.push((reason, key[prefix.len()..].to_owned(), 1)),
        }
    }
    if reasons.is_empty() {
        return;
    }
    let (name, level) = (request.name, &policy.enforce);
    warnings::add(&format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{level}\""
    ));
    let mut lines: Vec<String> = reasons
        .into_iter()
        .map(|(reason, pod, count)| match count {
            1 => format!("{pod}: {reason}"),
            2 => format!("{pod} (and 1 other pod): {reason}"),
            many => format!("{pod} (and {} other pods): {reason}", many - 1),
        })
        .collect();
    lines.sort_unstable();
    lines.iter().for_each(|line| warnings::add(line));
}
