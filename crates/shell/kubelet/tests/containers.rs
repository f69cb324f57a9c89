//! A whole kubelet against an in-process API server and a private containerd: what it runs, keeps, refuses and ends.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use kubelet::containerd::ContainerdConfig;
use kubelet::{KubeletConfig, RuntimeSource};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testkit::TestServer;
use tokio_util::sync::CancellationToken;

const WITHIN: Duration = Duration::from_secs(60);

fn skip() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("skipped: needs root to run containers");
    }
    let there =
        |program: &str| ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().any(|d| Path::new(d).join(program).exists());
    let all = there("containerd") && there("runc") && there("ctr") && Path::new("/usr/lib/cni/bridge").exists();
    (!all).then_some("skipped: install containerd runc containernetworking-plugins")
}

/// Polls the API until the pod fits, and returns it.
async fn until(pods: &Api<Pod>, name: &str, what: &str, fits: impl Fn(&Pod) -> bool) -> Pod {
    let end = Instant::now() + WITHIN;
    loop {
        let found = pods.get_opt(name).await.unwrap();
        if let Some(pod) = found.clone().filter(|pod| fits(pod)) {
            return pod;
        }
        assert!(Instant::now() < end, "{what}: {:#?}", found.map(|pod| pod.status));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

fn container_id(pod: &Pod) -> String {
    pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].container_id.clone().unwrap()
}

fn remove_groups(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        remove_groups(&entry.path());
    }
    let _ = std::fs::remove_dir(dir);
}

/// An API server, a containerd with the built-in images, and a kubelet's configuration for them.
struct Rig {
    server: TestServer,
    containerd: ContainerdConfig,
    config: KubeletConfig,
    root: PathBuf,
    group: String,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn start(name: &str) -> Rig {
        let server = TestServer::start().await;
        let dir = tempfile::tempdir().unwrap();
        let mut containerd = ContainerdConfig::new(dir.path().join("c"));
        containerd.sandbox_image = images::PAUSE.into();
        containerd.ensure().await.unwrap();
        let archive = dir.path().join("images.tar");
        std::fs::write(&archive, images::builtin().unwrap()).unwrap();
        let mut import = tokio::process::Command::new("ctr");
        import.arg("-a").arg(containerd.socket()).args(["-n", "k8s.io", "image", "import"]).arg(&archive);
        assert!(import.output().await.unwrap().status.success());
        let group = format!("tug-test-{name}-{}", std::process::id());
        let root = dir.path().join("k");
        let source = RuntimeSource::Private(containerd.clone());
        let mut config = KubeletConfig::new("n", "127.0.0.1".parse().unwrap(), root.clone(), source);
        config.cgroup_parent = format!("/{group}");
        Rig { server, containerd, config, root, group, _dir: dir }
    }

    async fn stop(self) {
        self.containerd.stop().await;
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            remove_groups(&hierarchy.path().join(&self.group));
        }
        remove_groups(&Path::new("/sys/fs/cgroup").join(&self.group));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_outlives_the_kubelet_and_goes() {
    if let Some(why) = skip() {
        println!("{why}");
        return;
    }
    let rig = Rig::start("life").await;
    let (server, config, root) = (&rig.server, rig.config.clone(), rig.root.clone());
    let start = |config: &KubeletConfig| {
        let stop = CancellationToken::new();
        let task = tokio::spawn(kubelet::run(config.clone(), server.client.clone(), stop.clone()));
        (stop, task)
    };
    let (stop, task) = start(&config);

    let pods: Api<Pod> = Api::default_namespaced(server.client.clone());
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {
            "nodeName": "n", "hostNetwork": true, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": images::DEMO, "imagePullPolicy": "Never", "args": ["sleep", "3600"],
                "command": ["/demo"], "volumeMounts": [{"name": "e", "mountPath": "/e"}]}],
            "volumes": [{"name": "e", "emptyDir": {}}],
        },
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let running = until(&pods, "p", "the pod runs", |pod| phase(pod) == "Running").await;
    let nodes: Api<Node> = Api::all(server.client.clone());
    assert_eq!(
        nodes.get("n").await.unwrap().status.unwrap().daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port,
        10250
    );

    stop.cancel();
    task.await.unwrap().unwrap();
    let (stop, task) = start(&config);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = until(&pods, "p", "still running", |pod| phase(pod) == "Running").await;
    assert_eq!(container_id(&running), container_id(&after), "a restart of the kubelet leaves containers alone");

    pods.delete("p", &DeleteParams::default()).await.unwrap();
    let end = Instant::now() + WITHIN;
    while pods.get_opt("p").await.unwrap().is_some() {
        assert!(Instant::now() < end, "the pod goes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(std::fs::read_dir(root.join("pods")).unwrap().count(), 0, "nothing is left behind");
    stop.cancel();
    task.await.unwrap().unwrap();
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_runs_its_own_pods_and_refuses_and_ends_those_of_others() {
    if let Some(why) = skip() {
        println!("{why}");
        return;
    }
    let rig = Rig::start("own").await;
    let mut config = rig.config.clone();
    let manifests = rig.root.join("manifests");
    config.manifests_dir = Some(manifests.clone());
    let stop = CancellationToken::new();
    let node = kubelet::prepare(config, rig.server.client.clone(), stop.clone()).await.unwrap();
    let task = tokio::spawn(kubelet::run_prepared(node.clone(), stop.clone()));
    let pods: Api<Pod> = Api::default_namespaced(rig.server.client.clone());

    std::fs::create_dir_all(&manifests).unwrap();
    let container = json!({"name": "c", "image": images::DEMO, "command": ["/demo"], "args": ["sleep", "3600"]});
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"hostNetwork": true, "terminationGracePeriodSeconds": 1, "containers": [container]}});
    std::fs::write(manifests.join("web.yaml"), manifest.to_string()).unwrap();
    let mirror = until(&pods, "web-n", "the static pod shows", |pod| phase(pod) == "Running").await;
    assert!(mirror.metadata.annotations.unwrap().contains_key("kubernetes.io/config.mirror"));

    // a rate needs two readings, but what is young is measured from its start
    let end = Instant::now() + WITHIN;
    let measured = loop {
        let snapshot = node.meter.snapshot(&node);
        let found =
            snapshot.pods.iter().find(|pod| pod.name == "web-n").and_then(|pod| pod.containers.first()).cloned();
        if let Some(found) = found.filter(|found| found.sample.cpu_nano_cores.is_some()) {
            break found;
        }
        assert!(Instant::now() < end, "the static pod is measured: {snapshot:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(measured.sample.usage.working_set_bytes > 0 && measured.sample.usage.cpu_nanoseconds > 0);

    let pod = |name: &str, spec: serde_json::Value| -> Pod {
        let mut spec = spec;
        spec["nodeName"] = "n".into();
        spec["hostNetwork"] = true.into();
        spec["automountServiceAccountToken"] = false.into();
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    };
    let sysctl =
        json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}, "containers": [container]});
    let writes = json!({"name": "c", "image": images::DEMO, "imagePullPolicy": "Never", "command": ["/demo"],
        "args": ["write", "/e/f", "3000000"], "volumeMounts": [{"name": "e", "mountPath": "/e"}]});
    let large = json!({"containers": [writes], "volumes": [{"name": "e", "emptyDir": {"sizeLimit": "1Mi"}}]});
    for (name, spec, reason) in [("refused", sysctl, "SysctlForbidden"), ("large", large, "Evicted")] {
        pods.create(&PostParams::default(), &pod(name, spec)).await.unwrap();
        let failed = until(&pods, name, "it ends", |pod| phase(pod) == "Failed").await;
        assert_eq!(failed.status.unwrap().reason.as_deref(), Some(reason));
    }

    std::fs::remove_file(manifests.join("web.yaml")).unwrap();
    let end = Instant::now() + WITHIN;
    while pods.get_opt("web-n").await.unwrap().is_some() || node.registry.find("default", "web-n").is_some() {
        assert!(Instant::now() < end, "the static pod goes with its manifest");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for name in ["refused", "large"] {
        pods.delete(name, &DeleteParams::default()).await.unwrap();
        let end = Instant::now() + WITHIN;
        while pods.get_opt(name).await.unwrap().is_some() {
            assert!(Instant::now() < end, "{name} goes");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    stop.cancel();
    task.await.unwrap();
    rig.stop().await;
}
