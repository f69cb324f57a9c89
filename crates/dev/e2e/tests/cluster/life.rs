//! What changes in a pod's life: its resources while it runs, and the signal that ends it.

use anyhow::{Result, ensure};
use e2e::{BUSYBOX, Cluster, Scope, contains};
use serde_json::{Value, json};

fn pod(name: &str, container: Value, more: Value) -> String {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 60, "os": {"name": "linux"}, "containers": [container]}});
    if let (Some(metadata), Some(more)) = (pod["metadata"].as_object_mut(), more.as_object()) {
        metadata.extend(more.clone());
    }
    pod.to_string()
}

fn shell(script: &str) -> Value {
    json!({"name": "c", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/busybox", "sh", "-c", script]})
}

/// A container that ignores SIGTERM ends by the signal that it asks for, long before its grace period does.
pub fn stop_signal(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "stop-signal")?;
    let script =
        "trap '' TERM; trap 'echo told > /dev/termination-log; exit 3' USR1; while :; do /bin/busybox sleep 0.2; done";
    let mut container = shell(script);
    container["lifecycle"] = json!({"stopSignal": "SIGUSR1"});
    scope.apply(&pod("deaf", container, json!({"finalizers": ["e2e.example/look"]})))?;
    scope.run("wait pod/deaf --for=condition=Ready --timeout=60s")?;
    ensure!(scope.field("pod deaf", "{.status.containerStatuses[0].stopSignal}")? == "SIGUSR1");
    scope.run("delete pod deaf --wait=false")?;
    let end = "{.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.message}";
    scope.field_becomes("pod deaf", end, "3 told\n")?;
    scope.args(&["patch", "pod", "deaf", "--type=merge", "-p", "{\"metadata\":{\"finalizers\":null}}"])?;
    scope.delete()
}

fn resources(cpu: &str, memory: &str) -> Value {
    let amounts = json!({"cpu": cpu, "memory": memory});
    json!({"requests": amounts, "limits": amounts})
}

/// A pod that idles, and what its resize answers.
struct Elastic<'a> {
    scope: &'a Scope<'a>,
    name: &'a str,
}

impl Elastic<'_> {
    fn start(&self, script: &str, policy: Value) -> Result<()> {
        let mut container = shell(&format!("{script} while :; do /bin/busybox sleep 1; done"));
        container["resources"] = resources("20m", "32Mi");
        container["resizePolicy"] = policy;
        self.scope.apply(&pod(self.name, container, json!({})))?;
        self.scope.run(&format!("wait pod/{} --for=condition=Ready --timeout=60s", self.name)).map(drop)
    }

    fn to(&self, new: Value) -> Result<String> {
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": new}]}}).to_string();
        self.scope.args(&["patch", "pod", self.name, "--subresource=resize", "-p", &patch])
    }

    fn becomes(&self, path: &str, value: &str) -> Result<()> {
        self.scope.field_becomes(&format!("pod {}", self.name), path, value)
    }

    /// The memory limit that the kernel holds the container to.
    fn limit(&self) -> Result<String> {
        let script = "/bin/busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || \
            /bin/busybox cat /sys/fs/cgroup/memory.max";
        let said = self.scope.args(&["exec", self.name, "--", "/bin/busybox", "sh", "-c", script])?;
        Ok(said.trim().to_owned())
    }
}

const HAS: &str = "{.status.containerStatuses[0].resources.limits.memory} {.status.containerStatuses[0].restartCount}";
const PENDING: &str = "{.status.conditions[?(@.type==\"PodResizePending\")].reason}";
const IN_PROGRESS: &str = "{.status.conditions[?(@.type==\"PodResizeInProgress\")].reason}";

/// Limits change while the container runs; what its node could never give is refused.
pub fn resize(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "resize")?;
    let elastic = Elastic { scope: &scope, name: "elastic" };
    elastic.start("/bin/busybox dd if=/dev/zero of=/dev/shm/held bs=1M count=16;", json!([]))?;
    elastic.to(resources("30m", "64Mi"))?;
    elastic.becomes(HAS, "64Mi 0")?;
    elastic.becomes("{.status.containerStatuses[0].allocatedResources.memory}", "64Mi")?;
    ensure!(elastic.limit()? == (64 << 20).to_string(), "the kernel's limit is {}", elastic.limit()?);
    elastic.to(resources("30m", "48Mi"))?;
    elastic.becomes(HAS, "48Mi 0")?;
    ensure!(elastic.limit()? == (48 << 20).to_string(), "the kernel's limit is {}", elastic.limit()?);

    // a limit below what is in use would end the container
    elastic.to(resources("30m", "8Mi"))?;
    elastic.becomes(IN_PROGRESS, "Error")?;
    ensure!(elastic.limit()? == (48 << 20).to_string());
    scope.says("get events", &["ResizeStarted", "ResizeCompleted", "ResizeError", "below current usage"])?;
    elastic.to(resources("30m", "48Mi"))?;
    elastic.becomes(IN_PROGRESS, "")?;
    elastic.becomes(HAS, "48Mi 0")?;

    for (new, why) in [
        (resources("900", "48Mi"), "node didn't have enough allocatable resources: cpu, requested: 900000"),
        (json!({"requests": {"cpu": "1m"}}), "Pod QOS Class may not change as a result of resizing"),
        (json!({"limits": {"cpu": null}}), "resource limits cannot be removed"),
    ] {
        contains(&format!("{:?}", elastic.to(new).err()), &[why])?;
    }
    scope.run("delete pod elastic --grace-period=1")?;
    scope.delete()
}

/// A container whose policy says so is started again with its new limits.
pub fn resize_by_restart(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "resize-restart")?;
    let elastic = Elastic { scope: &scope, name: "stiff" };
    elastic.start("trap 'exit 0' TERM;", json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]))?;
    elastic.to(resources("30m", "32Mi"))?;
    elastic.becomes("{.status.containerStatuses[0].resources.limits.cpu}", "30m")?;
    elastic.becomes(HAS, "32Mi 0")?;
    elastic.to(resources("30m", "64Mi"))?;
    elastic.becomes(HAS, "64Mi 1")?;
    scope.run("wait pod/stiff --for=condition=Ready --timeout=60s")?;
    ensure!(elastic.limit()? == (64 << 20).to_string());
    scope.says("get events", &["Container c resize requires restart"])?;
    scope.run("delete pod stiff --grace-period=1")?;
    scope.delete()
}

/// What does not fit beside the node's other pods waits, while the pod goes on with what it has.
pub fn resize_waits_for_room(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "resize-room")?;
    let elastic = Elastic { scope: &scope, name: "elastic" };
    elastic.start("", json!([]))?;
    let node = scope.field("pod elastic", "{.spec.nodeName}")?;
    let cpu = scope.field(&format!("node {node}"), "{.status.allocatable.cpu}")?;
    let milli: u32 = match cpu.strip_suffix('m') {
        Some(milli) => milli.parse()?,
        None => cpu.parse::<u32>()? * 1000,
    };
    let mut container = shell("while :; do /bin/busybox sleep 1; done");
    container["resources"] = json!({"requests": {"cpu": "400m"}});
    let mut neighbour: Value = serde_json::from_str(&pod("neighbour", container, json!({})))?;
    neighbour["spec"]["nodeName"] = node.into();
    scope.apply(&neighbour.to_string())?;
    scope.run("wait pod/neighbour --for=condition=Ready --timeout=60s")?;

    let most = format!("{}m", milli - 300);
    elastic.to(resources(&most, "64Mi"))?;
    elastic.becomes(PENDING, "Deferred")?;
    elastic.becomes("{.status.containerStatuses[0].allocatedResources.cpu}", "20m")?;
    elastic.becomes(HAS, "32Mi 0")?;
    scope.says("get events", &["ResizeDeferred", "Node didn't have enough resource: cpu"])?;
    scope.run("delete pod neighbour --grace-period=1")?;
    elastic.becomes(HAS, "64Mi 0")?;
    elastic.becomes(PENDING, "")?;
    elastic.becomes("{.status.containerStatuses[0].resources.requests.cpu}", &most)?;
    scope.run("delete pod elastic --grace-period=1")?;
    scope.delete()
}
