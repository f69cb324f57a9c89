//! Asks the scheduler's own rules about a pod without a node, on what the API shows of the cluster now.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use explain::{NodeAnswer, Placement};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use placement::volumes::{ClaimInfo, ClassInfo, VolumeInfo};
use placement::{NodeSpec, PodInfo, Snapshot, survey};
use serde::Deserialize;
use serde_json::Value;

use super::reader::Reader;

/// What placement says of the pod, and the nodes that it looked at.
pub async fn placement(reader: &Reader, pod: &Value) -> Result<(Placement, Vec<Value>)> {
    let nodes = reader.list("/api/v1", "nodes", "", "").await?;
    let pods = reader.list("/api/v1", "pods", "", "&fieldSelector=spec.nodeName!%3D").await?;
    let namespaces = reader.list("/api/v1", "namespaces", "", "").await?;
    let mut snapshot = Snapshot::default();
    for node in &nodes {
        snapshot.set_node(Arc::new(NodeSpec::new(Node::deserialize(node).context("cannot read a node")?)));
    }
    for namespace in &namespaces {
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        let labels = BTreeMap::<String, String>::deserialize(&namespace["metadata"]["labels"]).unwrap_or_default();
        snapshot.set_namespace(name, labels);
    }
    for other in &pods {
        let info = PodInfo::new(Pod::deserialize(other).context("cannot read a pod")?);
        if let Some(node) = info.node.clone().filter(|_| !info.finished) {
            snapshot.add_pod(&node, Arc::new(info));
        }
    }
    storage(reader, &mut snapshot).await?;
    let wanted = PodInfo::new(Pod::deserialize(pod).context("cannot read the pod")?);
    let answers = survey(&wanted, &snapshot).into_iter().map(|(node, reasons)| {
        let has = &node.spec.allocatable;
        let mut free = has.clone();
        free.subtract(&node.requested);
        NodeAnswer { name: node.spec.name.clone(), reasons, free: free.0, allocatable: has.0.clone() }
    });
    Ok((Placement { nodes: answers.collect(), requests: wanted.requests.0.clone() }, nodes))
}

/// Claims, volumes and classes, which decide about pods that have some.
async fn storage(reader: &Reader, snapshot: &mut Snapshot) -> Result<()> {
    let classes = reader.list("/apis/storage.k8s.io/v1", "storageclasses", "", "").await?;
    let volumes = reader.list("/api/v1", "persistentvolumes", "", "").await?;
    let claims = reader.list("/api/v1", "persistentvolumeclaims", "", "").await?;
    let all = snapshot.volumes_mut();
    for class in &classes {
        let info = ClassInfo::new(&StorageClass::deserialize(class).context("cannot read a storage class")?);
        all.set_class(&info.name.clone(), Some(Arc::new(info)));
    }
    for volume in &volumes {
        let info = VolumeInfo::new(&PersistentVolume::deserialize(volume).context("cannot read a volume")?);
        all.set_volume(&info.name.clone(), Some(Arc::new(info)));
    }
    for claim in &claims {
        let info = ClaimInfo::new(&PersistentVolumeClaim::deserialize(claim).context("cannot read a claim")?);
        all.set_claim(&info.namespace.clone(), &info.name.clone(), Some(Arc::new(info)));
    }
    Ok(())
}
