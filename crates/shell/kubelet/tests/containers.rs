//! A whole kubelet against an in-process API server and a private containerd: a pod runs, survives a restart of the kubelet, and goes.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use kubelet::containerd::ContainerdConfig;
use kubelet::{KubeletConfig, RuntimeSource};
use serde_json::json;
use std::path::Path;
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
async fn until(pods: &Api<Pod>, what: &str, fits: impl Fn(&Pod) -> bool) -> Pod {
    let end = Instant::now() + WITHIN;
    loop {
        let pod = pods.get("p").await.unwrap();
        if fits(&pod) {
            return pod;
        }
        assert!(Instant::now() < end, "{what}: {:#?}", pod.status);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_outlives_the_kubelet_and_goes() {
    if let Some(why) = skip() {
        println!("{why}");
        return;
    }
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

    let group = format!("tug-test-{}", std::process::id());
    let root = dir.path().join("k");
    let source = RuntimeSource::Private(containerd.clone());
    let mut config = KubeletConfig::new("n", "127.0.0.1".parse().unwrap(), root.clone(), source);
    config.cgroup_parent = format!("/{group}");
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
    let running = until(&pods, "the pod runs", |pod| phase(pod) == "Running").await;
    let nodes: Api<Node> = Api::all(server.client.clone());
    assert_eq!(
        nodes.get("n").await.unwrap().status.unwrap().daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port,
        10250
    );

    stop.cancel();
    task.await.unwrap().unwrap();
    let (stop, task) = start(&config);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = until(&pods, "still running", |pod| phase(pod) == "Running").await;
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
    containerd.stop().await;
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        remove_groups(&hierarchy.path().join(&group));
    }
    remove_groups(&Path::new("/sys/fs/cgroup").join(&group));
}
