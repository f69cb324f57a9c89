//! Claims on real disks: data that outlives pods, walls that hold, growth under a running pod, and the end of it all.

use anyhow::{Result, ensure};
use e2e::{Cluster, Scope};

/// A claim and a pod that writes to it.
fn claim(name: &str, size: &str, mode: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec: {{accessModes: [{mode}], resources: {{requests: {{storage: {size}}}}}}}
"
    )
}

fn pod(name: &str, claim: &str, mount: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: {image}
    imagePullPolicy: IfNotPresent
    command: [/bin/busybox, sleep, '100000']
    env: [{{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
    volumeMounts: [{mount}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}]
",
        image = e2e::BUSYBOX
    )
}

const MOUNT: &str = "{name: data, mountPath: /data}";
const PHASE: &str = "{.status.phase}";

pub fn claims(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "claims")?;
    scope.says("get storageclass", &["local (default)", "tug.local/disk", "WaitForFirstConsumer", "true"])?;
    scope.apply(&claim("data", "64Mi", "ReadWriteOnce"))?;
    scope.field_becomes("events", "{.items[*].reason}", "WaitForFirstConsumer")?;
    ensure!(scope.field("pvc data", PHASE)? == "Pending");
    scope.apply(&pod("first", "data", MOUNT))?;
    scope.field_becomes("pod first", PHASE, "Running")?;
    ensure!(scope.field("pvc data", PHASE)? == "Bound");
    let volume = scope.field("pvc data", "{.spec.volumeName}")?;
    ensure!(scope.field(&format!("pv {volume}"), PHASE)? == "Bound");
    scope.args(&["exec", "first", "--", "/bin/busybox", "sh", "-c", "echo kept > /data/file && /bin/busybox sync"])?;

    // A pod of the same claim finds its node and its data again.
    let node = scope.field("pod first", "{.spec.nodeName}")?;
    scope.run("delete pod first")?;
    scope.apply(&pod("second", "data", MOUNT))?;
    scope.field_becomes("pod second", PHASE, "Running")?;
    ensure!(scope.field("pod second", "{.spec.nodeName}")? == node);
    ensure!(scope.exec("second", "/bin/busybox cat /data/file")?.trim() == "kept");

    // The size is a wall: what is beyond it is refused, and the rest goes on.
    let full = ["exec", "second", "--", "/bin/busybox", "dd", "if=/dev/zero", "of=/data/big", "bs=1M", "count=200"];
    let told = scope.args(&full).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(told.contains("No space left on device"), "a full volume says so: {told}");
    ensure!(scope.exec("second", "/bin/busybox cat /data/file")?.trim() == "kept");

    // It grows while the pod runs.
    scope.args(&["patch", "pvc", "data", "-p", r#"{"spec":{"resources":{"requests":{"storage":"256Mi"}}}}"#])?;
    scope.field_becomes("pvc data", "{.status.capacity.storage}", "256Mi")?;
    scope.field_becomes("pvc data", "{.status.conditions}", "")?;
    scope.exec("second", "/bin/busybox dd if=/dev/zero of=/data/big bs=1M count=200")?;
    scope.says("get events", &["ProvisioningSucceeded", "FileSystemResizeSuccessful"])?;

    // A claim in use stays until its pod is gone; then claim, volume and disk go.
    scope.run("delete pvc data --wait=false")?;
    ensure!(scope.field("pvc data", "{.metadata.finalizers}")?.contains("pvc-protection"));
    ensure!(scope.exec("second", "/bin/busybox cat /data/file")?.trim() == "kept");
    scope.run("delete pod second")?;
    scope.run("wait --for=delete pvc/data --timeout=60s")?;
    scope.run(&format!("wait --for=delete pv/{volume} --timeout=60s"))?;
    scope.delete()
}

pub fn refusals(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "refusals")?;
    // No node has that much: the claim says so, and so does the pod.
    scope.apply(&claim("huge", "900Ti", "ReadWriteOnce"))?;
    scope.apply(&pod("waits", "huge", MOUNT))?;
    scope.eventually("get events", &["ProvisioningFailed", "not enough free storage"])?;
    ensure!(scope.field("pvc huge", PHASE)? == "Pending");
    ensure!(scope.field("pod waits", PHASE)? == "Pending");

    // One pod at a time.
    scope.apply(&claim("alone", "16Mi", "ReadWriteOncePod"))?;
    scope.apply(&pod("first", "alone", MOUNT))?;
    scope.field_becomes("pod first", PHASE, "Running")?;
    scope.apply(&pod("second", "alone", MOUNT))?;
    scope.eventually("get events", &["ReadWriteOncePod access mode already in-use by another pod"])?;
    scope.run("delete pod first")?;
    scope.field_becomes("pod second", PHASE, "Running")?;

    // A path that leads out of the volume is refused; one made of the pod's own fields is not.
    scope.apply(&claim("paths", "16Mi", "ReadWriteOnce"))?;
    let of_name = "{name: data, mountPath: /data, subPathExpr: logs/$(NAME)}";
    scope.apply(&pod("inner", "paths", of_name))?;
    scope.field_becomes("pod inner", PHASE, "Running")?;
    scope.exec("inner", "/bin/busybox touch /data/here")?;
    scope.apply(&pod("whole", "paths", MOUNT))?;
    scope.field_becomes("pod whole", PHASE, "Running")?;
    scope.exec("whole", "/bin/busybox ls /data/logs/inner/here")?;
    scope.exec("whole", "/bin/busybox ln -s /etc /data/escape")?;
    scope.apply(&pod("outer", "paths", "{name: data, mountPath: /data, subPath: escape}"))?;
    let waiting = "{.status.containerStatuses[0].state.waiting.reason}";
    scope.field_becomes("pod outer", waiting, "CreateContainerConfigError")?;
    scope.delete()
}

const SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: db
  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Retain}
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: shell
        image: BUSYBOX
        imagePullPolicy: IfNotPresent
        command: [/bin/busybox, sh, -c, '/bin/busybox hostname >> /data/starts; exec /bin/busybox sleep 100000']
        env: [{name: ROUND, value: '1'}]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
";

pub fn stateful_set(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "stateful-claims")?;
    scope.apply(&SET.replace("BUSYBOX", e2e::BUSYBOX))?;
    let starts = |pod: &str, times: usize| -> Result<()> {
        let text = scope.exec(pod, "/bin/busybox cat /data/starts")?;
        ensure!(text.lines().count() == times && text.lines().all(|line| line == pod), "{pod} started: {text}");
        Ok(())
    };
    scope.run("rollout status statefulset/db --timeout=120s")?;
    for pod in ["db-0", "db-1", "db-2"] {
        starts(pod, 1)?;
    }
    scope.run("set env statefulset/db ROUND=2")?;
    scope.run("rollout status statefulset/db --timeout=120s")?;
    scope.run("delete pod db-1")?;
    scope.run("rollout status statefulset/db --timeout=120s")?;
    starts("db-0", 2)?;
    starts("db-1", 3)?;

    let names = "{.items[*].metadata.name}";
    scope.run("scale statefulset/db --replicas=1")?;
    scope.field_becomes("pvc", names, "data-db-0")?;
    scope.run("delete statefulset/db")?;
    scope.field_becomes("pods -l app=db", names, "")?;
    ensure!(scope.field("pvc", names)? == "data-db-0", "the claim outlives its set");
    scope.apply(&SET.replace("BUSYBOX", e2e::BUSYBOX).replace("replicas: 3", "replicas: 1"))?;
    scope.run("rollout status statefulset/db --timeout=120s")?;
    starts("db-0", 3)?;
    scope.delete()
}
