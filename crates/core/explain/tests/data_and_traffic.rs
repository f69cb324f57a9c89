//! Claims, Services and Ingresses: facts in, the first cause out.

use explain::{
    Attempt, Backend, Caller, Cause, Certificate, ClaimFacts, IngressFacts, ServiceFacts, backend_names,
    certificate_names, claim, claim_state, ingress, ingress_state, makes_pods_of, service, service_alone,
    wants_attempts,
};
use serde_json::{Value, json};

/// 2026-01-01T00:10:00Z; objects of these tests were made ten minutes before.
const NOW: i64 = 1_767_226_200;
const MADE: &str = "2026-01-01T00:00:00Z";

fn meta(name: &str, more: Value) -> Value {
    let mut meta = json!({"name": name, "namespace": "a", "creationTimestamp": MADE});
    for (key, value) in more.as_object().into_iter().flatten() {
        meta[key] = value.clone();
    }
    meta
}

fn event(reason: &str, message: &str) -> Value {
    json!({"type": "Warning", "reason": reason, "message": message, "lastTimestamp": "2026-01-01T00:09:00Z"})
}

#[track_caller]
fn check(causes: &[Cause], first: &str, rest: &[&str]) {
    let cause = causes.first().expect("something stands in the way");
    assert_eq!(cause.cause, first);
    let all =
        format!("{}\n{}\n{}", cause.evidence.join("\n"), cause.help, cause.command.as_deref().unwrap_or_default());
    for words in rest {
        assert!(all.contains(words), "{words:?} is not in:\n{all}");
    }
}

fn a_claim(spec: Value, phase: &str) -> Value {
    let mut whole = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"metadata": meta("data", json!({})), "spec": whole, "status": {"phase": phase}})
}

fn a_volume(name: &str, spec: Value, phase: &str) -> Value {
    let mut whole = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": whole, "status": {"phase": phase}})
}

fn a_class(name: &str, provisioner: &str, late: bool) -> Value {
    let mode = if late { "WaitForFirstConsumer" } else { "Immediate" };
    json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode})
}

struct Storage {
    claim: Value,
    events: Vec<Value>,
    classes: Vec<Value>,
    volumes: Vec<Value>,
    pods: Vec<Value>,
}

impl Storage {
    fn of(claim: Value) -> Self {
        let classes =
            vec![a_class("local", "tug.local/disk", true), a_class("shelf", "kubernetes.io/no-provisioner", false)];
        Self { claim, events: Vec::new(), classes, volumes: Vec::new(), pods: Vec::new() }
    }

    fn ask(&self) -> Vec<Cause> {
        claim(&ClaimFacts {
            claim: &self.claim,
            events: &self.events,
            classes: Some(&self.classes),
            volumes: Some(&self.volumes),
            pods: &self.pods,
            waiting: None,
            for_pod: false,
            now: NOW,
        })
    }
}

fn user(spec: Value) -> Value {
    let mut whole = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"metadata": meta("db-0", json!({})), "spec": whole, "status": {"phase": "Pending"}})
}

#[test]
fn claims_that_do_not_bind() {
    let named = |class: &str| Storage::of(a_claim(json!({"storageClassName": class}), "Pending"));
    check(
        &named("fast").ask(),
        "its storage class \"fast\" does not exist",
        &["there are: local, shelf", "kubectl get storageclass"],
    );
    check(
        &named("local").ask(),
        "no pod uses it, and its storage class local waits for the first pod that uses it",
        &["until then nothing is wrong"],
    );
    let waiting = Storage { pods: vec![user(json!({}))], ..named("local") };
    check(
        &waiting.ask(),
        "its storage class local waits for the first pod that uses it, and pod db-0 has no node yet",
        &["tug why pod db-0 -n a"],
    );
    let bypassing = Storage { pods: vec![user(json!({"nodeName": "n1"}))], ..named("local") };
    check(
        &bypassing.ask(),
        "pod db-0 names its node itself, so that no scheduler chooses where the volume is made; its storage class local \
         waits for the first pod that uses it",
        &["nodeSelector instead of nodeName"],
    );
    let mut chosen = named("local");
    chosen.claim["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "n1"});
    check(
        &chosen.ask(),
        "nothing was heard of tug.local/disk, which makes the volumes of its storage class local",
        &["see whether that provisioner runs"],
    );
    chosen.events =
        vec![event("ProvisioningFailed", "failed to provision volume with StorageClass \"local\": disk is full")];
    check(&chosen.ask(), "tug.local/disk could not make a volume: disk is full", &["event ProvisioningFailed"]);
    check(
        &Storage::of(a_claim(json!({}), "Pending")).ask(),
        "there is no volume for its 5Gi: it names no storage class, and none is the default",
        &["mark one as the default"],
    );
}

#[test]
fn claims_and_the_volumes_there_are() {
    let small = a_volume("small", json!({"storageClassName": "shelf", "capacity": {"storage": "1Gi"}}), "Available");
    let used = a_volume(
        "used",
        json!({"storageClassName": "shelf", "claimRef": {"namespace": "a", "name": "old"}, "accessModes": ["ReadOnlyMany"]}),
        "Released",
    );
    let shelf = || Storage::of(a_claim(json!({"storageClassName": "shelf"}), "Pending"));
    let nobody = event("ProvisioningFailed", "no volume plugin matched name: kubernetes.io/no-provisioner");
    check(
        &Storage { volumes: vec![used.clone(), small], events: vec![nobody], ..shelf() }.ask(),
        "no volume fits, and its class makes no volumes by itself; the nearest, small, does not because it has 1Gi of the \
         5Gi that are asked for",
        &["kubectl describe pv small"],
    );
    check(
        &Storage { volumes: vec![used], ..shelf() }.ask(),
        "no volume fits, and its class makes no volumes by itself; the nearest, used, does not because it still holds the \
         data of a/old (Released); it is ReadOnlyMany, not ReadWriteOnce",
        &[],
    );
    let picky =
        json!({"storageClassName": "shelf", "volumeName": "block", "selector": {"matchLabels": {"disk": "ssd"}}});
    let block = a_volume("block", json!({"storageClassName": "shelf", "volumeMode": "Block"}), "Available");
    check(
        &Storage { volumes: vec![block], ..Storage::of(a_claim(picky.clone(), "Pending")) }.ask(),
        "the volume block that it names does not fit: it is of mode Block, not Filesystem; its labels are not disk=ssd",
        &[],
    );
    check(
        &Storage::of(a_claim(picky, "Pending")).ask(),
        "the volume \"block\" that it names does not exist",
        &["without volumeName"],
    );
    check(
        &Storage::of(a_claim(json!({"volumeName": "gone"}), "Lost")).ask(),
        "its volume gone is gone, and what was on it with it",
        &[],
    );
}

#[test]
fn claims_that_grow_or_go() {
    let mut bound = Storage::of(a_claim(json!({"storageClassName": "local", "volumeName": "v"}), "Bound"));
    bound.claim["status"]["capacity"] = json!({"storage": "5Gi"});
    assert_eq!(bound.ask(), []);
    assert_eq!(claim_state(&bound.claim), "Bound, 5Gi of class local, volume v");
    bound.claim["status"]["capacity"] = json!({"storage": "1Gi"});
    bound.events = vec![event("VolumeResizeFailed", "no space left")];
    check(&bound.ask(), "it is to grow from 1Gi to 5Gi, and that failed: no space left", &[]);
    let mut going = bound;
    going.claim["metadata"]["deletionTimestamp"] = json!(MADE);
    going.claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
    going.pods = vec![user(json!({}))];
    check(
        &going.ask(),
        "it was deleted and is kept until no pod uses it: db-0",
        &["kubectl delete pod db-0 -n a", "kubernetes.io/pvc-protection"],
    );
}

fn a_service(spec: Value) -> Value {
    let mut whole = json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}]});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"metadata": meta("web", json!({})), "spec": whole})
}

fn a_pod(name: &str, app: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({"metadata": meta(name, json!({"labels": {"app": app}})),
        "spec": {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": MADE}]}})
}

#[test]
fn claims_of_those_who_may_not_see_classes() {
    let claim_object = a_claim(json!({"storageClassName": "local"}), "Pending");
    let facts = ClaimFacts {
        claim: &claim_object,
        events: &[],
        classes: None,
        volumes: None,
        pods: &[],
        waiting: None,
        for_pod: false,
        now: NOW,
    };
    check(&claim(&facts), "no volume is bound to it yet", &["may see storage classes"]);
    let told = [event("FailedBinding", "no persistent volumes available")];
    check(&claim(&ClaimFacts { events: &told, ..facts }), "it is not bound: no persistent volumes available", &[]);
}

struct Traffic {
    service: Value,
    slices: Vec<Value>,
    pods: Vec<Value>,
    policies: Vec<Value>,
    attempts: Vec<Attempt>,
    caller: Option<Caller>,
    worst: Vec<Cause>,
    maker: Option<Vec<Cause>>,
}

impl Traffic {
    fn of(service: Value, pods: Vec<Value>) -> Self {
        let endpoint = json!({"conditions": {"ready": true}, "nodeName": "n1"});
        let slices = vec![json!({"endpoints": [endpoint]})];
        Self { service, slices, pods, policies: vec![], attempts: vec![], caller: None, worst: vec![], maker: None }
    }

    fn with<T>(&self, ask: impl Fn(&ServiceFacts<'_>) -> T) -> T {
        let nodes = ["n1".to_owned(), "n2".to_owned()];
        ask(&ServiceFacts {
            service: &self.service,
            events: &[],
            slices: &self.slices,
            pods: &self.pods,
            worst: (!self.worst.is_empty()).then_some(("web-1", &self.worst)),
            maker: self.maker.as_deref().map(|causes| ("deployment web", causes)),
            policies: &self.policies,
            attempts: &self.attempts,
            caller: self.caller.as_ref(),
            nodes: Some(&nodes),
            now: NOW,
        })
    }

    fn ask(&self) -> Vec<Cause> {
        self.with(service)
    }
}

#[test]
fn services_without_endpoints() {
    let nobody = |pods: Vec<Value>| Traffic { slices: vec![], ..Traffic::of(a_service(json!({})), pods) };
    check(
        &nobody(vec![a_pod("web-1", "wbe", true), a_pod("db-1", "db", true), a_pod("x", "xyz", true)]).ask(),
        "its selector app=web matches no pod of a; the nearest, pod web-1, has app=wbe",
        &["kubectl patch service web -n a -p '{\"spec\":{\"selector\":{\"app\":\"wbe\"}}}'"],
    );
    check(&nobody(vec![]).ask(), "its selector app=web matches no pod of a, which has no running pods at all", &[]);
    let mut ended = a_pod("web-1", "web", false);
    ended["status"]["phase"] = json!("Succeeded");
    check(&nobody(vec![ended]).ask(), "all pods that its selector app=web chooses are finished, web-1 for one", &[]);
    let mut unready = nobody(vec![a_pod("web-1", "web", false)]);
    check(&unready.ask(), "none of its pods is ready", &["0 of 1 pods are ready", "tug why pod web-1 -n a"]);
    unready.worst = vec![Cause::new("its image does not come", "mend it")];
    check(&unready.ask(), "pod web-1: its image does not come", &["0 of 1 pods are ready"]);
    assert_eq!(unready.with(service_alone), [], "the pod tells it");
    let mut unmade = nobody(vec![]);
    unmade.maker = Some(vec![Cause::new("it is to have no pods", "scale it up")]);
    check(&unmade.ask(), "deployment web: it is to have no pods", &["no pod has app=web"]);
    assert_eq!(unmade.with(service_alone), [], "the deployment tells it");
    let template = json!({"spec": {"template": {"metadata": {"labels": {"app": "web", "tier": "front"}}}}});
    assert!(makes_pods_of(&template, &unmade.service) && !makes_pods_of(&json!({}), &unmade.service));
    let no_selector = Traffic { slices: vec![], ..Traffic::of(a_service(json!({"selector": {}})), vec![]) };
    check(&no_selector.ask(), "it has no selector, and nobody made an EndpointSlice with endpoints for it", &[]);
    let forgotten = nobody(vec![a_pod("web-1", "web", true)]);
    check(&forgotten.ask(), "1 of its pods are ready, and its EndpointSlices list none", &[]);
    let outside = Traffic::of(a_service(json!({"type": "ExternalName", "externalName": "192.0.2.1"})), vec![]);
    check(
        &outside.ask(),
        "its externalName 192.0.2.1 is an address, and is looked up as a name, which does not exist",
        &[],
    );
}

#[test]
fn services_whose_ports_lead_nowhere() {
    let pods = || vec![a_pod("web-1", "web", true)];
    let healthy = Traffic::of(a_service(json!({})), pods());
    assert_eq!(healthy.ask(), []);
    assert_eq!(healthy.with(|facts| facts.state()), "ClusterIP 10.96.0.9, 1 of 1 endpoints ready");
    assert_eq!(wants_attempts(&healthy.service, &healthy.pods), [("web-1".to_owned(), 8080)]);
    let named = Traffic::of(a_service(json!({"ports": [{"port": 80, "targetPort": "web"}]})), pods());
    check(
        &named.ask(),
        "its port 80 goes to the pods' port \"web\", and no container has a port of that name",
        &["pod web-1 names http (8080)"],
    );
    let mut deaf = Traffic::of(a_service(json!({"ports": [{"name": "http", "port": 80}]})), pods());
    deaf.attempts = vec![Attempt { pod: "web-1".to_owned(), port: 80, listening: false }];
    check(
        &deaf.ask(),
        "its port http goes to port 80 of its pods, and nobody listens there",
        &["connection refused", "declare http (8080)", "correct targetPort"],
    );
}

#[test]
fn services_behind_policies() {
    let policy = |name: &str, ingress: Value| json!({"metadata": meta(name, json!({})), "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress}});
    let mut closed = Traffic::of(a_service(json!({})), vec![a_pod("web-1", "web", true)]);
    closed.policies = vec![policy("deny", json!([]))];
    check(
        &closed.ask(),
        "the NetworkPolicy deny lets nobody reach port 8080 of its pods",
        &["kubectl describe networkpolicy deny -n a"],
    );
    closed.policies.push(policy("front", json!([{"from": [{"podSelector": {"matchLabels": {"app": "front"}}}]}])));
    assert_eq!(closed.ask(), []);
    assert_eq!(
        closed.with(|facts| facts.state()),
        "ClusterIP 10.96.0.9, 1 of 1 endpoints ready; the NetworkPolicy front lets in only pods with app=front of this namespace"
    );
    let of = |policies: &[&str]| vec![("web-1".to_owned(), policies.iter().map(|p| (*p).to_owned()).collect())];
    let caller = Caller { name: "pod client".to_owned(), kept_in: vec![], kept_out: of(&["a/deny", "a/front"]) };
    closed.caller = Some(caller.clone());
    check(
        &closed.ask(),
        "the NetworkPolicies a/deny, a/front do not admit pod client to pod web-1",
        &["add an ingress rule", "kubectl describe networkpolicy deny -n a"],
    );
    closed.caller = Some(Caller { kept_in: of(&["b/jail"]), kept_out: vec![], ..caller });
    check(
        &closed.ask(),
        "the NetworkPolicy b/jail does not let pod client out to pod web-1",
        &["kubectl describe networkpolicy jail -n b"],
    );
}

#[test]
fn services_that_answer_only_some() {
    let pods = vec![a_pod("web-1", "web", true)];
    let local = Traffic::of(a_service(json!({"internalTrafficPolicy": "Local"})), pods.clone());
    check(
        &local.ask(),
        "callers on n2 get no answer: its internalTrafficPolicy is Local, and no pod of it is there",
        &["its endpoints are on n1"],
    );
    let outside = Traffic::of(a_service(json!({"type": "LoadBalancer"})), pods.clone());
    check(&outside.ask(), "nobody has given it an address from outside", &["node ports work"]);
    let class = json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"});
    check(
        &Traffic::of(a_service(class), pods).ask(),
        "nobody answers for its loadBalancerClass example.com/lb, so that it has no address from outside",
        &[],
    );
}

fn an_ingress(spec: Value) -> Value {
    let path =
        json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}});
    let mut whole = json!({"ingressClassName": "tug", "rules": [{"host": "shop.example", "http": {"paths": [path]}}]});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"metadata": meta("shop", json!({})), "spec": whole,
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}})
}

#[test]
fn ingresses() {
    let service = a_service(json!({}));
    let class = json!({"metadata": {"name": "tug"}, "spec": {"controller": "tug.local/ingress"}});
    let ask_with =
        |object: &Value, backend: Option<&Value>, causes: &[Cause], certificates: &[(String, Certificate)]| {
            ingress(&IngressFacts {
                ingress: object,
                events: &[],
                classes: Some(std::slice::from_ref(&class)),
                backends: &[Backend { name: "web", service: backend, causes }],
                certificates,
                now: NOW,
            })
        };
    let ask = |spec: Value| ask_with(&an_ingress(spec), Some(&service), &[], &[]);
    assert_eq!(ask(json!({})), []);
    assert_eq!(ingress_state(&an_ingress(json!({}))), "class tug, shop.example, at 192.0.2.7");
    check(
        &ask(json!({"ingressClassName": null})),
        "it names no IngressClass, and none is the default: nobody serves it",
        &["there are: tug", "kubectl patch ingress shop -n a -p '{\"spec\":{\"ingressClassName\":\"tug\"}}'"],
    );
    check(
        &ask(json!({"ingressClassName": "nginx"})),
        "its IngressClass \"nginx\" does not exist: nobody serves it",
        &[],
    );
    check(
        &ask_with(&an_ingress(json!({})), None, &[], &[]),
        "shop.example/ goes to the Service \"web\", which does not exist in a",
        &["kubectl edit ingress shop -n a"],
    );
    let port = json!({"rules": [], "defaultBackend": {"service": {"name": "web", "port": {"name": "https"}}}});
    check(
        &ask(port.clone()),
        "its default backend goes to port \"https\" of the Service web, which has no such port",
        &["service web has port 80"],
    );
    assert_eq!(backend_names(&an_ingress(port)), ["web"]);
    check(
        &ask_with(&an_ingress(json!({})), Some(&service), &[Cause::new("none of its pods is ready", "wait")], &[]),
        "service web: none of its pods is ready",
        &["for shop.example/"],
    );
    let tls = an_ingress(json!({"tls": [{"hosts": ["shop.example"], "secretName": "shop-tls"}]}));
    assert_eq!(certificate_names(&tls), [("shop-tls".to_owned(), vec!["shop.example".to_owned()])]);
    let with = |state: Certificate| ask_with(&tls, Some(&service), &[], &[("shop-tls".to_owned(), state)]);
    check(
        &with(Certificate::Missing),
        "HTTPS for shop.example: the Secret \"shop-tls\" with its certificate does not exist in a",
        &["kubectl create secret tls shop-tls -n a"],
    );
    check(
        &with(Certificate::Bad("holds a key that does not belong to its certificate".to_owned())),
        "HTTPS for shop.example: the Secret \"shop-tls\" holds a key that does not belong to its certificate",
        &[],
    );
    let other =
        Certificate::OtherHosts { hosts: vec!["shop.example".to_owned()], names: vec!["example.org".to_owned()] };
    check(
        &with(other),
        "HTTPS for shop.example: the Secret \"shop-tls\" is a certificate for example.org, not for shop.example",
        &[],
    );
    assert_eq!(with(Certificate::Good), []);
    let mut unserved = an_ingress(json!({}));
    unserved["status"] = json!({});
    check(
        &ask_with(&unserved, Some(&service), &[], &[]),
        "nobody has given it an address: tug.local/ingress, which serves its class, was not heard of",
        &[],
    );
}
