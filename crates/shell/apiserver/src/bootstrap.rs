//! The objects that every cluster has from its first second.

use access::User;
use meta::GroupVersion;
use serde_json::{Value, json};

use crate::call::{Call, WriteOptions};
use crate::codec;
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};
use crate::output::Output;
use crate::server::StartError;
use crate::verbs::{create, metadata};

/// Creates what is missing; what exists is left as it is.
pub async fn run(engine: &Engine) -> Result<(), StartError> {
    let mut objects: Vec<Value> = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .into();
    objects.extend(priority_classes());
    objects.extend(engine.config.bootstrap.iter().cloned());
    for object in objects {
        ensure(engine, object).await?;
    }
    Ok(())
}

fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, about: &str| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "globalDefault": false, "preemptionPolicy": "PreemptLowerPriority", "description": about})
    };
    [
        class("system-node-critical", 2_000_001_000, "For pods that a node needs to work."),
        class("system-cluster-critical", 2_000_000_000, "For pods that the cluster needs to work."),
    ]
}

async fn ensure(engine: &Engine, object: Value) -> Result<(), StartError> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let name = metadata::text(&object, "name").to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let what = format!("{kind} {name}");
    let failed = |status| StartError::Bootstrap { what: what.clone(), status };
    let registry = engine.registry();
    let found = GroupVersion::parse(&api_version).and_then(|gv| registry.find_kind(&gv.group, &gv.version, &kind));
    let Some(served) = found else {
        return Err(failed(meta::Status::bad_request(format!("no kind {kind} in {api_version}"))));
    };
    let info = RequestInfo {
        is_resource: true,
        verb: "create".to_owned(),
        namespace: metadata::text(&object, "namespace").to_owned(),
        resource: served.kind.plural.to_string(),
        ..RequestInfo::default()
    };
    let call =
        Call { engine, served, info: &info, query: &Query::default(), user: system(), output: Output::default() };
    if engine.read(served, call.namespace(), &name).await.map_err(failed)?.is_some() {
        return Ok(());
    }
    let decoded = codec::check(&served.kind.gvk(), object.clone(), crate::call::FieldValidation::Ignore).map_err(failed)?;
    match create::insert(&call, decoded.value, &WriteOptions::default()).await {
        Ok(_) => Ok(()),
        Err(status) if status.is(meta::Reason::AlreadyExists) => Ok(()),
        Err(status) => Err(failed(status)),
    }
}

/// The server itself as a user.
pub fn system() -> User {
    User {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..User::default()
    }
}
