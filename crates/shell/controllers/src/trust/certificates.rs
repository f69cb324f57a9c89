//! Approves kubelets' certificate requests, signs what was approved, and removes old requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use access::certificates::{self, Approval, Plan, Request, Subject};
use client::{Cached, Hub, Informer, Queue};
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use pki::{Authority, CertificateView, CsrView};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::now;

/// A request that waits for a right or an address is looked at again after this.
const WAIT: Duration = Duration::from_secs(2);

pub async fn run(ca: Arc<Authority>, hub: &Hub, stop: CancellationToken) {
    let requests = hub.whole::<CertificateSigningRequest>();
    let queue = Queue::<String>::default();
    let added = queue.clone();
    requests.subscribe(move |change| {
        if let Some(request) = &change.new {
            added.add(request.key.name.clone());
        }
    });
    let controller = Controller { ca, requests, api: Api::all(hub.client().clone()), client: hub.client().clone() };
    let work = async {
        controller.requests.synced().await;
        while let Some(name) = queue.next().await {
            match controller.reconcile(&name).await {
                Ok(again) => {
                    queue.forget(&name);
                    if let Some(delay) = again {
                        queue.add_after(name.clone(), delay);
                    }
                }
                Err(error) => {
                    let delay = queue.retry(name.clone());
                    tracing::warn!(%error, request = name, ?delay, "a certificate request could not be handled");
                }
            }
            queue.done(&name);
        }
    };
    tokio::select! {
        () = stop.cancelled() => queue.shutdown(),
        () = work => {}
    }
}

struct Controller {
    ca: Arc<Authority>,
    requests: Informer<CertificateSigningRequest>,
    api: Api<CertificateSigningRequest>,
    client: kube::Client,
}

impl Controller {
    /// Does what is next for one request; answers when to look again.
    async fn reconcile(&self, name: &str) -> Result<Option<Duration>, kube::Error> {
        let Some(object) = self.requests.get("", name).filter(|object| !object.deleting) else { return Ok(None) };
        let text = String::from_utf8_lossy(&object.spec.request.0).into_owned();
        let csr = match CsrView::from_pem(&text) {
            Ok(csr) => csr,
            // Admission refuses these; one that got in before is left to age.
            Err(error) => {
                tracing::debug!(%error, name, "an unreadable certificate request");
                return Ok(None);
            }
        };
        match certificates::plan(&request(&object, &csr), now()) {
            Plan::Keep(seconds) => return Ok(Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(1)))),
            Plan::Delete => match self.api.delete(name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            },
            Plan::ApproveIfPermitted(approval) => {
                if !self.permitted(&object, approval.subresource).await? {
                    return Ok(Some(WAIT));
                }
                self.approve(&object, approval).await?;
            }
            Plan::ApproveIfOwnAddresses => {
                let approval = Approval {
                    subresource: "",
                    message: "Auto approving kubelet serving certificate for the node's own addresses.",
                };
                if !self.addresses_are_the_nodes(&csr).await? {
                    return Ok(Some(WAIT));
                }
                self.approve(&object, approval).await?;
            }
            Plan::Fail(why) => self.condition(&object, "status", "Failed", "SignerValidationFailure", &why).await?,
            Plan::Sign => self.sign(&object, &csr).await?,
        }
        Ok(None)
    }

    /// Whether who asked may create this subresource of certificate requests.
    async fn permitted(&self, object: &CertificateSigningRequest, subresource: &str) -> Result<bool, kube::Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: object.spec.username.clone(),
                uid: object.spec.uid.clone(),
                groups: object.spec.groups.clone(),
                extra: object.spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    verb: Some("create".to_owned()),
                    version: Some("*".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn addresses_are_the_nodes(&self, csr: &CsrView) -> Result<bool, kube::Error> {
        let name = csr.common_name.strip_prefix(access::node::USER_PREFIX).unwrap_or_default();
        let Some(node) = Api::<Node>::all(self.client.clone()).get_opt(name).await? else { return Ok(false) };
        let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
        let addresses: Vec<String> = addresses.into_iter().map(|address| address.address).collect();
        Ok(certificates::addresses_are_the_nodes(&subject(csr), &addresses))
    }

    async fn approve(&self, object: &CertificateSigningRequest, approval: Approval) -> Result<(), kube::Error> {
        self.condition(object, "approval", "Approved", "AutoApproved", approval.message).await
    }

    /// Adds a condition through a subresource; a conflict means that somebody else decided first.
    async fn condition(
        &self,
        object: &CertificateSigningRequest,
        subresource: &str,
        kind: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), kube::Error> {
        let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut conditions: Vec<Value> = conditions(object).map(|condition| json!(condition)).collect();
        conditions.push(json!({ "type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": at, "lastTransitionTime": at }));
        self.patch(object, subresource, json!({ "conditions": conditions })).await
    }

    async fn patch(
        &self,
        object: &CertificateSigningRequest,
        subresource: &str,
        status: Value,
    ) -> Result<(), kube::Error> {
        let patch = json!({ "metadata": { "resourceVersion": object.metadata.resource_version }, "status": status });
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let parameters = PatchParams::default();
        self.api.patch_subresource(subresource, name, &parameters, &Patch::Merge(&patch)).await.map(drop)
    }

    async fn sign(&self, object: &CertificateSigningRequest, csr: &CsrView) -> Result<(), kube::Error> {
        let seconds = certificates::life_seconds(object.spec.expiration_seconds.map(i64::from));
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let usages = object.spec.usages.clone().unwrap_or_default();
        match self.ca.sign(csr, &usages, life, now()) {
            Ok(certificate) => {
                self.patch(object, "status", json!({ "certificate": ByteString(certificate.into_bytes()) })).await
            }
            Err(error) => {
                self.condition(object, "status", "Failed", "SignerValidationFailure", &error.to_string()).await
            }
        }
    }
}

type Condition = k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition;

fn conditions(object: &CertificateSigningRequest) -> impl Iterator<Item = &Condition> {
    object.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

fn subject(csr: &CsrView) -> Subject {
    Subject {
        common_name: csr.common_name.clone(),
        organizations: csr.organizations.clone(),
        dns_names: csr.dns_names.clone(),
        ips: csr.ips.clone(),
        email_addresses: csr.email_addresses.clone(),
        uris: csr.uris.clone(),
    }
}

fn request(object: &Cached<CertificateSigningRequest>, csr: &CsrView) -> Request {
    let holds: BTreeMap<&str, i64> = conditions(object)
        .filter(|condition| condition.status == "True")
        .map(|c| (c.type_.as_str(), c.last_update_time.as_ref().map_or(0, |at| at.0.as_second())))
        .collect();
    let certificate = object.status.as_ref().and_then(|status| status.certificate.as_ref());
    let issued = certificate.filter(|certificate| !certificate.0.is_empty());
    let view = issued.and_then(|c| CertificateView::from_pem(&String::from_utf8_lossy(&c.0)).ok());
    let created = object.metadata.creation_timestamp.as_ref().map_or(0, |at| at.0.as_second());
    Request {
        signer: object.spec.signer_name.clone(),
        usages: object.spec.usages.clone().unwrap_or_default(),
        username: object.spec.username.clone().unwrap_or_default(),
        subject: subject(csr),
        created,
        approved: holds.contains_key("Approved"),
        denied: holds.contains_key("Denied"),
        failed: holds.contains_key("Failed"),
        issued: issued.is_some(),
        decided: holds.values().copied().max(),
        expires: view.map(|view| view.not_after),
    }
}
