//! The Summary API: `/stats/summary`.

use super::storage::{self, FileSystem, PodStorage, Tree};
use super::{ContainerSample, PodSample, Sample, Snapshot, network};
use crate::node::Node;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// A walk over a pod's volumes may be this old.
const STORAGE_AGE_MAX: SignedDuration = SignedDuration::from_secs(60);

fn cpu(sample: &Sample) -> Value {
    let mut value = json!({"time": sample.at.to_string(), "usageCoreNanoSeconds": sample.usage.cpu_nanoseconds});
    if let Some(rate) = sample.cpu_nano_cores {
        value["usageNanoCores"] = rate.into();
    }
    value
}

fn memory(sample: &Sample, capacity: Option<u64>) -> Value {
    let usage = &sample.usage;
    let mut value = json!({
        "time": sample.at.to_string(),
        "usageBytes": usage.memory_bytes,
        "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    });
    if let Some(limit) = usage.memory_limit_bytes.or(capacity) {
        value["availableBytes"] = limit.saturating_sub(usage.working_set_bytes).into();
    }
    value
}

fn network(process: Option<u32>, at: Timestamp) -> Value {
    let interfaces = network::interfaces(process);
    let mut value = network::primary(&interfaces).map_or_else(|| json!({}), network::Interface::json);
    value["time"] = at.to_string().into();
    value["interfaces"] = interfaces.iter().map(network::Interface::json).collect::<Vec<_>>().into();
    value
}

fn file_system(at: Timestamp, of: FileSystem, used: Option<Tree>) -> Value {
    json!({
        "time": at.to_string(),
        "availableBytes": of.available,
        "capacityBytes": of.capacity,
        "usedBytes": used.map_or(of.used, |tree| tree.bytes),
        "inodesFree": of.inodes_free,
        "inodes": of.inodes,
        "inodesUsed": used.map_or(of.inodes.saturating_sub(of.inodes_free), |tree| tree.inodes),
    })
}

/// Everything about disks that the full summary adds.
struct Disks {
    node: FileSystem,
    image: FileSystem,
    images: Option<Tree>,
    layers: HashMap<String, Tree>,
    pods: HashMap<String, Arc<PodStorage>>,
}

async fn disks(node: &Arc<Node>) -> Disks {
    let (images, layers) = tokio::join!(storage::images(node), storage::layers(node));
    let at = node.clone();
    let walked = tokio::task::spawn_blocking(move || {
        let pods = at.registry.all().into_iter().map(|handle| handle.pod.borrow().clone());
        let pair = |pod: Arc<k8s_openapi::api::core::v1::Pod>| {
            let storage = at.meter.storage(&at, &pod, STORAGE_AGE_MAX);
            (pod.metadata.uid.clone().unwrap_or_default(), storage)
        };
        pods.map(pair).collect()
    });
    let own = storage::file_system(&node.config.root_dir);
    Disks {
        node: own,
        image: images.as_ref().map_or(own, |(_, path)| storage::file_system(path)),
        images: images.map(|(tree, _)| tree),
        layers,
        pods: walked.await.unwrap_or_default(),
    }
}

fn container(sample: &ContainerSample, disks: Option<(&Disks, Tree)>) -> Value {
    let at = sample.sample.at;
    let mut value = json!({
        "name": sample.name,
        "startTime": sample.started.to_string(),
        "cpu": cpu(&sample.sample),
        "memory": memory(&sample.sample, None),
        "swap": {"time": at.to_string(), "swapUsageBytes": sample.sample.usage.swap_bytes},
    });
    if let Some((disks, logs)) = disks {
        let layer = disks.layers.get(&sample.id).copied().unwrap_or_default();
        value["rootfs"] = file_system(at, disks.image, Some(layer));
        value["logs"] = file_system(at, disks.node, Some(logs));
    }
    value
}

fn pod(sample: &PodSample, disks: Option<&Disks>) -> Value {
    let at = sample.sample.at;
    let storage = disks.and_then(|disks| disks.pods.get(&sample.uid)).cloned().unwrap_or_default();
    let logs = |name: &str| storage.logs.get(name).copied().unwrap_or_default();
    let containers = sample.containers.iter().map(|c| container(c, disks.map(|disks| (disks, logs(&c.name)))));
    let mut value = json!({
        "podRef": {"name": sample.name, "namespace": sample.namespace, "uid": sample.uid},
        "startTime": sample.started.to_string(),
        "containers": containers.collect::<Vec<_>>(),
        "cpu": cpu(&sample.sample),
        "memory": memory(&sample.sample, None),
        "swap": {"time": at.to_string(), "swapUsageBytes": sample.sample.usage.swap_bytes},
    });
    if let Some(processes) = sample.sample.usage.processes {
        value["process_stats"] = json!({"process_count": processes});
    }
    let Some(disks) = disks else { return value };
    if sample.network_process.is_some() {
        value["network"] = network(sample.network_process, at);
    }
    let volume = |used: &storage::VolumeUse| {
        let mut value = file_system(at, used.file_system, Some(used.tree));
        value["name"] = used.name.clone().into();
        if let Some(claim) = &used.claim {
            value["pvcRef"] = json!({"name": claim, "namespace": sample.namespace});
        }
        value
    };
    value["volume"] = storage.volumes.iter().map(volume).collect::<Vec<_>>().into();
    let mut total = storage.total();
    sample.containers.iter().filter_map(|c| disks.layers.get(&c.id)).for_each(|layer| total += *layer);
    value["ephemeral-storage"] = file_system(at, disks.node, Some(total));
    value
}

fn processes(at: Timestamp) -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let running = text.split(' ').nth(3).and_then(|part| part.split('/').nth(1)).and_then(|n| n.parse::<u64>().ok());
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|t| t.trim().parse::<u64>().ok());
    json!({"time": at.to_string(), "maxpid": most, "curproc": running})
}

/// The document. Without disks and networks where only CPU and memory are asked for.
pub async fn summary(node: &Arc<Node>, snapshot: &Snapshot, only_cpu_and_memory: bool) -> Value {
    let disks = if only_cpu_and_memory { None } else { Some(disks(node).await) };
    let at = snapshot.at;
    let capacity = u64::try_from(node.machine.memory_bytes).ok();
    let mut own = json!({"nodeName": node.config.node_name, "startTime": node.started.to_string()});
    if let Some(sample) = &snapshot.node {
        own["cpu"] = cpu(sample);
        own["memory"] = memory(sample, capacity);
        own["swap"] = json!({"time": at.to_string(), "swapUsageBytes": sample.usage.swap_bytes});
    }
    if let Some(disks) = &disks {
        own["network"] = network(None, at);
        own["fs"] = file_system(at, disks.node, None);
        let images = file_system(at, disks.image, disks.images);
        own["runtime"] = json!({"imageFs": images, "containerFs": images});
        own["rlimit"] = processes(at);
    }
    let pods: Vec<Value> = snapshot.pods.iter().map(|sample| pod(sample, disks.as_ref())).collect();
    json!({"node": own, "pods": pods})
}
