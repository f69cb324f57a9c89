//! Facts in, the first cause out: the true one comes first each time.

use std::collections::BTreeMap;

use explain::{
    Cause, Claim, NamespaceFacts, NodeAnswer, NodeFacts, Placement, PodFacts, WorkloadFacts, namespace, node, pod,
    wants_logs, workload, worst,
};
use serde_json::{Value, json};

/// 2026-01-01T00:10:00Z; objects of these tests were made ten minutes before.
const NOW: i64 = 1_767_226_200;
const MADE: &str = "2026-01-01T00:00:00Z";

fn merged(mut base: Value, more: Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    base
}

fn a_pod(spec: Value, status: Value) -> Value {
    let container = json!([{"name": "app", "image": "r.example/app:1"}]);
    let spec = merged(json!({"containers": container}), spec);
    json!({"metadata": {"name": "p", "namespace": "a", "creationTimestamp": MADE}, "spec": spec, "status": status})
}

/// A pod on a node that is ready, whose container has this status.
fn running(spec: Value, container: Value) -> Value {
    let status = json!({"phase": "Running", "containerStatuses": [merged(json!({"name": "app"}), container)]});
    a_pod(merged(json!({"nodeName": "n1"}), spec), status)
}

fn event(reason: &str, message: &str) -> Value {
    json!({"reason": reason, "message": message, "count": 3, "lastTimestamp": "2026-01-01T00:09:00Z",
        "involvedObject": {"fieldPath": "spec.containers{app}"}})
}

fn a_node(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"disk": "ssd"}}, "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

fn ask(object: &Value, events: &[Value], placement: Option<&Placement>, log: &str) -> Vec<Cause> {
    let nodes = [a_node("n1", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}))];
    let logs = BTreeMap::from([("app".to_owned(), log.to_owned())]);
    pod(&PodFacts {
        pod: object,
        events,
        nodes: Some(&nodes),
        placement,
        logs: &logs,
        missing_pull_secrets: &[],
        claims: &[],
        now: NOW,
    })
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

fn ended(reason: &str, code: i64, message: &str) -> Value {
    json!({"restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"reason": reason, "exitCode": code, "message": message}}})
}

#[test]
fn containers_that_end() {
    let crash = running(json!({}), ended("Error", 3, ""));
    assert_eq!(wants_logs(&crash), [("app".to_owned(), true)]);
    check(
        &ask(&crash, &[], None, "starting\n\nno database\n"),
        "container \"app\" ends again and again (4 restarts so far): exit code 3, an error of the program",
        &["its last words: no database", "terminated: Error, exit code 3", "kubectl logs p -c app -n a --previous"],
    );
    check(
        &ask(&running(json!({}), ended("Completed", 0, "")), &[], None, ""),
        "container \"app\" ends again and again (4 restarts so far): its command ends with success, but it is to run for good",
        &["make it a Job"],
    );
    let again = |reason: &str| {
        let last = json!({"terminated": {"reason": reason, "exitCode": 3}});
        let state = json!({"running": {"startedAt": "2026-01-01T00:09:50Z"}});
        running(json!({}), json!({"ready": true, "restartCount": 1, "state": state, "lastState": last}))
    };
    check(
        &ask(&again("Error"), &[], None, ""),
        "container \"app\" ended a short while ago and runs again: exit code 3, an error of the program",
        &["--previous"],
    );
    assert_eq!(ask(&again("Unknown"), &[], None, ""), [], "its node went down under it");
    let limited = json!({"containers": [{"name": "app", "resources": {"limits": {"memory": "16Mi"}}}]});
    let mut greedy = running(limited, ended("OOMKilled", 137, ""));
    greedy["metadata"]["labels"] = json!({"pod-template-hash": "abc"});
    greedy["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web-abc", "controller": true}]);
    check(
        &ask(&greedy, &[], None, ""),
        "container \"app\" ends again and again (4 restarts so far): killed because it used more memory than its limit of 16Mi",
        &["kubectl set resources deployment/web -c app --limits=memory=32Mi -n a"],
    );
    let message = "exec: \"nonsense\": executable file not found in $PATH: unknown";
    let command = json!({"containers": [{"name": "app", "image": "i", "command": ["nonsense"]}]});
    check(
        &ask(&running(command, ended("StartError", 128, message)), &[], None, ""),
        "container \"app\" cannot start: [\"nonsense\"] is not in the image i",
        &["StartError: exec:"],
    );
    for (code, words) in [(126, "cannot be executed"), (127, "did not find"), (139, "SIGSEGV"), (143, "SIGTERM")] {
        let causes = ask(&running(json!({}), ended("Error", code, "")), &[], None, "");
        assert!(causes[0].cause.contains(words), "{code}: {}", causes[0].cause);
    }
}

#[test]
fn containers_that_are_not_made() {
    let waiting = |reason: &str, message: &str| {
        running(json!({}), json!({"state": {"waiting": {"reason": reason, "message": message}}}))
    };
    let pull = |answer: &str| {
        let message = format!("Back-off pulling image \"r.example/app:1\": ErrImagePull: {answer}");
        ask(&waiting("ImagePullBackOff", &message), &[], None, "")
    };
    check(
        &pull("manifest unknown"),
        "container \"app\": the registry r.example has no image r.example/app:1",
        &["ImagePullBackOff: Back-off pulling", "kubectl set image pod/p app=IMAGE -n a"],
    );
    check(
        &pull("dial tcp: lookup r.example: no such host"),
        "container \"app\": the registry r.example of the image r.example/app:1 is not reached from the node",
        &["tug image import"],
    );
    check(
        &pull("401 Unauthorized"),
        "container \"app\": the registry r.example does not let r.example/app:1 be pulled: it is private, or not there",
        &["imagePullSecret"],
    );
    let unmade = |message: &str| ask(&waiting("CreateContainerConfigError", message), &[], None, "");
    check(
        &unmade("configmap \"settings\" not found"),
        "container \"app\" cannot be made: the ConfigMap \"settings\" does not exist in a",
        &["kubectl create configmap settings -n a"],
    );
    check(
        &unmade("couldn't find key color in Secret a/paint"),
        "container \"app\" cannot be made: the Secret \"paint\" has no key \"color\"",
        &["kubectl edit secret paint -n a"],
    );
    let limits = json!({"containers": [{"name": "app", "resources": {"limits": {"memory": "4k"}}}], "nodeName": "n1"});
    let sandbox = event("FailedCreatePodSandBox", "mkdir /sys/fs/cgroup/memory/pod: cannot allocate memory: unknown");
    check(
        &ask(&a_pod(limits, json!({"phase": "Pending"})), &[sandbox], None, ""),
        "its memory limit of 4k is too small even for the start",
        &["event FailedCreatePodSandBox"],
    );
    let creating = waiting("ContainerCreating", "");
    let creating =
        merged(creating.clone(), json!({"status": merged(creating["status"].clone(), json!({"phase": "Pending"}))}));
    let mount = event("FailedMount", "MountVolume.SetUp failed for volume \"v\" : secret \"keys\" not found");
    check(
        &ask(&creating, &[mount], None, ""),
        "a volume cannot be mounted: the Secret \"keys\" does not exist in a",
        &["event FailedMount (x3)"],
    );
}

#[test]
fn pods_that_are_not_ready() {
    let state = json!({"ready": false, "started": true, "state": {"running": {"startedAt": MADE}}});
    let probe = json!({"containers": [{"name": "app", "readinessProbe": {"httpGet": {"path": "/up", "port": 80}}}]});
    let failure = event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404");
    check(
        &ask(&running(probe, state), &[failure], None, ""),
        "container \"app\" runs and is not ready: its readiness probe (GET /up on port 80) fails",
        &["statuscode: 404", "correct the probe's path"],
    );
    let probe = json!({"containers": [{"name": "app", "livenessProbe": {"exec": {"command": ["check"]}}}]});
    let events = [
        event("Unhealthy", "Liveness probe failed: not well"),
        event("Killing", "Container app failed liveness probe, will be restarted"),
    ];
    check(
        &ask(&running(probe, ended("Error", 137, "")), &events, None, ""),
        "container \"app\" is ended again and again by its liveness probe (the command check), which fails",
        &["not well"],
    );
    let mut initial = running(json!({"initContainers": [{"name": "first"}]}), json!({"state": {}}));
    initial["status"]["phase"] = json!("Pending");
    initial["status"]["initContainerStatuses"] = json!([merged(json!({"name": "first"}), ended("Error", 1, ""))]);
    check(
        &ask(&initial, &[], None, ""),
        "init container \"first\" ends again and again (4 restarts so far): exit code 1, a general error of the program",
        &[],
    );
    let healthy = json!({"ready": true, "started": true, "state": {"running": {"startedAt": MADE}}});
    assert_eq!(ask(&running(json!({}), healthy), &[], None, ""), []);
}

#[test]
fn pods_without_a_node() {
    let amounts = |cpu: i64| BTreeMap::from([("cpu".to_owned(), cpu)]);
    let answer = |name: &str, reason: &str, free: i64| NodeAnswer {
        name: name.to_owned(),
        reasons: if reason.is_empty() { Vec::new() } else { vec![reason.to_owned()] },
        free: amounts(free),
        allocatable: amounts(2000),
    };
    let placed = |nodes: Vec<NodeAnswer>| Placement { nodes, requests: amounts(64_000) };
    let pending = |spec: Value| a_pod(spec, json!({"phase": "Pending"}));
    let told = [event("FailedScheduling", "0/2 nodes are available")];
    let full = placed(vec![answer("n1", "Insufficient cpu", 500), answer("n2", "Insufficient cpu", 1500)]);
    check(
        &ask(&pending(json!({})), &told, Some(&full), ""),
        "it asks for cpu 64, and both nodes lack it: the largest free room is 1500m, on n2",
        &["event FailedScheduling", "n1: Insufficient cpu (500m free of 2)", "has 2 in all"],
    );
    let unmatched = placed(vec![answer("n1", "node(s) didn't match Pod's node affinity/selector", 0)]);
    check(
        &ask(&pending(json!({"nodeSelector": {"disk": "tape"}})), &[], Some(&unmatched), ""),
        "its nodeSelector disk=tape does not match the only node",
        &["n1 has disk=ssd", "kubectl label node n1 disk=tape --overwrite"],
    );
    check(
        &ask(&pending(json!({})), &[], Some(&placed(vec![answer("n1", "node(s) had untolerated taint(s)", 0)])), ""),
        "the only node keeps it out by the taint k=v:NoSchedule, which it does not tolerate",
        &["kubectl taint node n1 k:NoSchedule-"],
    );
    check(
        &ask(&pending(json!({})), &[], Some(&placed(vec![answer("n1", "node(s) were unschedulable", 0)])), ""),
        "the only node takes no new pods: cordoned (n1)",
        &["kubectl uncordon n1"],
    );
    check(&ask(&pending(json!({})), &[], Some(&placed(vec![])), ""), "the cluster has no nodes", &["tug token create"]);
    check(
        &ask(&pending(json!({"schedulerName": "mine"})), &[], Some(&placed(vec![answer("n1", "", 0)])), ""),
        "it waits for the scheduler \"mine\", which did not place it in 10m",
        &[],
    );
    check(
        &ask(&pending(json!({"schedulingGates": [{"name": "example.com/hold"}]})), &[], None, ""),
        "it waits for its scheduling gate example.com/hold to be removed",
        &["kubectl patch pod p -n a"],
    );
    let mut cordoned = placed(vec![answer("n1", "node(s) were unschedulable", 0)]);
    cordoned.nodes[0].reasons.push("node(s) had untolerated taint(s)".to_owned());
    let tolerant = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    let causes = ask(&pending(tolerant), &[], Some(&cordoned), "");
    check(&causes, "the only node takes no new pods: cordoned (n1)", &[]);
    assert_eq!(causes.len(), 1, "the taint of a cordon is not told again: {causes:?}");
    let for_others = "node(s) had untolerated taint(s)";
    let meant = placed(vec![
        answer("n0", "node(s) didn't match Pod's node affinity/selector", 90_000),
        answer("n1", for_others, 90_000),
        answer("n3", "Insufficient cpu", 1500),
    ]);
    check(
        &ask(&pending(json!({"nodeSelector": {"disk": "ssd"}})), &[], Some(&meant), ""),
        "it asks for cpu 64, and 1 of 3 nodes lacks it: the largest free room is 1500m, on n3",
        &["n1: node(s) had untolerated taint(s)"],
    );
    let unscheduled =
        json!({"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Too many pods."});
    check(
        &ask(&a_pod(json!({}), json!({"phase": "Pending", "conditions": [unscheduled]})), &[], None, ""),
        "no node takes it: 0/3 nodes are available: 3 Too many pods.",
        &[],
    );
    let lost = [Claim { name: "data".to_owned(), ..Claim::default() }];
    let (object, logs) = (pending(json!({})), BTreeMap::new());
    let facts = PodFacts {
        pod: &object,
        events: &[],
        nodes: Some(&[]),
        placement: None,
        logs: &logs,
        missing_pull_secrets: &[],
        claims: &lost,
        now: NOW,
    };
    check(&pod(&facts), "its PersistentVolumeClaim \"data\" does not exist in a", &[]);
}

#[test]
fn what_was_evicted_or_does_not_go() {
    let message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. ";
    let evicted = a_pod(json!({"nodeName": "n1"}), json!({"phase": "Failed", "reason": "Evicted", "message": message}));
    check(&ask(&evicted, &[], None, ""), "its node n1 evicted it: the node was short of memory", &["tug why node n1"]);
    let message = "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". ";
    let evicted = a_pod(json!({"nodeName": "n1"}), json!({"phase": "Failed", "reason": "Evicted", "message": message}));
    check(
        &ask(&evicted, &[], None, ""),
        "its node n1 evicted it: Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\"",
        &["raise the sizeLimit"],
    );
    let mut held = a_pod(json!({}), json!({"phase": "Pending"}));
    held["metadata"]["deletionTimestamp"] = json!(MADE);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    check(
        &ask(&held, &[], None, ""),
        "it was deleted and is kept by the finalizer example.com/hold, which the controller of example.com removes",
        &["kubectl patch pod p -n a --type=merge"],
    );
    let message = "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
    let condition = json!({"type": "NamespaceFinalizersRemaining", "status": "True", "message": message});
    let left = "Some resources are remaining: configmaps. has 1 resource instances, widgets.example.com has 2 resource instances";
    let remaining = json!({"type": "NamespaceContentRemaining", "status": "True", "message": left});
    let failure = json!({"type": "NamespaceDeletionContentFailure", "status": "True",
        "message": "Failed to delete all resource types, 1 remaining: unexpected items still remain in namespace: a"});
    let conditions = [condition, remaining, failure];
    let object = json!({"metadata": {"name": "a", "deletionTimestamp": MADE}, "status": {"conditions": conditions}});
    let all = namespace(&NamespaceFacts { namespace: &object, troubles: &[] });
    assert_eq!(all.len(), 1, "that something is left is told once: {all:?}");
    check(
        &all,
        "it was deleted, and what is left in it is kept by the finalizer example.com/hold, which the controller of \
         example.com removes",
        &["NamespaceFinalizersRemaining=True", "kubectl get configmaps,widgets.example.com -n a -o yaml"],
    );
}

#[test]
fn workloads_tell_of_their_pods_and_of_denials() {
    let of_pod = [Cause::new("container \"app\" ends", "mend it")];
    let failed = json!({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"});
    let job = json!({"metadata": {"name": "j", "namespace": "a"}, "spec": {"backoffLimit": 0},
        "status": {"failed": 1, "conditions": [failed]}});
    let pods = [a_pod(json!({}), json!({"phase": "Failed"}))];
    let facts = WorkloadFacts {
        kind: "Job",
        object: &job,
        events: &[],
        replica_set: None,
        pods: &pods,
        worst: Some(("j-1", &of_pod)),
        now: NOW,
    };
    let causes = workload(&facts);
    check(&causes, "pod j-1: container \"app\" ends", &[]);
    assert_eq!(causes[1].cause, "the Job gave up after 1 failed pod: its backoffLimit is 0");

    let message =
        "pods \"web-1-\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2";
    let condition = json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message});
    let web = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": {"replicas": 3},
        "status": {"readyReplicas": 2, "conditions": [condition]}});
    let facts = WorkloadFacts { kind: "Deployment", object: &web, worst: None, ..facts };
    check(
        &workload(&facts),
        "the quota \"small\" of a denies more pods: requested: pods=1, used: pods=2, limited: pods=2",
        &["kubectl describe quota small -n a"],
    );
    for (said, told) in [
        (
            "maximum memory usage per Container is 64Mi, but limit is 1Gi",
            "a LimitRange of a denies its pods: maximum memory usage per Container is 64Mi, but limit is 1Gi",
        ),
        (
            "ValidatingAdmissionPolicy 'team' with binding 'b' denied request: every pod names its team",
            "the ValidatingAdmissionPolicy team denies its pods: every pod names its team",
        ),
        (
            "violates PodSecurity \"restricted:latest\": privileged (c)",
            "the Pod Security Standard of a denies its pods: \"restricted:latest\": privileged (c)",
        ),
    ] {
        let message = format!("pods \"web-1-x\" is forbidden: {said}");
        let condition = json!({"type": "ReplicaFailure", "status": "True", "message": message});
        let web = json!({"metadata": {"name": "web", "namespace": "a"}, "status": {"conditions": [condition]}});
        check(&workload(&WorkloadFacts { object: &web, ..facts }), told, &[]);
    }
    let (good, bad) = (
        json!({"phase": "Pending"}),
        json!({"phase": "Running", "containerStatuses": [
        {"name": "app", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
    );
    let pods = [a_pod(json!({}), good), a_pod(json!({}), bad.clone())];
    assert_eq!(worst(&pods, NOW).map(|pod| &pod["status"]), Some(&bad));
}

#[test]
fn nodes() {
    let ask = |object: &Value, renewed: &str| {
        let lease = json!({"spec": {"renewTime": renewed}});
        node(&NodeFacts { node: object, lease: Some(&lease), now: NOW })
    };
    let fresh = "2026-01-01T00:09:55.000000Z";
    assert_eq!(ask(&a_node("n1", json!({})), fresh), []);
    check(
        &ask(&a_node("n1", json!({"unschedulable": true})), fresh),
        "it is cordoned: it keeps its pods and takes no new ones",
        &["kubectl uncordon n1"],
    );
    let mut silent = a_node("n1", json!({}));
    silent["status"]["conditions"][0]["status"] = json!("Unknown");
    check(
        &ask(&silent, "2026-01-01T00:05:00.000000Z"),
        "nothing is heard of it for 5m: the machine, its agent or the network between (address unknown) is down",
        &["its lease was renewed 5m ago"],
    );
}
