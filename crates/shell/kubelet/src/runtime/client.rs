//! Calls to the runtime with deadlines, and its objects turned into what `podsync` reads.

use super::cri::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};
use super::events::{Envelope, SubscribeRequest, events_client::EventsClient};
use super::tasks::{KillRequest, tasks_client::TasksClient};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

/// Deadline of calls that do not wait for a workload.
const CALL_MAX: Duration = Duration::from_secs(120);
/// Deadline of an image pull.
const PULL_MAX: Duration = Duration::from_secs(1800);
/// Largest message, for lists of many containers.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// containerd keeps what CRI makes under this namespace.
pub const NAMESPACE: &str = "k8s.io";

/// Labels that name the pod and container on every runtime object.
pub mod label {
    /// Pod name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Pod namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Pod uid.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Container name.
    pub const CONTAINER: &str = "io.kubernetes.container.name";
    /// Annotation: the image as the pod spells it.
    pub const IMAGE: &str = "io.kubernetes.container.image";
    /// Annotation: host path of the termination message.
    pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessageHostPath";
    /// Annotation: `FallbackToLogsOnError` or `File`.
    pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
}

/// A connection to a CRI runtime. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Runtime {
    channel: Channel,
    socket: PathBuf,
}

fn time(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}

impl Runtime {
    /// A client for the socket; connects on first use.
    pub fn new(socket: &Path) -> Runtime {
        let path = socket.to_path_buf();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://[::]:50051").connect_with_connector_lazy(connect);
        Runtime { channel, socket: socket.to_path_buf() }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The generated client for runtime calls that have no wrapper here.
    pub fn raw(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The generated client for image calls that have no wrapper here.
    pub fn raw_images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// containerd's own task service; requests need the `containerd-namespace` header.
    pub fn raw_tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// Name and version of the runtime, for example `("containerd", "1.6.20")`.
    pub async fn version(&self) -> Result<(String, String), Status> {
        let request = deadline(cri::VersionRequest { version: "v1".into() }, Duration::from_secs(20));
        let reply = self.raw().version(request).await?.into_inner();
        Ok((reply.runtime_name, reply.runtime_version))
    }

    /// `None` when runtime and network are ready, else what is not.
    pub async fn not_ready(&self) -> Result<Option<String>, Status> {
        let request = deadline(cri::StatusRequest::default(), Duration::from_secs(10));
        let status = self.raw().status(request).await?.into_inner().status.unwrap_or_default();
        let bad = status.conditions.iter().find(|c| !c.status);
        Ok(bad.map(|c| match c.r#type.as_str() {
            "NetworkReady" => format!(
                "container runtime network not ready: NetworkReady=false reason:{} message:{}",
                c.reason, c.message
            ),
            _ => format!("container runtime not ready: {}=false reason:{} message:{}", c.r#type, c.reason, c.message),
        }))
    }

    /// Makes and starts a sandbox with a handler of the runtime, the empty one for its default; returns its id.
    pub async fn run_sandbox(&self, config: cri::PodSandboxConfig, handler: String) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
        Ok(self.raw().run_pod_sandbox(deadline(request, CALL_MAX)).await?.into_inner().pod_sandbox_id)
    }

    /// Stops a sandbox. One that is gone counts as stopped.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        gone_is_fine(self.raw().stop_pod_sandbox(deadline(request, CALL_MAX)).await.map(drop))
    }

    /// Removes a sandbox and its containers. One that is gone counts as removed.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        gone_is_fine(self.raw().remove_pod_sandbox(deadline(request, CALL_MAX)).await.map(drop))
    }

    /// All sandboxes, or those of one pod.
    pub async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<cri::PodSandbox>, Status> {
        let filter = cri::PodSandboxFilter { label_selector: uid_selector(pod_uid), ..Default::default() };
        let request = deadline(cri::ListPodSandboxRequest { filter: Some(filter) }, CALL_MAX);
        Ok(self.raw().list_pod_sandbox(request).await?.into_inner().items)
    }

    /// Addresses of a sandbox, the runtime's first.
    pub async fn sandbox_ips(&self, id: &str) -> Result<Vec<String>, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let reply = self.raw().pod_sandbox_status(deadline(request, CALL_MAX)).await?.into_inner();
        let Some(network) = reply.status.and_then(|s| s.network) else { return Ok(Vec::new()) };
        let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|i| i.ip));
        Ok(all.filter(|ip| !ip.is_empty()).collect())
    }

    /// Creates a container in a sandbox; returns its id.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: cri::ContainerConfig,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String, Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.into(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        Ok(self.raw().create_container(deadline(request, CALL_MAX)).await?.into_inner().container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<(), Status> {
        let request = cri::StartContainerRequest { container_id: id.into() };
        self.raw().start_container(deadline(request, CALL_MAX)).await.map(drop)
    }

    /// SIGTERM, wait, SIGKILL. Returns when the container has ended.
    pub async fn stop_container(&self, id: &str, grace: i64) -> Result<(), Status> {
        let request = cri::StopContainerRequest { container_id: id.into(), timeout: grace };
        let limit = CALL_MAX + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        gone_is_fine(self.raw().stop_container(deadline(request, limit)).await.map(drop))
    }

    /// Sends a signal to a container's first process, by containerd's own service: CRI has no such call. One that is
    /// gone counts as told.
    pub async fn kill(&self, id: &str, signal: u32) -> Result<(), Status> {
        let message = KillRequest { container_id: id.into(), signal, ..Default::default() };
        let mut request = deadline(message, CALL_MAX);
        request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
        gone_is_fine(self.raw_tasks().kill(request).await.map(drop))
    }

    /// Removes a dead container. One that is gone counts as removed.
    pub async fn remove_container(&self, id: &str) -> Result<(), Status> {
        let request = cri::RemoveContainerRequest { container_id: id.into() };
        gone_is_fine(self.raw().remove_container(deadline(request, CALL_MAX)).await.map(drop))
    }

    /// All containers, or those of one pod.
    pub async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<cri::Container>, Status> {
        let filter = cri::ContainerFilter { label_selector: uid_selector(pod_uid), ..Default::default() };
        let request = deadline(cri::ListContainersRequest { filter: Some(filter) }, CALL_MAX);
        Ok(self.raw().list_containers(request).await?.into_inner().containers)
    }

    /// One container; `None` if it is gone.
    pub async fn container(&self, id: &str) -> Result<Option<cri::ContainerStatus>, Status> {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
        match self.raw().container_status(deadline(request, CALL_MAX)).await {
            Ok(reply) => Ok(reply.into_inner().status),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Runs a command in a container and returns exit code, stdout and stderr; `timeout` of zero is none.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<(i32, Vec<u8>, Vec<u8>), Status> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = cri::ExecSyncRequest { container_id: id.into(), cmd: command, timeout: seconds };
        let limit = if timeout.is_zero() { PULL_MAX } else { timeout + Duration::from_secs(10) };
        let reply = self.raw().exec_sync(deadline(request, limit)).await?.into_inner();
        Ok((reply.exit_code, reply.stdout, reply.stderr))
    }

    /// Changes a running container's limits.
    pub async fn update_resources(&self, id: &str, linux: cri::LinuxContainerResources) -> Result<(), Status> {
        let request =
            cri::UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(linux), ..Default::default() };
        self.raw().update_container_resources(deadline(request, CALL_MAX)).await.map(drop)
    }

    /// Makes the runtime open the log file again after a rotation.
    pub async fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let request = cri::ReopenContainerLogRequest { container_id: id.into() };
        self.raw().reopen_container_log(deadline(request, CALL_MAX)).await.map(drop)
    }

    /// All images on the node.
    pub async fn images(&self) -> Result<Vec<cri::Image>, Status> {
        let request = deadline(cri::ListImagesRequest::default(), CALL_MAX);
        Ok(self.raw_images().list_images(request).await?.into_inner().images)
    }

    /// An image by name or id; `None` if it is not on the node.
    pub async fn image(&self, name: &str) -> Result<Option<cri::Image>, Status> {
        let image = Some(cri::ImageSpec { image: name.into(), ..Default::default() });
        let request = deadline(cri::ImageStatusRequest { image, verbose: false }, CALL_MAX);
        Ok(self.raw_images().image_status(request).await?.into_inner().image)
    }

    /// Pulls an image; returns its reference.
    pub async fn pull(
        &self,
        name: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: Option<cri::PodSandboxConfig>,
    ) -> Result<String, Status> {
        let image = Some(cri::ImageSpec { image: name.into(), ..Default::default() });
        let request = cri::PullImageRequest { image, auth, sandbox_config: sandbox };
        Ok(self.raw_images().pull_image(deadline(request, PULL_MAX)).await?.into_inner().image_ref)
    }

    /// Removes an image under all its names.
    pub async fn remove_image(&self, id: &str) -> Result<(), Status> {
        let image = Some(cri::ImageSpec { image: id.into(), ..Default::default() });
        let request = deadline(cri::RemoveImageRequest { image }, CALL_MAX);
        gone_is_fine(self.raw_images().remove_image(request).await.map(drop))
    }

    /// containerd's event stream for containers made through CRI.
    pub async fn events(&self) -> Result<tonic::Streaming<Envelope>, Status> {
        let filters = vec![format!("namespace=={NAMESPACE},topic~=\"/tasks/.*\"")];
        let mut client = EventsClient::new(self.channel.clone());
        Ok(client.subscribe(Request::new(SubscribeRequest { filters })).await?.into_inner())
    }
}

fn deadline<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn uid_selector(uid: Option<&str>) -> HashMap<String, String> {
    uid.map(|uid| HashMap::from([(label::POD_UID.to_string(), uid.to_string())])).unwrap_or_default()
}

fn gone_is_fine(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        other => other,
    }
}

/// A container as `podsync` reads it.
pub fn observe(status: &cri::ContainerStatus, sandbox_id: &str) -> podsync::Container {
    let state = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => podsync::ContainerState::Created,
        Ok(cri::ContainerState::ContainerRunning) => podsync::ContainerState::Running,
        Ok(cri::ContainerState::ContainerExited) => podsync::ContainerState::Exited,
        _ => podsync::ContainerState::Unknown,
    };
    let asked = status.annotations.get(label::IMAGE).cloned();
    podsync::Container {
        id: status.id.clone(),
        name: status.labels.get(label::CONTAINER).cloned().unwrap_or_default(),
        sandbox_id: sandbox_id.to_string(),
        attempt: status.metadata.as_ref().map_or(0, |m| m.attempt),
        state,
        created: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started: time(status.started_at),
        finished: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message: status.message.clone(),
        image: asked.or_else(|| status.image.as_ref().map(|i| i.image.clone())).unwrap_or_default(),
        image_id: status.image_ref.clone(),
        log_path: status.log_path.clone(),
    }
}

/// Creation time of a sandbox.
pub fn sandbox_created(sandbox: &cri::PodSandbox) -> Timestamp {
    time(sandbox.created_at).unwrap_or(Timestamp::UNIX_EPOCH)
}
