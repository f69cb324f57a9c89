//! An API server in this process over a store in memory.

use std::sync::Arc;

use access::{Attributes, Decision, User};
use apiserver::{ApiServer, Authenticator, Authorizer, Config};
use async_trait::async_trait;
use http::request::Parts;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::MemoryStore;

/// Knows nobody: only in-memory clients, which carry their user, get in.
pub struct NobodyElse;

#[async_trait]
impl Authenticator for NobodyElse {
    async fn authenticate(&self, _: &Parts) -> Result<Option<User>, Box<meta::Status>> {
        Err(meta::Status::unauthorized())
    }
}

/// Lets everybody do everything. For tests of things other than rights.
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn authorize(&self, _: &Attributes) -> Decision {
        Decision::Allow { reason: "a test".to_owned() }
    }
}

/// A member of `system:masters`.
pub fn admin() -> User {
    User {
        name: "admin".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..User::default()
    }
}

/// Stops when dropped.
pub struct TestServer {
    pub server: ApiServer,
    pub store: Arc<MemoryStore>,
    pub client: kube::Client,
    _stop: DropGuard,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(Config::new(Arc::new(NobodyElse), Arc::new(AllowAll))).await
    }

    /// # Panics
    /// The server does not start.
    pub async fn start_with(config: Config) -> Self {
        Self::start_over(config, Arc::new(MemoryStore::default())).await
    }

    /// A server over a store that others may share, to test restarts and replicas.
    ///
    /// # Panics
    /// The server does not start.
    pub async fn start_over(config: Config, store: Arc<MemoryStore>) -> Self {
        let stop = CancellationToken::new();
        let started = ApiServer::start(config, store.clone(), stop.clone()).await;
        let server = match started {
            Ok(server) => server,
            Err(error) => panic!("the API server did not start: {error}"),
        };
        let client = server.client_as(admin());
        Self { server, store, client, _stop: stop.drop_guard() }
    }
}
