//! Keeps the rules of cluster roles that gather those of others.

use std::time::Duration;

use access::Rule;
use access::aggregation::{Role, Selector, gather};
use client::{Hub, Informer, Source};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_secs(2);

/// Cluster roles as aggregation sees them.
struct ClusterRoles;

impl Source for ClusterRoles {
    type Object = ClusterRole;
    type View = Role;

    fn project(role: ClusterRole) -> Role {
        let selectors = role.aggregation_rule.map(|rule| rule.cluster_role_selectors.unwrap_or_default());
        let selector = |selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector| Selector {
            match_labels: selector.match_labels.unwrap_or_default(),
            match_expressions: selector
                .match_expressions
                .unwrap_or_default()
                .into_iter()
                .map(|e| (e.key, e.operator, e.values.unwrap_or_default()))
                .collect(),
        };
        let rule = |rule: k8s_openapi::api::rbac::v1::PolicyRule| Rule {
            verbs: rule.verbs,
            api_groups: rule.api_groups.unwrap_or_default(),
            resources: rule.resources.unwrap_or_default(),
            resource_names: rule.resource_names.unwrap_or_default(),
            non_resource_urls: rule.non_resource_urls.unwrap_or_default(),
        };
        Role {
            name: role.metadata.name.unwrap_or_default(),
            labels: role.metadata.labels.unwrap_or_default(),
            selectors: selectors.map(|all| all.into_iter().map(selector).collect()),
            rules: role.rules.unwrap_or_default().into_iter().map(rule).collect(),
        }
    }
}

pub async fn run(hub: &Hub, stop: CancellationToken) {
    let roles = hub.informer::<ClusterRoles>();
    let mut changes = roles.changes();
    let work = async {
        roles.synced().await;
        loop {
            changes.mark_unchanged();
            let failed = match reconcile(&roles, hub.client()).await {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, "an aggregated role could not be brought up to date");
                    true
                }
            };
            let timer = async { if failed { tokio::time::sleep(RETRY).await } else { std::future::pending().await } };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = timer => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn reconcile(roles: &Informer<Role>, client: &kube::Client) -> Result<(), kube::Error> {
    let objects = roles.list();
    let all: Vec<Role> = objects.iter().map(|object| object.view.clone()).collect();
    let api: Api<ClusterRole> = Api::all(client.clone());
    for object in &objects {
        let Some(rules) = gather(&object.view, &all) else { continue };
        let patch = json!({ "metadata": { "resourceVersion": object.resource_version }, "rules": rules });
        match api.patch(&object.key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {}
            // Changed or gone in between: the change that says so brings us back.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
