//! A machine joins a whole server over TLS: hash, token, certificate, renewal; and what is refused on the way.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::time::Duration;

use client::Hub;
use controllers::trust::{self, TrustConfig};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use pki::join::{self, Purpose};
use pki::{CertificateView, JoinToken, tokens};
use serde_json::json;
use testkit::{SecureServer, until};

/// A secure server whose requests for certificates are answered.
struct Cluster {
    secure: SecureServer,
    admin: Client,
}

impl std::ops::Deref for Cluster {
    type Target = SecureServer;

    fn deref(&self) -> &SecureServer {
        &self.secure
    }
}

async fn start() -> Cluster {
    let secure = SecureServer::start().await;
    let (admin, stop) = (secure.admin(), secure.stop.clone());
    let config = TrustConfig { ca: secure.ca.clone(), server: secure.url.clone() };
    tokio::spawn(trust::run(config, Hub::new(admin.clone(), stop.clone()), stop));
    Cluster { secure, admin }
}

impl Cluster {
    async fn token(&self) -> JoinToken {
        let token = tokens::create(&self.admin, "", Some(tokens::DEFAULT_LIFE)).await.unwrap();
        JoinToken { token, ca_hash: self.ca.hash().to_owned() }
    }
}

#[tokio::test]
async fn a_machine_joins_and_gets_its_certificates() {
    let cluster = start().await;
    let token = cluster.token().await;
    let path = cluster.folder.path().join("kubelet.kubeconfig");
    let joined = join::load_or_join(&path, &cluster.url, Some(&token), "a", &cluster.stop);
    let joined = tokio::time::timeout(Duration::from_secs(20), joined).await.unwrap().unwrap();
    let kubelet = join::client(&joined).await.unwrap();

    // The node registers itself, and gets a serving certificate for its own addresses only.
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
    let nodes: Api<Node> = Api::all(kubelet.clone());
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let status = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "10.0.0.7" }] } });
    nodes.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let serving = Purpose::Serving { dns_names: vec!["a".to_owned()], ips: vec![IpAddr::from([10, 0, 0, 7])] };
    let issued = join::request_certificate(&kubelet, "a", &serving);
    let issued = tokio::time::timeout(Duration::from_secs(20), issued).await.unwrap().unwrap();
    let view = CertificateView::from_pem(&issued.certificate_pem).unwrap();
    assert!(view.server_auth && view.dns_names == ["a"]);

    // It renews with what it has, may not be another node, and may not name what is not its own.
    let renewed = join::request_certificate(&kubelet, "a", &Purpose::Client);
    tokio::time::timeout(Duration::from_secs(20), renewed).await.unwrap().unwrap();
    let other: Node = serde_json::from_value(json!({ "metadata": { "name": "b" } })).unwrap();
    assert!(nodes.create(&PostParams::default(), &other).await.is_err());
    let greedy = Purpose::Serving { dns_names: vec!["kubernetes.default".to_owned()], ips: Vec::new() };
    let waiting = join::request_certificate(&kubelet, "a", &greedy);
    assert!(tokio::time::timeout(Duration::from_secs(1), waiting).await.is_err(), "nobody approves it");
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.admin.clone());
    let open = requests.list(&ListParams::default()).await.unwrap().items;
    let open = open.iter().filter(|csr| csr.status.as_ref().is_none_or(|s| s.conditions.is_none()));
    assert_eq!(open.count(), 1);
}

#[tokio::test]
async fn a_wrong_hash_or_token_is_final_and_says_what_to_do() {
    let cluster = start().await;
    let mut token = cluster.token().await;
    let path = cluster.folder.path().join("kubelet.kubeconfig");
    let secret = std::mem::replace(&mut token.token.secret, "0000000000000000".to_owned());
    let error = join::load_or_join(&path, &cluster.url, Some(&token), "a", &cluster.stop).await.unwrap_err();
    assert!(error.to_string().contains("the token is not known or has expired"), "{error}");
    token.token.secret = secret;
    token.ca_hash = format!("sha256:{}", "0".repeat(64));
    let error = join::load_or_join(&path, &cluster.url, Some(&token), "a", &cluster.stop).await.unwrap_err();
    assert!(error.to_string().contains("is not the cluster that the token is for"), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn cluster_info_is_signed_by_living_tokens() {
    let cluster = start().await;
    let token = cluster.token().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin.clone(), "kube-public");
    let key = format!("jws-kubeconfig-{}", token.token.id);
    let data = until("the controllers follow", || async {
        let data = maps.get_opt("cluster-info").await.unwrap()?.data?;
        data.contains_key(&key).then_some(data)
    })
    .await;
    assert_eq!(data[&key], token.token.sign_detached(&data["kubeconfig"]).unwrap());
    assert_eq!(tokens::list(&cluster.admin).await.unwrap()[0].id, token.token.id);
    assert!(tokens::delete(&cluster.admin, &token.token.id).await.unwrap());
    assert!(!tokens::delete(&cluster.admin, &token.token.id).await.unwrap());
    until("the controllers follow", || async {
        (!maps.get("cluster-info").await.unwrap().data?.contains_key(&key)).then_some(())
    })
    .await;
    tokens::create(&cluster.admin, "short", Some(Duration::from_secs(1))).await.unwrap();
    until("the controllers follow", || async { tokens::list(&cluster.admin).await.unwrap().is_empty().then_some(()) })
        .await;
}

#[tokio::test]
async fn aggregated_roles_follow_their_parts() {
    let cluster = start().await;
    let roles: Api<ClusterRole> = Api::all(cluster.admin.clone());
    let part: ClusterRole = serde_json::from_value(json!({
        "metadata": { "name": "widgets", "labels": { "rbac.authorization.k8s.io/aggregate-to-view": "true" } },
        "rules": [{ "verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"] }],
    }))
    .unwrap();
    roles.create(&PostParams::default(), &part).await.unwrap();
    for name in ["view", "edit", "admin"] {
        until("the controllers follow", || async {
            let rules = roles.get(name).await.unwrap().rules?;
            rules.iter().any(|rule| rule.resources.iter().flatten().any(|r| r == "widgets")).then_some(())
        })
        .await;
    }
}
