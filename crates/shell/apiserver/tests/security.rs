//! Identity and rights through a whole server: roles, tokens, certificates, impersonation, reviews.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::core::Status;
use kube::{Client, Config};
use pki::{Authority, BootstrapToken, CertificateRequest, Credential, Kubeconfig};
use serde_json::{Value, json};
use testkit::{SecureServer, until};

/// Clients of every sort, of one secure server.
struct Cluster(SecureServer);

impl std::ops::Deref for Cluster {
    type Target = SecureServer;

    fn deref(&self) -> &SecureServer {
        &self.0
    }
}

async fn start() -> Cluster {
    Cluster(SecureServer::start().await)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Cluster {
    async fn with_token(&self, token: &str) -> Client {
        let config = Kubeconfig::with_token("t", &self.url, self.ca.certificate_pem(), token);
        pki::join::client(&config).await.unwrap()
    }

    async fn with_certificate(&self, credential: &Credential) -> Client {
        let config = Kubeconfig::with_certificate("c", &self.url, self.ca.certificate_pem(), credential);
        pki::join::client(&config).await.unwrap()
    }

    async fn anonymous(&self) -> Client {
        let mut config = Config::new(self.url.parse().unwrap());
        config.root_cert = Some(vec![self.ca.certificate_der().to_vec()]);
        Client::try_from(config).unwrap()
    }

    /// Sends one request as it is and answers the parsed body.
    async fn ask(&self, client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, Status> {
        let mut request = http::Request::builder().method(method).uri(path);
        request = request.header("content-type", "application/json");
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        client.request::<Value>(request.body(body).unwrap()).await.map_err(failure)
    }
}

fn failure(error: kube::Error) -> Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not an API error: {other:?}"),
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn whoami(cluster: &Cluster, client: &Client) -> Result<Value, Status> {
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    Ok(cluster.ask(client, "POST", path, &review).await?["status"]["userInfo"].take())
}

#[tokio::test]
async fn rights_follow_roles_and_bindings() {
    let cluster = start().await;
    let ann = cluster.user("ann", &["system:authenticated"]);
    let maps: Api<ConfigMap> = Api::namespaced(ann.clone(), "default");
    let denied = failure(maps.list(&ListParams::default()).await.unwrap_err());
    assert_eq!(denied.code, 403);
    assert_eq!(
        denied.message,
        "configmaps is forbidden: User \"ann\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let admin = cluster.admin();
    let binding: RoleBinding = object(json!({
        "metadata": { "name": "ann" }, "subjects": [{ "kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
    }));
    let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), "default");
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    until("the index follows", || async { maps.list(&ListParams::default()).await.ok() }).await;
    bindings.delete("ann", &DeleteParams::default()).await.unwrap();
    until("the index follows", || async { maps.list(&ListParams::default()).await.err() }).await;
}

#[tokio::test]
async fn default_roles_are_there_and_repaired() {
    let cluster = start().await;
    let roles: Api<ClusterRole> = Api::all(cluster.admin());
    assert!(roles.list(&ListParams::default()).await.unwrap().items.len() > 60);
    let view = roles.get("view").await.unwrap();
    assert!(!view.rules.unwrap().is_empty());
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.admin());
    bindings.get("system:discovery").await.unwrap();
}

#[tokio::test]
async fn nobody_escalates() {
    let cluster = start().await;
    let admin = cluster.admin();
    let binding: RoleBinding = object(json!({
        "metadata": { "name": "bob" }, "subjects": [{ "kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin" },
    }));
    Api::namespaced(admin, "default").create(&PostParams::default(), &binding).await.unwrap();
    let bob = cluster.user("bob", &["system:authenticated"]);
    let roles: Api<Role> = Api::namespaced(bob.clone(), "default");
    let role = |verb: &str, resource: &str| -> Role {
        object(json!({ "metadata": { "generateName": "r-" },
            "rules": [{ "verbs": [verb], "apiGroups": [""], "resources": [resource] }] }))
    };
    until("the index follows", || async { roles.create(&PostParams::default(), &role("get", "pods")).await.ok() })
        .await;
    let mut greedy = role("delete", "nodes");
    greedy.metadata = ObjectMeta { name: Some("greedy".to_owned()), ..ObjectMeta::default() };
    let refused = failure(roles.create(&PostParams::default(), &greedy).await.unwrap_err());
    assert_eq!(
        refused.message,
        "roles.rbac.authorization.k8s.io \"greedy\" is forbidden: user \"bob\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"delete\"]}"
    );
    let mut more = binding.clone();
    more.metadata.name = Some("more".to_owned());
    more.role_ref.name = "cluster-admin".to_owned();
    let bindings: Api<RoleBinding> = Api::namespaced(bob, "default");
    let refused = failure(bindings.create(&PostParams::default(), &more).await.unwrap_err());
    assert!(refused.message.contains("not currently held"), "{}", refused.message);
}

#[tokio::test]
async fn certificates_say_who_asks_and_bad_ones_get_401() {
    let cluster = start().await;
    let kubelet = cluster.ca.issue(&CertificateRequest::kubelet("a"), now()).unwrap();
    let client = cluster.with_certificate(&kubelet).await;
    let who = whoami(&cluster, &client).await.unwrap();
    assert_eq!(who["username"], "system:node:a");
    assert_eq!(who["groups"], json!(["system:nodes", "system:authenticated"]));
    let mut request = CertificateRequest::admin();
    request.life = Duration::from_secs(30);
    let expired = cluster.ca.issue(&request, now() - 3600).unwrap();
    let foreign = Authority::generate("x", now()).unwrap().issue(&CertificateRequest::admin(), now()).unwrap();
    for bad in [expired, foreign] {
        let refused = whoami(&cluster, &cluster.with_certificate(&bad).await).await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (401, "Unauthorized"));
    }
    for token in ["nonsense", "abcdef.0123456789abcdef", "a.b.c"] {
        assert_eq!(whoami(&cluster, &cluster.with_token(token).await).await.unwrap_err().code, 401, "{token}");
    }
}

#[tokio::test]
async fn anonymous_reads_what_upstream_shows_and_no_more() {
    let cluster = start().await;
    let anonymous = cluster.anonymous().await;
    let get = |path: &'static str| anonymous.request_text(http::Request::get(path).body(Vec::new()).unwrap());
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        get(path).await.unwrap_or_else(|e| panic!("{path}: {e}"));
    }
    for path in ["/api", "/metrics", "/api/v1/namespaces"] {
        assert!(get(path).await.is_err(), "{path}");
    }
    let refused = cluster.ask(&anonymous, "GET", "/api/v1/namespaces", &Value::Null).await.unwrap_err();
    assert_eq!(
        refused.message,
        "namespaces is forbidden: User \"system:anonymous\" cannot list resource \"namespaces\" in API group \"\" at the cluster scope"
    );
}

async fn token(cluster: &Cluster, account: &str, spec: Value) -> Result<Value, Status> {
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    cluster.ask(&cluster.admin(), "POST", &path, &request).await
}

#[tokio::test]
async fn tokens_live_as_long_as_what_they_are_bound_to() {
    let cluster = start().await;
    let admin = cluster.admin();
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    accounts.create(&PostParams::default(), &object(json!({ "metadata": { "name": "web" } }))).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "default");
    let secret = secrets.create(&PostParams::default(), &object(json!({ "metadata": { "name": "s" } }))).await.unwrap();

    let refused = token(&cluster, "web", json!({ "expirationSeconds": 5 })).await.unwrap_err();
    assert!(refused.message.contains("may not specify a duration less than 10 minutes"), "{}", refused.message);
    assert_eq!(token(&cluster, "none", json!({})).await.unwrap_err().code, 404);

    let answer = token(&cluster, "web", json!({ "expirationSeconds": 600 })).await.unwrap();
    let free = answer["status"]["token"].as_str().unwrap();
    let who = whoami(&cluster, &cluster.with_token(free).await).await.unwrap();
    assert_eq!(who["username"], "system:serviceaccount:default:web");
    assert_eq!(
        who["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    let bound = json!({ "kind": "Secret", "apiVersion": "v1", "name": "s", "uid": secret.metadata.uid });
    let answer = token(&cluster, "web", json!({ "boundObjectRef": bound })).await.unwrap();
    let bound = cluster.with_token(answer["status"]["token"].as_str().unwrap()).await;
    whoami(&cluster, &bound).await.unwrap();
    secrets.delete("s", &DeleteParams::default()).await.unwrap();
    until("the index follows", || async { whoami(&cluster, &bound).await.err() }).await;

    let other = token(&cluster, "web", json!({ "audiences": ["vault"] })).await.unwrap();
    let other = other["status"]["token"].as_str().unwrap();
    assert_eq!(whoami(&cluster, &cluster.with_token(other).await).await.unwrap_err().code, 401);
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": { "token": other, "audiences": ["vault"] } });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let reviewed = cluster.ask(&admin, "POST", path, &review).await.unwrap();
    assert_eq!(reviewed["status"]["authenticated"], true);
    assert_eq!(reviewed["status"]["audiences"], json!(["vault"]));

    accounts.delete("web", &DeleteParams::default()).await.unwrap();
    let free = cluster.with_token(free).await;
    until("the index follows", || async { whoami(&cluster, &free).await.err() }).await;
}

#[tokio::test]
async fn the_key_set_is_published() {
    let cluster = start().await;
    let admin = cluster.admin();
    let document = cluster.ask(&admin, "GET", "/.well-known/openid-configuration", &Value::Null).await.unwrap();
    assert_eq!(document["issuer"], "https://kubernetes.default.svc.cluster.local");
    let keys = cluster.ask(&admin, "GET", "/openid/v1/jwks", &Value::Null).await.unwrap();
    assert_eq!(keys["keys"][0]["alg"], "ES256");
}

#[tokio::test]
async fn reviews_answer_for_others_and_oneself() {
    let cluster = start().await;
    let admin = cluster.admin();
    let group = "/apis/authorization.k8s.io/v1";
    let ask = async |client: &Client, plural: &str, kind: &str, spec: Value| {
        let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec });
        cluster.ask(client, "POST", &format!("{group}/{plural}"), &review).await
    };
    let resource = json!({ "namespace": "default", "verb": "get", "resource": "pods" });
    let spec = json!({ "resourceAttributes": resource, "user": "x", "groups": ["system:masters"] });
    let answer = ask(&admin, "subjectaccessreviews", "SubjectAccessReview", spec).await.unwrap();
    assert_eq!(answer["status"]["allowed"], true);
    let spec = json!({ "resourceAttributes": resource, "user": "x" });
    let answer = ask(&admin, "subjectaccessreviews", "SubjectAccessReview", spec).await.unwrap();
    assert_eq!(answer["status"]["allowed"], false);
    let refused = ask(&admin, "subjectaccessreviews", "SubjectAccessReview", json!({ "user": "x" })).await.unwrap_err();
    assert!(refused.message.contains("exactly one of nonResourceAttributes or resourceAttributes"), "{refused:?}");
    let ann = cluster.user("ann", &["system:authenticated"]);
    let spec = json!({ "nonResourceAttributes": { "path": "/api", "verb": "get" } });
    let answer = ask(&ann, "selfsubjectaccessreviews", "SelfSubjectAccessReview", spec).await.unwrap();
    assert_eq!(answer["status"]["allowed"], true);
    let spec = json!({ "namespace": "default" });
    let answer = ask(&ann, "selfsubjectrulesreviews", "SelfSubjectRulesReview", spec).await.unwrap();
    assert_eq!(answer["status"]["incomplete"], false);
    assert!(answer["status"]["resourceRules"].to_string().contains("selfsubjectaccessreviews"));
    let local = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "LocalSubjectAccessReview",
        "metadata": { "namespace": "default" }, "spec": { "user": "x", "resourceAttributes": resource } });
    let path = format!("{group}/namespaces/default/localsubjectaccessreviews");
    assert_eq!(cluster.ask(&admin, "POST", &path, &local).await.unwrap()["status"]["allowed"], false);
}

#[tokio::test]
async fn impersonation_needs_a_right_for_each_part() {
    let cluster = start().await;
    let acting = async |client: &Client, headers: &[(&str, &str)]| {
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let mut request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews");
        request = request.header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(serde_json::to_vec(&body).unwrap()).unwrap();
        client.request::<Value>(request).await.map(|v| v["status"]["userInfo"].clone()).map_err(failure)
    };
    let admin = cluster.admin();
    let headers = [("Impersonate-User", "ann"), ("Impersonate-Group", "staff"), ("Impersonate-Extra-scopes", "a")];
    let who = acting(&admin, &headers).await.unwrap();
    assert_eq!(
        who,
        json!({ "username": "ann", "groups": ["staff", "system:authenticated"], "extra": { "scopes": ["a"] } })
    );
    let who = acting(&admin, &[("Impersonate-User", "system:serviceaccount:ns:sa")]).await.unwrap();
    assert_eq!(who["groups"], json!(["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]));
    assert_eq!(acting(&admin, &[("Impersonate-Group", "staff")]).await.unwrap_err().code, 400);
    let bob = cluster.user("bob", &["system:authenticated"]);
    let refused = acting(&bob, &[("Impersonate-User", "ann")]).await.unwrap_err();
    assert_eq!(
        refused.message,
        "users \"ann\" is forbidden: User \"bob\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
}

#[tokio::test]
async fn bootstrap_tokens_know_only_how_to_join() {
    let cluster = start().await;
    let secrets: Api<Secret> = Api::namespaced(cluster.admin(), "kube-system");
    let token = BootstrapToken::generate();
    let secret: Secret = object(token.to_secret("", None));
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let client = cluster.with_token(&token.to_string()).await;
    let who = until("the index follows", || async { whoami(&cluster, &client).await.ok() }).await;
    assert_eq!(who["username"], format!("system:bootstrap:{}", token.id));
    assert!(who["groups"].to_string().contains("system:bootstrappers:kubeadm:default-node-token"));
    let pods: Api<Pod> = Api::all(client.clone());
    assert_eq!(failure(pods.list(&ListParams::default()).await.unwrap_err()).code, 403);
    let expired = BootstrapToken::generate();
    let past = jiff::Timestamp::from_second(now() - 10).unwrap();
    secrets.create(&PostParams::default(), &object(expired.to_secret("", Some(past)))).await.unwrap();
    assert_eq!(whoami(&cluster, &cluster.with_token(&expired.to_string()).await).await.unwrap_err().code, 401);
}

#[tokio::test]
async fn certificate_requests_carry_who_asked_and_are_decided_by_who_may() {
    let cluster = start().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = |pem: &str| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
        json!({ "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": { "name": "c" },
            "spec": { "request": encoded, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
                "username": "somebody-else" } })
    };
    let admin = cluster.admin();
    let refused = cluster.ask(&admin, "POST", path, &request("garbage")).await.unwrap_err();
    assert_eq!(
        refused.message,
        "CertificateSigningRequest.certificates.k8s.io \"c\" is invalid: spec.request: Invalid value: \"Z2FyYmFnZQ==\": \
         PEM block type must be CERTIFICATE REQUEST"
    );
    let root = pki::new_csr("root", Some("system:masters"), &[], &[]).unwrap();
    let refused = cluster.ask(&admin, "POST", path, &request(&root.certificate_pem)).await.unwrap_err();
    assert!(refused.message.contains("signer with system:masters group is not allowed"), "{}", refused.message);
    let ann = pki::new_csr("ann", None, &[], &[]).unwrap();
    let created = cluster.ask(&admin, "POST", path, &request(&ann.certificate_pem)).await.unwrap();
    assert_eq!(created["spec"]["username"], "admin");

    // Who may write approvals still needs the signer's permission.
    let role: ClusterRole = object(json!({ "metadata": { "name": "approvers" }, "rules": [{ "verbs": ["*"],
        "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests", "certificatesigningrequests/approval"] }] }));
    let binding: ClusterRoleBinding = object(json!({ "metadata": { "name": "approvers" },
        "subjects": [{ "kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "approvers" } }));
    Api::all(admin.clone()).create(&PostParams::default(), &role).await.unwrap();
    Api::all(admin.clone()).create(&PostParams::default(), &binding).await.unwrap();
    let bob = cluster.user("bob", &["system:authenticated"]);
    let mut approved = until("the index follows", || async {
        cluster.ask(&bob, "GET", &format!("{path}/c"), &Value::Null).await.ok()
    })
    .await;
    approved["status"] = json!({ "conditions": [{ "type": "Approved", "status": "True", "reason": "Because" }] });
    let refused = cluster.ask(&bob, "PUT", &format!("{path}/c/approval"), &approved).await.unwrap_err();
    assert_eq!(
        refused.message,
        "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: user not permitted to approve requests with \
         signerName \"kubernetes.io/kube-apiserver-client\""
    );
    let done = cluster.ask(&admin, "PUT", &format!("{path}/c/approval"), &approved).await.unwrap();
    assert_eq!(done["status"]["conditions"][0]["type"], "Approved");
}

#[tokio::test]
async fn kubelets_get_tokens_for_their_own_pods_only() {
    let cluster = start().await;
    let admin = cluster.admin();
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    accounts.create(&PostParams::default(), &object(json!({ "metadata": { "name": "web" } }))).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(admin, "default");
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "serviceAccountName": "web", "nodeName": "a",
        "containers": [{ "name": "c", "image": "i" }] } });
    let pod = pods.create(&PostParams::default(), &object(pod)).await.unwrap();
    let ask = async |node: &str, bound: Value| {
        let kubelet = cluster.user(&format!("system:node:{node}"), &["system:nodes", "system:authenticated"]);
        let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "boundObjectRef": bound, "expirationSeconds": 3607 } });
        let path = "/api/v1/namespaces/default/serviceaccounts/web/token";
        cluster.ask(&kubelet, "POST", path, &request).await
    };
    let bound = json!({ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod.metadata.uid });
    let answer = until("the index follows", || async { ask("a", bound.clone()).await.ok() }).await;
    let token = answer["status"]["token"].as_str().unwrap();
    let who = whoami(&cluster, &cluster.with_token(token).await).await.unwrap();
    assert_eq!(who["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(who["extra"]["authentication.kubernetes.io/node-name"], json!(["a"]));
    let refused = ask("a", Value::Null).await.unwrap_err();
    assert!(refused.message.contains("node requested token not bound to a pod"), "{}", refused.message);
    let refused = ask("b", bound).await.unwrap_err();
    assert!(refused.message.contains("no relationship found between node 'b' and this object"), "{}", refused.message);
}
