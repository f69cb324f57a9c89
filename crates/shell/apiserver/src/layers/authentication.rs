//! Who asks: the configured authenticator, and impersonation on top of it.

use access::User;
use http::request::Parts;
use meta::ApiResult;

use crate::engine::Engine;

/// Put into a request's extensions by the in-memory client, whose caller is part of this process.
#[derive(Clone, Debug)]
pub struct LocalUser(pub User);

pub async fn authenticate(engine: &Engine, parts: &Parts) -> ApiResult<User> {
    if let Some(LocalUser(user)) = parts.extensions.get() {
        return Ok(user.clone());
    }
    let user = engine.config.authenticator.authenticate(parts).await?;
    Ok(user.unwrap_or_else(anonymous))
}

pub async fn impersonate(engine: &Engine, parts: &Parts, user: User) -> ApiResult<User> {
    match &engine.config.impersonator {
        Some(impersonator) => impersonator.impersonate(parts, user).await,
        None => Ok(user),
    }
}

/// Who sends no credentials is somebody with next to no rights.
pub fn anonymous() -> User {
    User { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()], ..User::default() }
}
