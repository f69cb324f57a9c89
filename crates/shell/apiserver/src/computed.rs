//! Resources that are worked out when somebody reads them and never stored.

use async_trait::async_trait;
use http::{Response, StatusCode};
use meta::{ApiResult, Status};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::cache::Filter;
use crate::call::Call;
use crate::engine::Engine;
use crate::output::{Form, metadata_only, table};

/// What is asked for: one namespace or all (empty), one object or all.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub namespace: &'a str,
    pub name: Option<&'a str>,
}

/// Works out the objects of one resource.
#[async_trait]
pub trait Computed: Send + Sync + 'static {
    /// Group and plural name.
    fn place(&self) -> (&'static str, &'static str);

    /// The objects asked for, with names, namespaces and labels. One that has no figures yet is left out.
    async fn objects(&self, engine: &Engine, asked: Asked<'_>) -> ApiResult<Vec<Value>>;
}

/// get or list; the verbs of the row allow nothing else.
pub async fn answer(call: &Call<'_>, computed: &dyn Computed) -> ApiResult<Response<Body>> {
    if call.info.verb == "get" { get(call, computed).await } else { list(call, computed).await }
}

async fn get(call: &Call<'_>, computed: &dyn Computed) -> ApiResult<Response<Body>> {
    let name = call.info.name.as_str();
    let asked = Asked { namespace: call.namespace(), name: Some(name) };
    let object = computed.objects(call.engine, asked).await?.into_iter().next();
    let object = object.ok_or_else(|| Status::not_found(&call.served.resource(), name))?;
    call.output.object(call.served, call.query, StatusCode::OK, &object)
}

fn matches(filter: &Filter, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let field = |path: &str| match path {
        "metadata.name" => text("name").to_owned(),
        "metadata.namespace" => text("namespace").to_owned(),
        _ => String::new(),
    };
    filter.namespace.as_deref().is_none_or(|wanted| wanted == text("namespace"))
        && filter.name.as_deref().is_none_or(|wanted| wanted == text("name"))
        && filter.labels.matches(&metadata["labels"])
        && filter.fields.matches(field)
}

async fn list(call: &Call<'_>, computed: &dyn Computed) -> ApiResult<Response<Body>> {
    let filter = call.filter()?;
    let asked = Asked { namespace: filter.namespace.as_deref().unwrap_or_default(), name: filter.name.as_deref() };
    let mut objects = computed.objects(call.engine, asked).await?;
    objects.retain(|object| matches(&filter, object));
    let served = call.served;
    let value = match &call.output.form {
        Form::Table(version) => table(served, version, call.query.get("includeObject"), &objects, Map::new(), true),
        Form::Metadata(version) | Form::MetadataList(version) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": {},
            "items": objects.iter().map(|object| metadata_only(version, object)).collect::<Vec<_>>(),
        }),
        Form::Object => json!({
            "kind": served.list_kind(),
            "apiVersion": served.api_version(),
            "metadata": {},
            "items": objects,
        }),
    };
    call.output.value(StatusCode::OK, &value)
}
