//! What relying parties fetch to check service account tokens themselves.

use std::sync::Arc;

use async_trait::async_trait;
use meta::{ApiResult, Status};
use pki::jwks;
use serde_json::Value;

use super::Security;
use crate::config::Page;

/// The discovery document and the key set.
pub fn pages(security: &Arc<Security>) -> [Arc<dyn Page>; 2] {
    let page = |path, content_type, body| Arc::new(Document { path, content_type, body }) as Arc<dyn Page>;
    let discovery = jwks::discovery(&security.tokens, &security.public_url);
    [
        page(jwks::DISCOVERY_PATH, "application/json", discovery),
        page(jwks::JWKS_PATH, jwks::JWKS_CONTENT_TYPE, jwks::key_set(&security.tokens)),
    ]
}

struct Document {
    path: &'static str,
    content_type: &'static str,
    body: Value,
}

#[async_trait]
impl Page for Document {
    fn path(&self) -> &str {
        self.path
    }

    fn content_type(&self) -> &'static str {
        self.content_type
    }

    async fn body(&self) -> ApiResult<Vec<u8>> {
        serde_json::to_vec(&self.body).map_err(Status::internal)
    }
}
