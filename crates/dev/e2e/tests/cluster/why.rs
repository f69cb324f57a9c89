//! `tug why`: three dozen objects at once, most of them broken, and the true cause first for each.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::{BUSYBOX, Cluster, Scope, contains};
use serde_json::Value;

/// Until the last of the manifests has broken in its way and is explained.
const ALL_WITHIN: Duration = Duration::from_secs(60);
const WORKERS: usize = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A manifest and what is to be said of it first.
struct Case {
    asked: &'static [&'static str],
    /// In the first cause.
    cause: String,
    /// In what shows it, or helps.
    besides: &'static [&'static str],
}

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent, resources: {requests: {cpu: 640}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: choosy}
spec:
  nodeSelector: {disk: tape}
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Pod
metadata: {name: kept-out}
spec:
  nodeSelector: {kubernetes.io/hostname: NODE2}
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Pod
metadata: {name: no-image}
spec:
  nodeName: NODE1
  containers: [{name: app, image: "REGISTRY/shop/nonsense:1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: private-image}
spec:
  nodeName: NODE1
  containers: [{name: app, image: "REGISTRY/private/app:1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: no-command}
spec:
  nodeName: NODE1
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent, command: [/nonsense]}]
---
apiVersion: v1
kind: Pod
metadata: {name: tiny}
spec:
  nodeName: NODE1
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent, resources: {limits: {memory: 4k}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hungry}
spec:
  selector: {matchLabels: {app: hungry}}
  template:
    metadata: {labels: {app: hungry}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: app
        image: BUSYBOX
        imagePullPolicy: IfNotPresent
        command: [/bin/busybox, tail, /dev/zero]
        resources: {limits: {memory: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: crashing}
spec:
  containers:
  - name: app
    image: BUSYBOX
    imagePullPolicy: IfNotPresent
    command: [/bin/busybox, sh, -c, "echo starting; echo no database at db:5432 >&2; exit 3"]
---
apiVersion: v1
kind: Pod
metadata: {name: first-step}
spec:
  initContainers:
  - {name: migrate, image: BUSYBOX, imagePullPolicy: IfNotPresent, command: [/bin/busybox, sh, -c, "echo table exists; exit 1"]}
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Pod
metadata: {name: unready}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: tug.local/demo:latest
    imagePullPolicy: IfNotPresent
    readinessProbe: {httpGet: {path: /status/503, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: unwell}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: tug.local/demo:latest
    imagePullPolicy: IfNotPresent
    livenessProbe: {tcpSocket: {port: 9999}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: no-settings}
spec:
  containers:
  - name: app
    image: tug.local/demo:latest
    imagePullPolicy: IfNotPresent
    envFrom: [{configMapRef: {name: settings}}]
---
apiVersion: v1
kind: Pod
metadata: {name: no-keys}
spec:
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent}]
  volumes: [{name: keys, secret: {secretName: keys}}]
---
apiVersion: v1
kind: Pod
metadata: {name: full}
spec:
  nodeName: NODE1
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: BUSYBOX
    imagePullPolicy: IfNotPresent
    command: [/bin/busybox, sh, -c, "/bin/busybox head -c 8000000 /dev/zero > /data/file; /bin/busybox sleep 1000"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {sizeLimit: 1Mi}}]
---
apiVersion: v1
kind: Pod
metadata: {name: held, finalizers: [example.com/hold]}
spec:
  terminationGracePeriodSeconds: 0
  nodeSelector: {disk: tape}
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: backup}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: app, image: BUSYBOX, imagePullPolicy: IfNotPresent, command: [/bin/busybox, sh, -c, "echo disk is full; exit 2"]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: healthy}
spec:
  selector: {matchLabels: {app: healthy}}
  template:
    metadata: {labels: {app: healthy}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent}]
"#;

/// What belongs to namespaces of its own, or to none.
const ELSEWHERE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: kept, namespace: why-ending, finalizers: [example.com/hold]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: small, namespace: why-denied}
spec: {hard: {requests.cpu: 100m}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: sizes, namespace: why-denied}
spec: {limits: [{type: Container, max: {memory: 64Mi}, defaultRequest: {cpu: 1m}}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: e2e-why-team}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations: [{expression: "!has(object.metadata.labels) || !('refuse' in object.metadata.labels)", message: every pod names its team}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: e2e-why-team}
spec:
  policyName: e2e-why-team
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: why-denied}}}
"#;

const DATA_AND_TRAFFIC: &str = r#"
---
apiVersion: v1
kind: Pod
metadata: {name: no-claim}
spec:
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: nowhere}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: no-class}
spec: {storageClassName: e2e-fast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: e2e-why-shelf}
provisioner: kubernetes.io/no-provisioner
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: e2e-why-small}
spec:
  storageClassName: e2e-why-shelf
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  hostPath: {path: /tmp}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: large}
spec: {storageClassName: e2e-why-shelf, accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: misspelt}
spec: {selector: {app: helthy}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: hungry}
spec: {selector: {app: hungry}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: deaf}
spec: {selector: {app: healthy}, ports: [{name: web, port: 80, targetPort: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: misnamed}
spec: {selector: {app: healthy}, ports: [{port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: good}
spec: {selector: {app: healthy}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: closed, labels: {app: closed}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: tug.local/demo:latest, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Service
metadata: {name: closed}
spec: {selector: {app: closed}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-metrics}
spec: {podSelector: {matchLabels: {app: closed}}, ingress: [{ports: [{port: 9090}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-front}
spec:
  podSelector: {matchLabels: {app: healthy}}
  ingress: [{from: [{podSelector: {matchLabels: {app: front}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: e2e-why}
spec: {controller: example.com/nobody}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: no-class}
spec: {ingressClassName: e2e-nonsense, defaultBackend: {service: {name: good, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: no-backend}
spec: {ingressClassName: e2e-why, defaultBackend: {service: {name: nobody, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: no-certificate}
spec:
  ingressClassName: e2e-why
  tls: [{hosts: [shop.example], secretName: shop-tls}]
  rules: [{host: shop.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: good, port: {number: 80}}}}]}}]
"#;

/// A Deployment whose pods the API server refuses.
fn denied(name: &str, labels: &str, container: &str) -> String {
    let place = if name == "insecure" { "why-strict" } else { "why-denied" };
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {place}}}\nspec:\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}{labels}}}}}\n    \
         spec: {{containers: [{{name: app, image: 'tug.local/demo:latest', imagePullPolicy: IfNotPresent{container}}}]}}\n"
    )
}

fn elsewhere() -> String {
    let all = [
        ELSEWHERE.to_owned(),
        denied("over-quota", "", ", resources: {requests: {cpu: 200m}}"),
        denied("too-large", "", ", resources: {limits: {memory: 1Gi}}"),
        denied("without-team", ", refuse: me", ""),
        denied("insecure", "", ", securityContext: {privileged: true}"),
    ];
    all.concat()
}

fn manifest(cluster: &Cluster, registry: SocketAddr) -> String {
    [MANIFEST, DATA_AND_TRAFFIC]
        .concat()
        .replace("NODE1", &cluster.node(1))
        .replace("NODE2", &cluster.node(2))
        .replace("REGISTRY", &format!("localhost:{}", registry.port()))
        .replace("BUSYBOX", BUSYBOX)
}

fn cases(registry: SocketAddr) -> Vec<Case> {
    let case = |asked, cause: &str, besides| Case { asked, cause: cause.to_owned(), besides };
    let registry = format!("localhost:{}", registry.port());
    vec![
        case(&["pod", "greedy"], "it asks for cpu 640, and all 3 nodes lack it", &["FailedScheduling"]),
        case(&["pod", "choosy"], "its nodeSelector disk=tape does not match all 3 nodes", &["kubectl label node"]),
        case(
            &["pod", "kept-out"],
            "1 of 3 nodes keeps it out by the taint e2e=why:NoSchedule",
            &["kubectl taint node"],
        ),
        case(
            &["pod", "no-image"],
            &format!("the registry {registry} has no image {registry}/shop/nonsense:1"),
            &["kubectl set image"],
        ),
        case(
            &["pod", "private-image"],
            &format!("the registry {registry} does not let {registry}/private/app:1 be pulled"),
            &["imagePullSecret"],
        ),
        case(&["pod", "no-command"], "cannot start: [\"/nonsense\"] is not in the image", &[]),
        case(&["pod", "tiny"], "its memory limit of 4k is too small even for the start", &[]),
        case(
            &["deployment", "hungry"],
            "killed because it used more memory than its limit of 16Mi",
            &["kubectl set resources deployment/hungry -c app --limits=memory=32Mi"],
        ),
        case(
            &["pod", "crashing"],
            "ends again and again",
            &["its last words: no database at db:5432", "exit code 3", "--previous"],
        ),
        case(&["pod", "first-step"], "init container \"migrate\" ends again and again", &["table exists"]),
        case(&["pod", "unready"], "its readiness probe (GET /status/503 on port 8080) fails", &["statuscode: 503"]),
        case(&["pod", "unwell"], "is ended again and again by its liveness probe", &["connection refused"]),
        case(
            &["pod", "no-settings"],
            "the ConfigMap \"settings\" does not exist in why",
            &["kubectl create configmap settings -n why"],
        ),
        case(
            &["pod", "no-keys"],
            "a volume cannot be mounted: the Secret \"keys\" does not exist in why",
            &["kubectl create secret generic keys -n why"],
        ),
        case(&["pod", "full"], "evicted it: Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\"", &[]),
        case(
            &["pod", "held"],
            "kept by the finalizer example.com/hold, which the controller of example.com removes",
            &["kubectl patch pod held -n why"],
        ),
        case(&["job", "backup"], "container \"app\" ended: exit code 2", &["its last words: disk is full"]),
        case(
            &["namespace", "why-ending"],
            "what is left in it is kept by the finalizer example.com/hold",
            &["kubectl get configmaps -n why-ending"],
        ),
        case(
            &["deployment", "over-quota", "-n", "why-denied"],
            "the quota \"small\" of why-denied denies more pods",
            &["kubectl describe quota small"],
        ),
        case(
            &["deployment", "too-large", "-n", "why-denied"],
            "a LimitRange of why-denied denies its pods",
            &["kubectl describe limitrange"],
        ),
        case(
            &["deployment", "without-team", "-n", "why-denied"],
            "the ValidatingAdmissionPolicy e2e-why-team denies its pods: every pod names its team",
            &[],
        ),
        case(
            &["deployment", "insecure", "-n", "why-strict"],
            "the Pod Security Standard of why-strict denies its pods",
            &["privileged"],
        ),
        Case { asked: &["node", "NODE3"], cause: "it is cordoned".to_owned(), besides: &["kubectl uncordon"] },
        case(&["deployment", "healthy"], "", &["nothing stands in the way"]),
    ]
}

fn cases_of_data_and_traffic() -> Vec<Case> {
    let case = |asked, cause: &str, besides| Case { asked, cause: cause.to_owned(), besides };
    vec![
        case(&["pod", "no-claim"], "its PersistentVolumeClaim \"nowhere\" does not exist in why", &["kubectl get pvc"]),
        case(&["pvc", "no-class"], "its storage class \"e2e-fast\" does not exist", &["kubectl get storageclass"]),
        case(
            &["pvc", "large"],
            "the nearest, e2e-why-small, does not because it has 1Gi of the 5Gi that are asked for",
            &["kubectl describe pv e2e-why-small"],
        ),
        case(
            &["service", "misspelt"],
            "its selector app=helthy matches no pod of why",
            &["kubectl patch service misspelt -n why -p '{\"spec\":{\"selector\":{\"app\":\"healthy\"}}}'"],
        ),
        case(&["service", "hungry"], "killed because it used more memory", &["0 of 1 pods are ready"]),
        case(
            &["service", "deaf"],
            "its port web goes to port 81 of its pods, and nobody listens there",
            &["correct targetPort"],
        ),
        case(&["service", "misnamed"], "no container has a port of that name", &["names no ports"]),
        case(
            &["service", "closed"],
            "the NetworkPolicy only-metrics lets nobody reach port 8080 of its pods",
            &["kubectl describe networkpolicy only-metrics -n why"],
        ),
        case(
            &["service", "good"],
            "",
            &["1 of 1 endpoints ready", "only-front lets in only pods with app=front", "nothing stands in the way"],
        ),
        case(
            &["service", "good", "--from", "unready"],
            "the NetworkPolicy why/only-front does not admit pod unready to pod healthy-",
            &["kubectl describe networkpolicy only-front -n why"],
        ),
        case(&["ingress", "no-class"], "its IngressClass \"e2e-nonsense\" does not exist", &["e2e-why"]),
        case(&["ingress", "no-backend"], "goes to the Service \"nobody\", which does not exist in why", &[]),
        case(
            &["ingress", "no-certificate"],
            "HTTPS for shop.example: the Secret \"shop-tls\" with its certificate does not exist in why",
            &["kubectl create secret tls shop-tls -n why"],
        ),
    ]
}

pub fn of_broken_manifests(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "why")?;
    for other in ["why-ending", "why-denied", "why-strict"] {
        cluster.new_namespace(other)?;
    }
    cluster.kubectl(&["label", "namespace", "why-strict", "pod-security.kubernetes.io/enforce=restricted"])?;
    cluster.kubectl(&["taint", "node", &cluster.node(2), "e2e=why:NoSchedule"])?;
    cluster.kubectl(&["cordon", &cluster.node(3)])?;
    let registry = serve_registry()?;
    cluster.apply(&elsewhere())?;
    scope.apply(&manifest(cluster, registry))?;
    scope.run("delete pod held --wait=false")?;
    cluster.kubectl(&["delete", "namespace", "why-ending", "--wait=false"])?;
    let outcome =
        all_explained(cluster, [cases(registry), cases_of_data_and_traffic()].into_iter().flatten().collect())
            .and_then(|()| refusals(cluster));
    // Also after a failure: the scenarios that follow need the nodes.
    cluster.kubectl(&["uncordon", &cluster.node(3)])?;
    cluster.kubectl(&["taint", "node", &cluster.node(2), "e2e:NoSchedule-"])?;
    let released = r#"{"metadata":{"finalizers":null}}"#;
    scope.args(&["patch", "pod", "held", "--type=merge", "-p", released])?;
    cluster.kubectl(&["patch", "configmap", "kept", "-n", "why-ending", "--type=merge", "-p", released])?;
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        cluster.kubectl(&["delete", kind, "e2e-why-team"])?;
    }
    cluster.kubectl(&["delete", "ingressclass", "e2e-why"])?;
    cluster.kubectl(&["delete", "storageclass", "e2e-why-shelf"])?;
    cluster.kubectl(&["delete", "pv", "e2e-why-small", "--wait=false"])?;
    for other in ["why-denied", "why-strict"] {
        cluster.kubectl(&["delete", "namespace", other, "--wait=false"])?;
    }
    outcome?;
    scope.delete()
}

/// A few ask at a time, each again of those whose cause is not told yet.
fn all_explained(cluster: &Cluster, cases: Vec<Case>) -> Result<()> {
    let share = cases.len().div_ceil(WORKERS);
    let mut cases = cases.into_iter();
    let shares: Vec<Vec<Case>> = (0..WORKERS).map(|_| cases.by_ref().take(share).collect()).collect();
    std::thread::scope(|scope| {
        let workers: Vec<_> = shares.into_iter().map(|share| scope.spawn(|| share_explained(cluster, share))).collect();
        let mut failures = Vec::new();
        for worker in workers {
            failures.extend(worker.join().map_err(|_| anyhow!("a worker panicked"))?);
        }
        ensure!(failures.is_empty(), "not within {} s:\n{}", ALL_WITHIN.as_secs(), failures.join("\n"));
        Ok(())
    })
}

/// What was not explained in time, and how it was explained instead.
fn share_explained(cluster: &Cluster, mut cases: Vec<Case>) -> Vec<String> {
    let until = Instant::now() + ALL_WITHIN;
    loop {
        let mut failures = Vec::new();
        cases.retain(|case| match explained(cluster, case) {
            Ok(()) => false,
            Err(error) => {
                failures.push(format!("tug why {}: {error:#}", case.asked.join(" ")));
                true
            }
        });
        if cases.is_empty() || Instant::now() > until {
            return failures;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Both forms name the cause first, and end with code 0.
fn explained(cluster: &Cluster, case: &Case) -> Result<()> {
    let node = cluster.node(3);
    let asked = case.asked.iter().map(|word| if *word == "NODE3" { node.as_str() } else { word });
    let default = if case.asked.contains(&"-n") { [].as_slice() } else { &["-n", "why"] };
    let words: Vec<&str> = ["why"].into_iter().chain(asked).chain(default.iter().copied()).collect();
    let run = |more: &[&str]| -> Result<String> {
        let output = cluster.tug_command(&[&words, more].concat()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let text = run(&[])?;
    let first = text.split("\n  2. ").next().unwrap_or(&text);
    contains(first, &[case.cause.as_str()]).with_context(|| format!("in full: {text}"))?;
    contains(first, case.besides)?;
    let report: Value = serde_json::from_str(&run(&["-o", "json"])?).context("no JSON")?;
    ensure!(report["name"] == *words.get(2).context("no name")? && report["state"] != "", "{report}");
    let causes = report["causes"].as_array().context("no causes")?;
    match causes.first() {
        Some(cause) => {
            contains(cause["cause"].as_str().unwrap_or_default(), &[case.cause.as_str()])?;
            ensure!(!case.cause.is_empty() && cause["help"] != "" && cause["evidence"].is_array(), "{cause}");
        }
        None => ensure!(case.cause.is_empty(), "no cause: {report}"),
    }
    Ok(())
}

/// What cannot be told of ends with code 1, wrong words with 2.
fn refusals(cluster: &Cluster) -> Result<()> {
    for (words, code, said) in [
        (["why", "pod", "nobody"].as_slice(), 1, "there is no pod called \"nobody\""),
        (&["why", "secret", "keys"], 2, "tug why knows nothing of \"secret\""),
        (&["why", "pod/"], 2, "which pod?"),
        (&["why", "pod", "full", "--from", "unready"], 2, "tug why service NAME --from POD"),
        (&["why"], 2, "KIND NAME"),
    ] {
        let (is, error) = cluster.tug_fails(words)?;
        ensure!(is == code, "{words:?}: code {is}: {error}");
        contains(&error, &[said])?;
    }
    Ok(())
}

/// A registry without images: it knows nothing of most, and says nothing of what is private.
fn serve_registry() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream);
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, code) =
        if request.contains("/private/") { ("403 Forbidden", "DENIED") } else { ("404 Not Found", "MANIFEST_UNKNOWN") };
    let body = if request.starts_with("HEAD") { "" } else { r#"{"errors":[{"code":"CODE","message":"no"}]}"# };
    let body = body.replace("CODE", code);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
