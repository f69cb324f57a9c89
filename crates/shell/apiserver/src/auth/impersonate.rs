//! The `Impersonate-*` headers: acting as somebody else, each part of whom must be allowed.

use std::collections::BTreeMap;

use access::attributes::{ANONYMOUS, AUTHENTICATED, SERVICE_ACCOUNT_PREFIX, UNAUTHENTICATED};
use access::{Attributes, Decision, User};
use async_trait::async_trait;
use http::header::HeaderMap;
use http::request::Parts;
use meta::{ApiResult, Status};
use percent_encoding::percent_decode_str;

use super::{Security, service_account};
use crate::config::Impersonator;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

#[async_trait]
impl Impersonator for Security {
    async fn impersonate(&self, parts: &Parts, user: User) -> Result<User, Box<Status>> {
        let Some(wanted) = Wanted::read(&parts.headers)? else { return Ok(user) };
        for part in wanted.questions(&user) {
            match self.decide(&part) {
                Decision::Allow { .. } => {}
                Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                    return Err(access::forbidden(&part, &reason));
                }
            }
        }
        Ok(wanted.into_user())
    }
}

/// Who the headers name.
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> ApiResult<Option<Self>> {
        let all = |name: &str| -> Vec<String> {
            headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect()
        };
        let one = |name: &str| all(name).into_iter().next().unwrap_or_default();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in headers.keys() {
            if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
                let decoded = percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(decoded).or_default().extend(all(name.as_str()));
            }
        }
        let wanted = Self { user: one(USER), uid: one(UID), groups: all(GROUP), extra };
        if !wanted.user.is_empty() {
            return Ok(Some(wanted));
        }
        if wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty() {
            return Ok(None);
        }
        Err(Status::bad_request("requested impersonation of groups, uid or extra without impersonating a user name"))
    }

    /// The service account that the user name is of.
    fn account(&self) -> Option<(&str, &str)> {
        self.user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')
    }

    /// One question for each part.
    fn questions(&self, by: &User) -> Vec<Attributes> {
        let ask = |group: &str, resource: &str, name: &str| Attributes {
            user: by.clone(),
            verb: "impersonate".to_owned(),
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        const AUTHENTICATION: &str = "authentication.k8s.io";
        let user = match self.account() {
            Some((namespace, name)) => {
                Attributes { namespace: namespace.to_owned(), ..ask("", "serviceaccounts", name) }
            }
            None => ask("", "users", &self.user),
        };
        let mut all = vec![user];
        all.extend(self.groups.iter().map(|group| ask("", "groups", group)));
        for (key, values) in &self.extra {
            let of = |value| Attributes { subresource: key.clone(), ..ask(AUTHENTICATION, "userextras", value) };
            all.extend(values.iter().map(|value| of(value)));
        }
        if !self.uid.is_empty() {
            all.push(ask(AUTHENTICATION, "uids", &self.uid));
        }
        all
    }

    fn into_user(self) -> User {
        let mut groups = self.groups.clone();
        if let Some((namespace, _)) = self.account().filter(|_| groups.is_empty()) {
            groups = service_account::groups(namespace);
        }
        let known = groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
        if self.user == ANONYMOUS {
            if !groups.iter().any(|group| group == UNAUTHENTICATED) {
                groups.push(UNAUTHENTICATED.to_owned());
            }
        } else if !known {
            groups.push(AUTHENTICATED.to_owned());
        }
        User { name: self.user, uid: self.uid, groups, extra: self.extra }
    }
}
