//! Where the objects of a kind are served, found out once from discovery.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::ApiErrorExt;
use kube::Client;

use crate::discovery::Served;

/// Kinds that are remembered; with more, all are forgotten and found out again.
const KINDS_MAX: usize = 1024;

/// Why a kind has no path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    #[error("unexpected GroupVersion string: {0}")]
    Version(String),
    #[error("no matches for kind {kind:?} in group {group:?}")]
    Unknown { group: String, kind: String },
    #[error("{}", .0.api_message())]
    Read(#[from] kube::Error),
}

/// Group and kind.
type Name = (String, String);

/// The kinds found so far.
pub(crate) struct KindPaths {
    client: Client,
    found: Mutex<HashMap<Name, Arc<Served>>>,
}

fn group_of(api_version: &str) -> Result<&str, PathError> {
    match api_version.split_once('/') {
        Some((_, version)) if version.contains('/') => Err(PathError::Version(api_version.to_owned())),
        Some((group, _)) => Ok(group),
        None => Ok(""),
    }
}

impl KindPaths {
    pub fn new(client: Client) -> Self {
        Self { client, found: Mutex::default() }
    }

    fn found(&self) -> MutexGuard<'_, HashMap<Name, Arc<Served>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource of a kind in the group of `api_version`, in whichever version the group prefers.
    pub async fn find(&self, api_version: &str, kind: &str) -> Result<Arc<Served>, PathError> {
        let name = (group_of(api_version)?.to_owned(), kind.to_owned());
        if let Some(served) = self.found().get(&name) {
            return Ok(served.clone());
        }
        for version in self.versions(&name.0).await? {
            let (version, list) = match name.0.as_str() {
                "" => (version.clone(), self.client.list_core_api_resources(&version).await?),
                group => {
                    let version = format!("{group}/{version}");
                    let list = self.client.list_api_group_resources(&version).await?;
                    (version, list)
                }
            };
            let is_it = |served: &Served| served.kind == kind;
            if let Some(served) = list.resources.iter().filter_map(|r| Served::of(&version, r)).find(is_it) {
                let served = Arc::new(served);
                let mut found = self.found();
                if found.len() >= KINDS_MAX {
                    found.clear();
                }
                found.insert(name, served.clone());
                return Ok(served);
            }
        }
        let (group, kind) = name;
        Err(PathError::Unknown { group, kind })
    }

    /// Finds the kind anew when it is next asked for.
    pub fn forget(&self, api_version: &str, kind: &str) {
        if let Ok(group) = group_of(api_version) {
            self.found().remove(&(group.to_owned(), kind.to_owned()));
        }
    }

    /// The served versions of a group, the preferred one first; none of a group that is not served.
    pub async fn versions(&self, group: &str) -> kube::Result<Vec<String>> {
        if group.is_empty() {
            return Ok(vec!["v1".to_owned()]);
        }
        let groups = self.client.list_api_groups().await?.groups;
        let Some(group) = groups.into_iter().find(|known| known.name == group) else { return Ok(Vec::new()) };
        let preferred = group.preferred_version.map(|version| version.version);
        let mut versions: Vec<String> = group.versions.into_iter().map(|version| version.version).collect();
        versions.sort_by_key(|version| Some(version) != preferred.as_ref());
        Ok(versions)
    }
}
