//! The built-in provisioner at work: makes, grows and removes disks on nodes, and the volumes that stand for them.

use std::sync::Arc;
use std::time::Duration;

use client::{ApiErrorExt, Informer, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use reconcile::plan::{Note, Op, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, Plan, Step};
use reconcile::volume::disk::{self, End, Request, Wanted};
use reconcile::volume::{SELECTED_NODE, claim_reference, class_of_claim, expand, volume_of_claim, volume_reference};
use serde_json::json;

use super::nodes::{self, Silence};
use super::{Classes, Volumes, WholeClaims};
use crate::apply::{ApplyError, Writer};
use crate::runner::{Context, Outcome, ReconcileError};
use crate::sources::Nodes;

/// A node that refused is asked again after this long.
const REFUSED_AGAIN: Duration = Duration::from_secs(15);

struct Controller {
    claims: Informer<Arc<PersistentVolumeClaim>>,
    volumes: Informer<Arc<PersistentVolume>>,
    classes: Informer<Arc<StorageClass>>,
    nodes: Informer<Arc<Node>>,
    client: kube::Client,
    writer: Writer,
}

pub(crate) fn start(context: &Context) {
    let hub = &context.hub;
    let (claims, volumes) = (hub.informer::<WholeClaims>(), hub.informer::<Volumes>());
    let (classes, nodes) = (hub.informer::<Classes>(), hub.informer::<Nodes>());
    let (claim_queue, volume_queue) = (context.queue(), context.queue());
    let wake = claim_queue.clone();
    claims.subscribe(move |change| {
        if let Some(claim) = &change.new {
            wake.add(claim.key.clone());
        }
    });
    let wake = volume_queue.clone();
    volumes.subscribe(move |change| {
        if let Some(volume) = change.new.as_ref().filter(|volume| disk::end(volume) != End::Keep) {
            wake.add(volume.key.clone());
        }
    });
    let (wake, known) = (claim_queue.clone(), claims.clone());
    classes.subscribe(move |_| {
        let waiting = known.list().into_iter().filter(|claim| volume_of_claim(claim).is_empty());
        waiting.for_each(|claim| wake.add(claim.key.clone()));
    });
    let writer = context.writer(disk::PROVISIONER_NAME);
    let writer = writer.track(PERSISTENT_VOLUME_CLAIMS, &claims).track(PERSISTENT_VOLUMES, &volumes);
    let client = hub.client().clone();
    let controller = Arc::new(Controller { claims, volumes, classes, nodes, client, writer });
    let ready = |controller: Arc<Controller>| async move {
        tokio::join!(controller.claims.synced(), controller.volumes.synced(), controller.classes.synced());
        controller.nodes.synced().await;
    };
    let of_claims = controller.clone();
    context.work("disk-provisioner-controller", &claim_queue, ready(controller.clone()), move |key| {
        let controller = of_claims.clone();
        async move { controller.claim(&key).await }
    });
    context.work("disk-remover-controller", &volume_queue, ready(controller.clone()), move |key| {
        let controller = controller.clone();
        async move { controller.end(&key).await }
    });
}

/// Tried again with growing pauses, as after any failed write.
fn again(silence: Silence) -> ReconcileError {
    match silence {
        Silence::Failed { source, .. } => ReconcileError::Read(source),
        late @ Silence::Late { .. } => ReconcileError::Read(kube::Error::Service(Box::new(late))),
    }
}

impl Controller {
    async fn claim(&self, key: &ObjectKey) -> Outcome {
        let Some(claim) = self.claims.get_key(key) else { return Ok(None) };
        let class = self.classes.get("", class_of_claim(&claim)).map(|class| class.view.clone());
        match disk::wanted(&claim, class.as_deref()) {
            Wanted::Nothing => self.grow(&claim).await,
            Wanted::Impossible(why) => {
                self.fail(&claim, &why, false).await?;
                Ok(None)
            }
            Wanted::Disk(request) => match class {
                Some(class) => self.provision(&claim, &class, request).await,
                None => Ok(None),
            },
        }
    }

    async fn provision(&self, claim: &PersistentVolumeClaim, class: &StorageClass, request: Request) -> Outcome {
        if self.volumes.get("", &request.name).is_some() {
            return Ok(None);
        }
        let nodes = self.nodes.list();
        let found = match &request.node {
            Some(name) => nodes.iter().find(|node| node.key.name == *name),
            None => {
                let volumes = self.volumes.list();
                let views: Vec<&Node> = nodes.iter().map(|node| &*node.view).collect();
                let chosen = disk::choose(&views, volumes.iter().map(|volume| &*volume.view), class);
                nodes.iter().find(|node| Some(node.key.name.as_str()) == chosen)
            }
        };
        let Some(node) = found else {
            let why = match &request.node {
                Some(name) => format!("node {name:?} not found"),
                None => "no node that is ready can hold the volume".to_owned(),
            };
            self.fail(claim, &why, true).await?;
            return Ok(Some(REFUSED_AGAIN));
        };
        let about = claim_reference(claim);
        let (namespace, name) =
            (about.namespace.as_deref().unwrap_or_default(), about.name.as_deref().unwrap_or_default());
        let told = format!("External provisioner is provisioning volume for claim {:?}", format!("{namespace}/{name}"));
        self.tell(Note::normal(&about, "Provisioning", told)).await?;
        let Request { name: disk, bytes, block, .. } = &request;
        let answer = match nodes::create(&self.client, &node.key.name, disk, *bytes, *block).await {
            Ok(answer) => answer,
            Err(silence) => {
                self.fail(claim, &silence.to_string(), false).await?;
                return Err(again(silence));
            }
        };
        if let Some(why) = answer.refused {
            self.fail(claim, &format!("node {:?}: {why}", node.key.name), true).await?;
            return Ok(request.node.is_none().then_some(REFUSED_AGAIN));
        }
        let labels = node.metadata.labels.as_ref();
        let hostname = labels.and_then(|labels| labels.get(disk::NODE_LABEL)).unwrap_or(&node.key.name);
        let object = disk::volume(claim, class, &request, (&node.key.name, hostname), &answer.path);
        let message = format!("Successfully provisioned volume {}", request.name);
        let create = Op::Create { resource: PERSISTENT_VOLUMES, namespace: String::new(), object };
        let step = Step::from(create).on_success(Note::normal(&about, "ProvisioningSucceeded", message));
        match self.writer.apply(&Plan { steps: vec![step], ..Plan::default() }).await {
            Err(error) if error.source.is_already_exists() => Ok(None),
            result => Ok(result.map(|()| None)?),
        }
    }

    /// Tells why there is no volume; `elsewhere` lets the scheduler choose another node.
    async fn fail(&self, claim: &PersistentVolumeClaim, why: &str, elsewhere: bool) -> Result<(), ApplyError> {
        let message = format!("failed to provision volume with StorageClass {:?}: {why}", class_of_claim(claim));
        let mut plan = Plan::default();
        plan.notes.push(Note::warning(&claim_reference(claim), "ProvisioningFailed", message));
        let annotations = claim.metadata.annotations.as_ref();
        if elsewhere && annotations.is_some_and(|all| all.contains_key(SELECTED_NODE)) {
            let meta = &claim.metadata;
            let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
            let body = json!({"metadata": {"uid": meta.uid, "annotations": {SELECTED_NODE: null}}});
            plan.push(Op::update(PERSISTENT_VOLUME_CLAIMS, &namespace, &name, body));
        }
        self.writer.apply(&plan).await
    }

    async fn tell(&self, note: Note) -> Result<(), ApplyError> {
        self.writer.apply(&Plan { notes: vec![note], ..Plan::default() }).await
    }

    /// Grows the disk of a bound claim that asks for more.
    async fn grow(&self, claim: &PersistentVolumeClaim) -> Outcome {
        let Some(volume) = self.volumes.get("", volume_of_claim(claim)) else { return Ok(None) };
        let Some(bytes) = expand::wanted(claim, &volume) else { return Ok(None) };
        self.report(claim, bytes, expand::Progress::Started).await?;
        let about = claim_reference(claim);
        let answer = match nodes::grow(&self.client, disk::node_of(&volume), &volume.key.name, bytes).await {
            Ok(answer) => answer,
            Err(silence) => {
                let message = format!("resize volume {:?} failed: {silence}", volume.key.name);
                self.tell(Note::warning(&about, "VolumeResizeFailed", message)).await?;
                return Err(again(silence));
            }
        };
        if let Some(why) = answer.refused {
            let message = format!("resize volume {:?} failed: {why}", volume.key.name);
            self.tell(Note::warning(&about, "VolumeResizeFailed", message)).await?;
            self.report(claim, bytes, expand::Progress::Infeasible(&why)).await?;
            return Ok(None);
        }
        let mut plan = Plan::default();
        let size = json!({"spec": {"capacity": {"storage": disk::quantity(bytes)}}});
        plan.push(Op::merge(PERSISTENT_VOLUMES, "", &volume.key.name, size));
        self.writer.apply(&plan).await?;
        if answer.pending {
            let message = "Require file system resize of volume on node";
            self.tell(Note::normal(&about, "FileSystemResizeRequired", message)).await?;
            self.report(claim, bytes, expand::Progress::Pending).await?;
        } else {
            self.report(claim, bytes, expand::Progress::Grown).await?;
            let message = format!("MountVolume.NodeExpandVolume succeeded for volume {:?}", volume.key.name);
            self.tell(Note::normal(&about, "FileSystemResizeSuccessful", message)).await?;
        }
        Ok(None)
    }

    async fn report(
        &self,
        claim: &PersistentVolumeClaim,
        bytes: i64,
        progress: expand::Progress<'_>,
    ) -> Result<(), ApplyError> {
        let now = meta::time::format_seconds(Timestamp::now().as_second());
        let key = (claim.metadata.namespace.as_deref().unwrap_or_default(), claim.metadata.name.as_deref());
        // The steps of one growth follow each other: each starts from what the one before wrote.
        let newest = self.claims.get(key.0, key.1.unwrap_or_default()).map(|claim| claim.view.clone());
        match expand::status(newest.as_deref().unwrap_or(claim), bytes, progress, &now) {
            Some(op) => self.writer.apply(&Plan { steps: vec![op.into()], ..Plan::default() }).await,
            None => Ok(()),
        }
    }

    /// Removes a disk whose time has come, then its volume.
    async fn end(&self, key: &ObjectKey) -> Outcome {
        let Some(volume) = self.volumes.get_key(key) else { return Ok(None) };
        match disk::end(&volume) {
            End::Keep => return Ok(None),
            End::Leave => {}
            End::Remove { node } => {
                // With the node its disks are gone.
                if self.nodes.get("", &node).is_some() {
                    let why = match nodes::remove(&self.client, &node, &key.name).await {
                        Ok(answer) => answer.refused.map(|why| (why, None)),
                        Err(silence) => Some((silence.to_string(), Some(silence))),
                    };
                    if let Some((why, silence)) = why {
                        let status = json!({"phase": "Failed", "message": why});
                        let note = Note::warning(&volume_reference(&volume), "VolumeFailedDelete", why);
                        let mut plan = Plan { notes: vec![note], ..Plan::default() };
                        plan.push(Op::update_status(PERSISTENT_VOLUMES, "", &key.name, status));
                        self.writer.apply(&plan).await?;
                        return match silence {
                            Some(why) => Err(again(why)),
                            None => Ok(Some(REFUSED_AGAIN)),
                        };
                    }
                }
            }
        }
        let mut plan = Plan::default();
        if volume.deleting {
            let finalizers = disk::without_finalizer(&volume);
            let body = json!({"metadata": {"resourceVersion": volume.resource_version, "finalizers": finalizers}});
            plan.push(Op::update(PERSISTENT_VOLUMES, "", &key.name, body));
        } else {
            // Its finalizers hold it until the change that this makes comes back here.
            let (namespace, name) = (String::new(), key.name.clone());
            plan.push(Op::Delete { resource: PERSISTENT_VOLUMES, namespace, name, uid: None, grace: None });
        }
        match self.writer.apply(&plan).await {
            Err(error) if error.source.is_not_found() => Ok(None),
            result => Ok(result.map(|()| None)?),
        }
    }
}
