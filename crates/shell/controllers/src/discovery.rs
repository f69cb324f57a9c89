//! Which resources the API serves now: what namespace deletion empties and the garbage collector follows.

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::Client;

const PARALLEL_READS_MAX: usize = 8;

/// One served resource at its group's preferred version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Served {
    pub api_version: String,
    pub plural: String,
    pub kind: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Served {
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    pub fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// An entry of a discovery document; `None` of a subresource.
    pub fn of(api_version: &str, resource: &APIResource) -> Option<Self> {
        (!resource.name.contains('/')).then(|| Self {
            api_version: api_version.to_owned(),
            plural: resource.name.clone(),
            kind: resource.kind.clone(),
            namespaced: resource.namespaced,
            verbs: resource.verbs.clone(),
        })
    }

    /// The collection in one namespace, or over all with an empty one.
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
        format!("{root}/{}{scope}/{}", self.api_version, self.plural)
    }

    /// `group/version, Resource=plural`, as messages name it.
    pub fn gvr(&self) -> String {
        let version =
            if self.api_version.contains('/') { self.api_version.clone() } else { format!("/{}", self.api_version) };
        format!("{version}, Resource={}", self.plural)
    }
}

/// Everything served, and a message when some groups could not be read (their resources are then missing).
pub(crate) async fn discover(client: &Client) -> kube::Result<(Vec<Served>, Option<String>)> {
    let core = client.list_core_api_resources("v1").await?;
    let mut served: Vec<Served> = core.resources.iter().filter_map(|resource| Served::of("v1", resource)).collect();
    let groups = client.list_api_groups().await?.groups;
    let versions: Vec<String> = groups
        .into_iter()
        .filter_map(|group| {
            let preferred = group.preferred_version.or_else(|| group.versions.first().cloned());
            preferred.map(|version| version.group_version)
        })
        .collect();
    let mut reads = Vec::with_capacity(versions.len());
    for version in &versions {
        reads.push(async move { (version, client.list_api_group_resources(version).await) });
    }
    let mut failures = Vec::new();
    let results: Vec<_> = futures::stream::iter(reads).buffer_unordered(PARALLEL_READS_MAX).collect().await;
    for (version, result) in results {
        match result {
            Ok(list) => served.extend(list.resources.iter().filter_map(|resource| Served::of(version, resource))),
            Err(error) => failures.push(format!("{version}: {error}")),
        }
    }
    served.sort();
    let failure = (!failures.is_empty()).then(|| {
        let (count, all) = (failures.len(), failures.join(", "));
        format!("Discovery failed for some groups, {count} failing: unable to retrieve the complete list of server APIs: {all}")
    });
    Ok((served, failure))
}
