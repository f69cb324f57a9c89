//! The objects that every cluster has from its first second.

use access::User;
use futures::StreamExt;
use meta::{ApiResult, GroupVersion, Status};
use serde_json::{Value, json};

use crate::call::{Call, WriteOptions};
use crate::codec;
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};
use crate::output::Output;
use crate::own_service;
use crate::server::StartError;
use crate::verbs::{create, metadata, update};

/// Objects created at the same time.
const WRITES_MAX: usize = 64;

/// Creates what is missing; what exists is left as it is.
pub async fn run(engine: &Engine) -> Result<(), StartError> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(engine, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
    }
    let mut objects: Vec<Value> = priority_classes().into();
    objects.extend(own_service::service(engine));
    objects.extend(crate::aggregation::local_services(&engine.registry()));
    objects.extend(access::flow::defaults::objects());
    objects.extend(engine.config.bootstrap.iter().cloned());
    // Side by side, so that the store commits them in groups: one by one, a first start would wait for each flush.
    let mut writes = futures::stream::iter(objects).map(|object| ensure(engine, object)).buffer_unordered(WRITES_MAX);
    while let Some(written) = writes.next().await {
        written?;
    }
    if engine.config.advertise.is_some_and(|address| address.ip().is_loopback()) {
        tracing::warn!("the advertised address is loopback: pods will not reach the kubernetes service");
    }
    own_service::settle(engine).await
}

/// Makes an object's content what this server says, whoever wrote it before.
pub async fn settle(engine: &Engine, wanted: Value) -> Result<(), StartError> {
    ensure(engine, wanted.clone()).await?;
    let registry = engine.registry();
    let text = |field: &str| wanted.get(field).and_then(Value::as_str).unwrap_or("");
    let gv = GroupVersion::parse(text("apiVersion"));
    let Some(served) = gv.and_then(|gv| registry.find_kind(&gv.group, &gv.version, text("kind"))) else {
        return Ok(());
    };
    let info = RequestInfo {
        is_resource: true,
        verb: "update".to_owned(),
        namespace: metadata::text(&wanted, "namespace").to_owned(),
        resource: served.kind.plural.to_string(),
        name: metadata::text(&wanted, "name").to_owned(),
        ..RequestInfo::default()
    };
    let call =
        Call { engine, served, info: &info, query: &Query::default(), user: system(), output: Output::default() };
    let options = WriteOptions::default();
    let written = update::write(&call, &options, update::Part::Main, false, |old| {
        let mut new = old.clone();
        if let (Some(fields), Some(given)) = (new.as_object_mut(), wanted.as_object()) {
            fields.extend(given.iter().filter(|(key, _)| *key != "metadata").map(|(k, v)| (k.clone(), v.clone())));
        }
        Ok(new)
    });
    let what = format!("{} {}", text("kind"), info.name);
    written.await.map(drop).map_err(|status| StartError::Bootstrap { what, status })
}

/// Changes a cluster-wide object as the server itself, in the name of one of its parts.
pub async fn change(
    engine: &Engine,
    (group, version, plural): (&str, &str, &str),
    name: &str,
    part: update::Part,
    writer: &str,
    change: impl FnMut(&Value) -> ApiResult<Value>,
) -> ApiResult<()> {
    let registry = engine.registry();
    let served = registry.find(group, version, plural).ok_or_else(|| Status::internal(format!("no {plural}")))?;
    let subresource = if matches!(part, update::Part::Status) { "status" } else { "" };
    let info = RequestInfo {
        is_resource: true,
        verb: "update".to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        resource: plural.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        user_agent: writer.to_owned(),
        ..RequestInfo::default()
    };
    let call =
        Call { engine, served, info: &info, query: &Query::default(), user: system(), output: Output::default() };
    update::write(&call, &WriteOptions::default(), part, false, change).await.map(drop)
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

pub async fn ensure(engine: &Engine, object: Value) -> Result<(), StartError> {
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
    let decoded = codec::check(served.as_ref(), object.clone(), schema::FieldValidation::Ignore).map_err(failed)?;
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
