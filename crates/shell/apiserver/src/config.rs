//! What an API server is made of: who decides about identity and rights, and the names it publishes.

use std::sync::Arc;

use access::{Attributes, Decision, User};
use async_trait::async_trait;
use http::request::Parts;
use kinds::Kind;
use meta::Status;

use crate::admission::Admission;
use crate::computed::Computed;
use crate::connect::Connector;
use crate::subresources::VirtualResource;

/// Finds out who sends a request. `None` means that this request carries no credentials it knows.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Credentials that are present but wrong are an error (401), never an anonymous user.
    async fn authenticate(&self, parts: &Parts) -> Result<Option<User>, Box<Status>>;
}

/// Decides whether a user may do something.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn authorize(&self, attributes: &Attributes) -> Decision;
}

/// Changes a request's user on behalf of the authenticated one (the `Impersonate-*` headers).
#[async_trait]
pub trait Impersonator: Send + Sync + 'static {
    async fn impersonate(&self, parts: &Parts, user: User) -> Result<User, Box<Status>>;
}

/// Answers plain paths outside the resource tree, such as `/openid/v1/jwks`.
#[async_trait]
pub trait Page: Send + Sync + 'static {
    fn path(&self) -> &str;
    fn content_type(&self) -> &'static str;
    async fn body(&self) -> Result<Vec<u8>, Box<Status>>;
}

/// Everything an API server needs besides its store.
pub struct Config {
    /// Kinds served from the start; custom kinds come and go at run time.
    pub kinds: Vec<Kind>,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub impersonator: Option<Arc<dyn Impersonator>>,
    /// In order: all `mutate`, then validation, then all `validate`.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Resources and subresources answered by code instead of storage: token requests, access reviews, approvals.
    pub virtual_resources: Vec<Arc<dyn VirtualResource>>,
    /// Resources that are worked out when somebody reads them: the use of nodes and pods.
    pub computed: Vec<Arc<dyn Computed>>,
    /// log, exec, attach, port-forward and proxy.
    pub connector: Option<Arc<dyn Connector>>,
    pub pages: Vec<Arc<dyn Page>>,
    /// What this server shows to the API servers behind it.
    pub front_proxy: Option<pki::Credential>,
    /// Objects created at start when they are missing, in order; the server's own come first.
    pub bootstrap: Vec<serde_json::Value>,
    /// Address and port under which pods reach this server: the endpoints of the `kubernetes` service.
    pub advertise: Option<std::net::SocketAddr>,
    /// Cluster IP of the `kubernetes` service.
    pub service_ip: Option<std::net::IpAddr>,
}

impl Config {
    /// A configuration with the two deciders and nothing optional.
    pub fn new(authenticator: Arc<dyn Authenticator>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self {
            kinds: crate::registry::builtin_kinds(),
            authenticator,
            authorizer,
            impersonator: None,
            admission: Vec::new(),
            virtual_resources: Vec::new(),
            computed: Vec::new(),
            connector: None,
            pages: Vec::new(),
            front_proxy: None,
            bootstrap: Vec::new(),
            advertise: None,
            service_ip: None,
        }
    }
}
