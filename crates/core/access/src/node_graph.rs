//! Which secrets, config maps, claims, volumes and accounts a node's pods need: an index kept one object at a time.
//!
//! A node may read an object because a pod bound to it refers to the object. Each pod contributes its references once;
//! a count per (node, object) answers a request with one look-up, and a deleted pod takes its counts back.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::ingress_graph::IngressGraph;

/// What a node can be related to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Pod,
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    PersistentVolume,
    ServiceAccount,
    ResourceClaim,
    VolumeAttachment,
    ResourceSlice,
}

/// An object: its kind, namespace (empty: cluster-scoped) and name.
type Thing = (Target, Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Source {
    node: Arc<str>,
    things: Vec<Thing>,
}

/// Pods (and volumes) as nodes see them.
#[derive(Debug, Default)]
pub struct NodeGraph {
    /// What each pod, attachment or slice makes its node related to.
    sources: HashMap<Thing, Source>,
    /// How many sources relate a node to a thing.
    related: HashMap<Arc<str>, HashMap<Thing, u32>>,
    /// Claims' volumes, and what volumes need in turn (secrets of their drivers).
    volume_of_claim: HashMap<(Arc<str>, Arc<str>), (Arc<str>, Vec<Thing>)>,
    /// What the ingress of every node serves.
    pub ingress: IngressGraph,
}

impl NodeGraph {
    /// Whether the node is related to the thing.
    pub fn relates(&self, node: &str, target: Target, namespace: &str, name: &str) -> bool {
        if target == Target::Secret && self.ingress.names(namespace, name) {
            return true;
        }
        let Some(things) = self.related.get(node) else { return false };
        if things.contains_key(&(target, namespace.into(), name.into())) {
            return true;
        }
        // Volumes hang on claims: look at the node's claims that are bound.
        matches!(target, Target::PersistentVolume | Target::Secret)
            && things.keys().filter(|thing| thing.0 == Target::PersistentVolumeClaim).any(|claim| {
                self.volume_of_claim.get(&(claim.1.clone(), claim.2.clone())).is_some_and(|(volume, needs)| {
                    (target == Target::PersistentVolume && **volume == *name)
                        || needs.iter().any(|n| n.0 == target && *n.1 == *namespace && *n.2 == *name)
                })
            })
    }

    /// Whether the node is related to anything of this kind.
    pub fn has_any(&self, node: &str, target: Target) -> bool {
        self.related.get(node).is_some_and(|things| things.keys().any(|thing| thing.0 == target))
    }

    /// Takes the new state of a pod (None: it is gone).
    pub fn apply_pod(&mut self, namespace: &str, name: &str, pod: Option<&Value>) {
        let id: Thing = (Target::Pod, namespace.into(), name.into());
        let source = pod.and_then(|pod| {
            let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())?;
            let mut things = references(namespace, pod);
            things.push(id.clone());
            Some(Source { node: node.into(), things })
        });
        self.replace(id, source);
    }

    /// Takes the new state of a persistent volume (None: it is gone).
    pub fn apply_volume(&mut self, name: &str, volume: Option<&Value>) {
        self.volume_of_claim.retain(|_, (bound, _)| **bound != *name);
        let Some(volume) = volume else { return };
        let claim = &volume["spec"]["claimRef"];
        if let (Some(namespace), Some(claim)) = (claim["namespace"].as_str(), claim["name"].as_str()) {
            let needs = volume_secrets(namespace, &volume["spec"]);
            self.volume_of_claim.insert((namespace.into(), claim.into()), (name.into(), needs));
        }
    }

    /// Takes the new state of a volume attachment (None: it is gone).
    pub fn apply_attachment(&mut self, name: &str, attachment: Option<&Value>) {
        self.apply_named(Target::VolumeAttachment, name, attachment);
    }

    /// Takes the new state of a resource slice (None: it is gone).
    pub fn apply_slice(&mut self, name: &str, slice: Option<&Value>) {
        self.apply_named(Target::ResourceSlice, name, slice);
    }

    fn apply_named(&mut self, target: Target, name: &str, object: Option<&Value>) {
        let id: Thing = (target, "".into(), name.into());
        let node = object.and_then(|o| o["spec"]["nodeName"].as_str());
        let source = node.map(|node| Source { node: node.into(), things: vec![id.clone()] });
        self.replace(id, source);
    }

    fn replace(&mut self, id: Thing, source: Option<Source>) {
        if let Some(old) = self.sources.remove(&id) {
            for thing in old.things {
                self.take_back(&old.node, &thing);
            }
        }
        if let Some(source) = source {
            let things = self.related.entry(source.node.clone()).or_default();
            for thing in &source.things {
                *things.entry(thing.clone()).or_default() += 1;
            }
            self.sources.insert(id, source);
        }
    }

    fn take_back(&mut self, node: &Arc<str>, thing: &Thing) {
        let Some(things) = self.related.get_mut(node) else { return };
        if let Some(count) = things.get_mut(thing) {
            *count -= 1;
            if *count == 0 {
                things.remove(thing);
            }
        }
        if things.is_empty() {
            self.related.remove(node);
        }
    }
}

fn strings<'a>(list: &'a Value, path: &'a [&'a str]) -> impl Iterator<Item = &'a str> + 'a {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(move |item| path.iter().try_fold(item, |value, key| value.get(key)).and_then(Value::as_str))
}

/// Everything a pod's spec refers to, each once.
fn references(namespace: &str, pod: &Value) -> Vec<Thing> {
    let spec = &pod["spec"];
    let mut found: Vec<(Target, String)> = Vec::new();
    // Mirror pods show what a node runs by itself; nothing may be read on their behalf.
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Vec::new();
    }
    let account = spec["serviceAccountName"].as_str().unwrap_or_default();
    found.extend((!account.is_empty()).then(|| (Target::ServiceAccount, account.to_owned())));
    found.extend(strings(&spec["imagePullSecrets"], &["name"]).map(|n| (Target::Secret, n.to_owned())));
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            for (reference, value, target) in
                [("secretRef", "secretKeyRef", Target::Secret), ("configMapRef", "configMapKeyRef", Target::ConfigMap)]
            {
                let whole_path = [reference, "name"];
                let whole = strings(&container["envFrom"], &whole_path).map(str::to_owned);
                let path = ["valueFrom", value, "name"];
                let keys = strings(&container["env"], &path).map(str::to_owned);
                found.extend(whole.chain(keys).map(|name| (target, name)));
            }
        }
    }
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        volume_references(volume, pod["metadata"]["name"].as_str().unwrap_or_default(), &mut found);
    }
    let claims = strings(&pod["status"]["resourceClaimStatuses"], &["resourceClaimName"]).map(str::to_owned);
    let claims = claims.chain(strings(&spec["resourceClaims"], &["resourceClaimName"]).map(str::to_owned));
    found.extend(claims.map(|name| (Target::ResourceClaim, name)));
    found.sort();
    found.dedup();
    found.into_iter().map(|(target, name)| (target, namespace.into(), name.into())).collect()
}

fn volume_references(volume: &Value, pod: &str, found: &mut Vec<(Target, String)>) {
    let mut add = |target: Target, name: &Value| {
        found.extend(name.as_str().filter(|n| !n.is_empty()).map(|name| (target, name.to_owned())));
    };
    add(Target::Secret, &volume["secret"]["secretName"]);
    add(Target::ConfigMap, &volume["configMap"]["name"]);
    add(Target::PersistentVolumeClaim, &volume["persistentVolumeClaim"]["claimName"]);
    if volume["ephemeral"].is_object() {
        let name = format!("{pod}-{}", volume["name"].as_str().unwrap_or_default());
        add(Target::PersistentVolumeClaim, &Value::String(name));
    }
    for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
        add(Target::Secret, &source["secret"]["name"]);
        add(Target::ConfigMap, &source["configMap"]["name"]);
    }
    for kind in ["csi", "cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos", "azureFile"] {
        let of = &volume[kind];
        for field in ["nodePublishSecretRef", "secretRef"] {
            add(Target::Secret, &of[field]["name"]);
        }
        add(Target::Secret, &of["secretName"]);
    }
}

fn volume_secrets(claim_namespace: &str, spec: &Value) -> Vec<Thing> {
    const FIELDS: [&str; 5] =
        ["nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef", "controllerExpandSecretRef", "secretRef"];
    let mut found = Vec::new();
    for (kind, source) in spec.as_object().into_iter().flatten() {
        // The controller's secrets are not for nodes.
        let fields = FIELDS.iter().filter(|f| kind != "csi" || **f != "controllerExpandSecretRef");
        for reference in fields.map(|field| &source[*field]) {
            if let Some(name) = reference["name"].as_str() {
                let namespace = reference["namespace"].as_str().unwrap_or(claim_namespace);
                found.push((Target::Secret, namespace.into(), name.into()));
            }
        }
    }
    found
}
