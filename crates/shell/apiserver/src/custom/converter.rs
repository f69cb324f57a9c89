//! Conversion webhooks: a definition's author turns objects from one version into another.

use std::time::Duration;

use meta::{ApiResult, Status};
use serde_json::{Map, Value, json};

use crate::backend::Backend;
use crate::cache::Cache;

/// Time for one conversion, as upstream allows.
const CONVERSION_TIME_MAX: Duration = Duration::from_secs(30);

/// Asks the webhook of one definition.
pub struct Converter {
    /// The resource, for errors: `foos.example.com`.
    name: String,
    kind: String,
    /// `v1` or `v1beta1`.
    review_version: &'static str,
    backend: Result<Backend, String>,
}

impl Converter {
    /// The converter of a definition whose strategy is `Webhook`.
    pub fn of(definition: &Value) -> Option<Self> {
        let conversion = &definition["spec"]["conversion"];
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let webhook = &conversion["webhook"];
        let versions = webhook["conversionReviewVersions"].as_array();
        let known = versions.into_iter().flatten().find_map(|version| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        });
        Some(Self {
            name: definition["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            kind: definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned(),
            review_version: known.unwrap_or("v1"),
            backend: Backend::of_client_config(&webhook["clientConfig"]),
        })
    }

    /// Turns the objects that are of another version into `version`, with one question for all of them.
    pub async fn convert(&self, cache: &Cache, values: &mut [Value], version: &str) -> ApiResult<()> {
        let places: Vec<usize> = (0..values.len()).filter(|at| values[*at]["apiVersion"] != version).collect();
        if places.is_empty() {
            return Ok(());
        }
        let objects: Vec<Value> = places.iter().map(|at| values[*at].clone()).collect();
        let from = objects[0]["apiVersion"].as_str().unwrap_or_default().to_owned();
        let failed = |why: String| self.failed(&from, why);
        let converted = self.ask(cache, &objects, version).await.map_err(failed)?;
        if converted.len() != objects.len() {
            let why = format!("returned {} objects, expected {}", converted.len(), objects.len());
            return Err(self.invalid(&from, &why));
        }
        for ((at, old), mut new) in places.into_iter().zip(&objects).zip(converted) {
            let found = new["apiVersion"].as_str().unwrap_or_default();
            if found != version {
                return Err(
                    self.invalid(&from, &format!("returned apiVersion {found} at index {at}, expected {version}"))
                );
            }
            restore_metadata(old, &mut new).map_err(|why| self.invalid(&from, &why))?;
            values[at] = new;
        }
        Ok(())
    }

    async fn ask(&self, cache: &Cache, objects: &[Value], version: &str) -> Result<Vec<Value>, String> {
        let backend = self.backend.as_ref().map_err(Clone::clone)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({"kind": "ConversionReview",
            "apiVersion": format!("apiextensions.k8s.io/{}", self.review_version),
            "request": {"uid": uid, "desiredAPIVersion": version, "objects": objects}});
        let body = serde_json::to_vec(&review).map_err(|error| error.to_string())?;
        let answer = backend.post(cache, body, CONVERSION_TIME_MAX).await?;
        let response = &answer["response"];
        if !response.is_object() {
            return Err("response is absent".to_owned());
        }
        if self.review_version == "v1" && response["uid"] != uid.as_str() {
            return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
        }
        let result = &response["result"];
        if result["status"] != "Success" {
            let message = result["message"].as_str().filter(|message| !message.is_empty());
            return Err(message.unwrap_or("response.result.status was not Success").to_owned());
        }
        Ok(response["convertedObjects"].as_array().cloned().unwrap_or_default())
    }

    fn failed(&self, from: &str, why: String) -> Box<Status> {
        tracing::debug!(definition = self.name, why, "a conversion webhook failed");
        Status::internal_as_is(format!("conversion webhook for {from}, Kind={} failed: {why}", self.kind))
    }

    fn invalid(&self, from: &str, why: &str) -> Box<Status> {
        let kind = &self.kind;
        Status::internal_as_is(format!(
            "conversion webhook for {from}, Kind={kind} returned invalid converted object: {why}"
        ))
    }
}

/// Of the metadata, a webhook may change labels and annotations alone.
fn restore_metadata(old: &Value, new: &mut Value) -> Result<(), String> {
    let empty = Map::new();
    let Some(given) = new["metadata"].as_object() else {
        return Err("invalid metadata of type <nil> in converted object".to_owned());
    };
    let own = old["metadata"].as_object().unwrap_or(&empty);
    if given.get("uid") != own.get("uid") {
        return Err("must have the same UID".to_owned());
    }
    for (field, words) in [("name", "name"), ("namespace", "namespace")] {
        if given.get(field) != own.get(field) {
            return Err(format!("must have the same {words}"));
        }
    }
    let mut metadata = own.clone();
    for field in ["labels", "annotations"] {
        match given.get(field).filter(|value| value.as_object().is_some_and(|map| !map.is_empty())) {
            Some(value) => drop(metadata.insert(field.to_owned(), value.clone())),
            None => drop(metadata.remove(field)),
        }
    }
    new["metadata"] = Value::Object(metadata);
    Ok(())
}
