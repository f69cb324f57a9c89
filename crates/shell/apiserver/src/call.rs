//! One resource request with everything a verb needs to answer it.

use access::User;
use meta::fields::FieldSelector;
use meta::labels::Selector;
use meta::{ApiResult, Status};

use schema::FieldValidation;

use crate::cache::Filter;
use crate::engine::Engine;
use crate::info::{Query, RequestInfo};
use crate::layers::authorization;
use crate::output::Output;
use crate::registry::Served;

pub struct Call<'a> {
    pub engine: &'a Engine,
    pub served: &'a Served,
    pub info: &'a RequestInfo,
    pub query: &'a Query,
    pub user: User,
    pub output: Output,
}

/// What every write may ask for in its query.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    pub force: bool,
    /// The write is an apply, whose owners are settled already.
    pub applied: bool,
}

impl Call<'_> {
    /// The namespace of the object asked for; empty for cluster-wide kinds.
    pub fn namespace(&self) -> &str {
        if self.served.is_namespaced() { &self.info.namespace } else { "" }
    }

    pub fn write_options(&self) -> ApiResult<WriteOptions> {
        let mut dry_run = false;
        for value in self.query.all("dryRun").filter(|value| !value.is_empty()) {
            if value != "All" {
                return Err(Status::bad_request(format!(
                    "dryRun: Unsupported value: {value:?}: supported values: \"All\""
                )));
            }
            dry_run = true;
        }
        let given = self.query.get("fieldValidation");
        let field_validation = FieldValidation::parse(given).ok_or_else(|| {
            let supported = r#""", "Ignore", "Strict", "Warn""#;
            Status::bad_request(format!("fieldValidation: Unsupported value: {given:?}: supported values: {supported}"))
        })?;
        let field_manager = self.query.get("fieldManager").to_owned();
        if field_manager.len() > 128 {
            return Err(Status::bad_request("fieldManager: Too long: may not be more than 128 bytes"));
        }
        Ok(WriteOptions { dry_run, field_manager, field_validation, force: self.query.flag("force"), applied: false })
    }

    /// A PUT or an apply that makes a new object needs the right to create as well.
    pub async fn authorize_create(&self) -> ApiResult<()> {
        let create = RequestInfo { verb: "create".to_owned(), ..self.info.clone() };
        authorization::authorize(self.engine, &create, self.query, &self.user).await
    }

    /// What a list, watch or deletecollection selects.
    pub fn filter(&self) -> ApiResult<Filter> {
        let fields = FieldSelector::parse(self.query.get("fieldSelector"));
        let fields = fields.map_err(|error| Status::bad_request(error.to_string()))?;
        for path in fields.terms.iter().map(|term| term.field.as_str()) {
            let generic = path == "metadata.name" || (path == "metadata.namespace" && self.served.is_namespaced());
            if !generic && self.served.field_reader(path).is_none() {
                return Err(Status::bad_request(format!("field label not supported: {path}")));
            }
        }
        let name = fields.exact("metadata.name").map(str::to_owned);
        let mut namespace = (!self.namespace().is_empty()).then(|| self.namespace().to_owned());
        if namespace.is_none() {
            namespace = fields.exact("metadata.namespace").map(str::to_owned);
        }
        let name = name.or_else(|| (!self.info.name.is_empty()).then(|| self.info.name.clone()));
        let labels = Selector::parse(self.query.get("labelSelector"));
        let labels = labels.map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
        let (converted, fields) = match self.served.is_converted() {
            true => fields.terms.into_iter().partition(|term| !term.field.starts_with("metadata.")),
            false => (Vec::new(), fields.terms),
        };
        let [fields, converted] = [fields, converted].map(|terms| FieldSelector { terms });
        Ok(Filter { namespace, name, labels, fields, converted })
    }
}
