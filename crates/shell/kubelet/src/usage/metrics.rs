//! The kubelet's metrics in Prometheus' format, under the names that dashboards and the metrics server know.

use super::exposition::Exposition;
use super::{ContainerSample, PodSample, Sample, Snapshot, network};
use crate::node::Node;
use podsync::ProbeKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Results that one probe of one container has had so far.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeKey {
    /// Pod namespace, name and uid.
    pub pod: [String; 3],
    /// Container.
    pub container: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// Whether it passed.
    pub passed: bool,
}

/// What the kubelet has counted since it started.
#[derive(Default)]
pub struct Counters {
    probes: Mutex<BTreeMap<ProbeKey, u64>>,
}

impl Counters {
    /// Counts one attempt of a probe.
    pub fn probe(&self, key: ProbeKey) {
        *self.probes.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// Forgets a pod that is gone.
    pub fn release(&self, uid: &str) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| key.pod[2] != uid);
    }
}

#[allow(clippy::cast_precision_loss)]
fn float(value: u64) -> f64 {
    value as f64
}

fn seconds(nanoseconds: u64) -> f64 {
    float(nanoseconds) / 1e9
}

fn containers(snapshot: &Snapshot) -> impl Iterator<Item = (&PodSample, &ContainerSample)> {
    snapshot.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
}

/// `/metrics/resource`: what autoscaling needs.
pub fn resource(snapshot: &Snapshot) -> String {
    let mut document = Exposition::default();
    let values: [(&str, &str, fn(&Sample) -> f64); 3] = [
        ("cpu_usage_seconds_total", "counter", |s| seconds(s.usage.cpu_nanoseconds)),
        ("memory_working_set_bytes", "gauge", |s| float(s.usage.working_set_bytes)),
        ("swap_usage_bytes", "gauge", |s| float(s.usage.swap_bytes)),
    ];
    let help =
        ["Cumulative CPU time in core-seconds.", "Current working set in bytes.", "Current use of swap in bytes."];
    let names = [
        ["container_cpu_usage_seconds_total", "node_cpu_usage_seconds_total", "pod_cpu_usage_seconds_total"],
        ["container_memory_working_set_bytes", "node_memory_working_set_bytes", "pod_memory_working_set_bytes"],
        ["container_swap_usage_bytes", "node_swap_usage_bytes", "pod_swap_usage_bytes"],
    ];
    for (((_, kind, read), help), names) in values.iter().zip(help).zip(names) {
        let mut family = document.family(names[0], kind, help);
        for (pod, container) in containers(snapshot) {
            let labels = [("container", container.name.as_str()), ("namespace", &pod.namespace), ("pod", &pod.name)];
            family.sample(&labels, read(&container.sample), Some(container.sample.at));
        }
        let mut family = document.family(names[1], kind, help);
        if let Some(sample) = &snapshot.node {
            family.sample(&[], read(sample), Some(sample.at));
        }
        let mut family = document.family(names[2], kind, help);
        for pod in &snapshot.pods {
            let labels = [("namespace", pod.namespace.as_str()), ("pod", &pod.name)];
            family.sample(&labels, read(&pod.sample), Some(pod.sample.at));
        }
    }
    let mut family = document.family("container_start_time_seconds", "gauge", "Start time since the Unix epoch.");
    for (pod, container) in containers(snapshot) {
        let labels = [("container", container.name.as_str()), ("namespace", &pod.namespace), ("pod", &pod.name)];
        family.sample(&labels, container.started.as_duration().as_secs_f64(), Some(container.sample.at));
    }
    let failed = if snapshot.node.is_some() { 0.0 } else { 1.0 };
    for name in ["resource_scrape_error", "scrape_error"] {
        document.family(name, "gauge", "1 if there was an error while getting the figures, else 0.").sample(
            &[],
            failed,
            None,
        );
    }
    document.finish()
}

/// One metric of `/metrics/cadvisor`: name, kind, help, value.
type Reader = (&'static str, &'static str, &'static str, fn(&Sample) -> f64);

const CADVISOR: [Reader; 15] = [
    ("container_cpu_usage_seconds_total", "counter", "Cumulative CPU time consumed in seconds.", |s| {
        seconds(s.usage.cpu_nanoseconds)
    }),
    ("container_cpu_user_seconds_total", "counter", "Cumulative user CPU time consumed in seconds.", |s| {
        seconds(s.usage.cpu_user_nanoseconds)
    }),
    ("container_cpu_system_seconds_total", "counter", "Cumulative system CPU time consumed in seconds.", |s| {
        seconds(s.usage.cpu_system_nanoseconds)
    }),
    ("container_cpu_cfs_periods_total", "counter", "Elapsed enforcement periods.", |s| float(s.usage.cfs_periods)),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Throttled enforcement periods.", |s| {
        float(s.usage.cfs_throttled_periods)
    }),
    ("container_cpu_cfs_throttled_seconds_total", "counter", "Time throttled in seconds.", |s| {
        seconds(s.usage.cfs_throttled_nanoseconds)
    }),
    ("container_memory_usage_bytes", "gauge", "Memory in use with page cache, in bytes.", |s| {
        float(s.usage.memory_bytes)
    }),
    ("container_memory_working_set_bytes", "gauge", "Working set in bytes.", |s| float(s.usage.working_set_bytes)),
    ("container_memory_rss", "gauge", "Anonymous memory in bytes.", |s| float(s.usage.rss_bytes)),
    ("container_memory_cache", "gauge", "Page cache in bytes.", |s| float(s.usage.cache_bytes)),
    ("container_memory_swap", "gauge", "Swap in use in bytes.", |s| float(s.usage.swap_bytes)),
    ("container_memory_failures_total", "counter", "Major page faults.", |s| float(s.usage.major_page_faults)),
    ("container_spec_memory_limit_bytes", "gauge", "Memory limit in bytes, 0 for none.", |s| {
        float(s.usage.memory_limit_bytes.unwrap_or(0))
    }),
    ("container_processes", "gauge", "Processes and threads inside.", |s| float(s.usage.processes.unwrap_or(0))),
    ("container_last_seen", "gauge", "When it was last seen, since the Unix epoch.", |s| {
        s.at.as_duration().as_secs_f64()
    }),
];

/// `/metrics/cadvisor`: everything read from control groups and interfaces.
pub fn cadvisor(node: &Node, snapshot: &Snapshot) -> String {
    let mut document = Exposition::default();
    for (name, kind, help, read) in CADVISOR {
        let mut family = document.family(name, kind, help);
        if let Some(sample) = &snapshot.node {
            let labels = [("container", ""), ("id", "/"), ("image", ""), ("name", ""), ("namespace", ""), ("pod", "")];
            family.sample(&labels, read(sample), Some(sample.at));
        }
        for pod in &snapshot.pods {
            let (id, namespace, name) = (pod.group.as_str(), pod.namespace.as_str(), pod.name.as_str());
            let labels =
                [("container", ""), ("id", id), ("image", ""), ("name", ""), ("namespace", namespace), ("pod", name)];
            family.sample(&labels, read(&pod.sample), Some(pod.sample.at));
            for container in &pod.containers {
                let id = format!("{}/{}", pod.group, container.id);
                let labels = [
                    ("container", container.name.as_str()),
                    ("id", &id),
                    ("image", &container.image),
                    ("name", &container.id),
                    ("namespace", namespace),
                    ("pod", name),
                ];
                family.sample(&labels, read(&container.sample), Some(container.sample.at));
            }
        }
    }
    let mut family = document.family("container_start_time_seconds", "gauge", "Start time since the Unix epoch.");
    for (pod, container) in containers(snapshot) {
        let labels = [
            ("container", container.name.as_str()),
            ("id", &format!("{}/{}", pod.group, container.id)),
            ("image", &container.image),
            ("name", &container.id),
            ("namespace", &pod.namespace),
            ("pod", &pod.name),
        ];
        family.sample(&labels, container.started.as_duration().as_secs_f64(), Some(container.sample.at));
    }
    interfaces(&mut document, snapshot);
    machine(&mut document, node);
    document.finish()
}

/// Counters of the pods' interfaces.
fn interfaces(document: &mut Exposition, snapshot: &Snapshot) {
    let pods: Vec<(&PodSample, Vec<network::Interface>)> = snapshot
        .pods
        .iter()
        .filter(|pod| pod.network_process.is_some())
        .map(|pod| (pod, network::interfaces(pod.network_process)))
        .collect();
    let names: [(&'static str, bool, usize); 8] = [
        ("container_network_receive_bytes_total", true, 0),
        ("container_network_receive_packets_total", true, 1),
        ("container_network_receive_errors_total", true, 2),
        ("container_network_receive_packets_dropped_total", true, 3),
        ("container_network_transmit_bytes_total", false, 0),
        ("container_network_transmit_packets_total", false, 1),
        ("container_network_transmit_errors_total", false, 2),
        ("container_network_transmit_packets_dropped_total", false, 3),
    ];
    for (name, received, which) in names {
        let mut family = document.family(name, "counter", "Cumulative count of the pod's interface.");
        for (pod, list) in &pods {
            for interface in list {
                let value = if received { interface.received[which] } else { interface.sent[which] };
                let labels = [
                    ("container", ""),
                    ("id", pod.group.as_str()),
                    ("image", ""),
                    ("interface", &interface.name),
                    ("name", ""),
                    ("namespace", &pod.namespace),
                    ("pod", &pod.name),
                ];
                family.sample(&labels, float(value), Some(pod.sample.at));
            }
        }
    }
}

fn machine(document: &mut Exposition, node: &Node) {
    let machine = &node.machine;
    let ids = [
        ("boot_id", machine.boot_id.as_str()),
        ("machine_id", &machine.machine_id),
        ("system_uuid", &machine.system_uuid),
    ];
    let cpus = u64::try_from(machine.cpus).unwrap_or(0);
    document.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.").sample(&ids, float(cpus), None);
    let memory = u64::try_from(machine.memory_bytes).unwrap_or(0);
    document.family("machine_memory_bytes", "gauge", "Installed memory in bytes.").sample(&ids, float(memory), None);
}

/// `/metrics/probes`.
pub fn probes(node: &Node) -> String {
    let mut document = Exposition::default();
    let counted = node.counters.probes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut family =
        document.family("prober_probe_total", "counter", "Probe attempts of a container, by kind and result.");
    for (key, count) in &counted {
        let labels = [
            ("container", key.container.as_str()),
            ("namespace", &key.pod[0]),
            ("pod", &key.pod[1]),
            ("pod_uid", &key.pod[2]),
            ("probe_type", key.kind.as_str()),
            ("result", if key.passed { "successful" } else { "failed" }),
        ];
        family.sample(&labels, float(*count), None);
    }
    document.finish()
}

/// `/metrics`: the kubelet itself.
pub fn kubelet(node: &Node) -> String {
    let mut document = Exposition::default();
    let mut pods = 0;
    let mut states: BTreeMap<&str, u64> = BTreeMap::from([("created", 0), ("exited", 0), ("running", 0)]);
    let mut bound: BTreeSet<String> = BTreeSet::new();
    for handle in node.registry.all() {
        let view = handle.view.lock().unwrap_or_else(PoisonError::into_inner);
        pods += u64::from(view.sandbox_id.is_some());
        for container in view.containers.values() {
            *states.entry(if container.running { "running" } else { "exited" }).or_default() += 1;
        }
        bound.extend(handle.pod.borrow().metadata.uid.clone());
    }
    document.family("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox").sample(
        &[],
        float(pods),
        None,
    );
    let mut family = document.family("kubelet_running_containers", "gauge", "Number of containers currently running");
    for (state, count) in &states {
        family.sample(&[("container_state", state)], float(*count), None);
    }
    document
        .family("kubelet_desired_pods", "gauge", "The number of pods the kubelet is being instructed to run")
        .sample(&[("static", "")], float(u64::try_from(bound.len()).unwrap_or(0)), None);
    document.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.").sample(
        &[("node", &node.config.node_name)],
        1.0,
        None,
    );
    document.family("kubernetes_build_info", "gauge", "The version that runs, with a constant 1.").sample(
        &[("git_version", meta::version::GIT_VERSION), ("platform", "linux")],
        1.0,
        None,
    );
    process(&mut document, node);
    document.finish()
}

/// What every Prometheus client says of its process.
fn process(document: &mut Exposition, node: &Node) {
    let start = node.started.as_duration().as_secs_f64();
    document
        .family("process_start_time_seconds", "gauge", "Start time of the process since the Unix epoch in seconds.")
        .sample(&[], start, None);
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Vec<u64> = statm.split(' ').filter_map(|n| n.trim().parse().ok()).collect();
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096);
    if let [virtual_pages, resident_pages, ..] = pages.as_slice() {
        let mut gauge = |name, help, pages: u64| {
            document.family(name, "gauge", help).sample(&[], float(pages * page), None);
        };
        gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", *virtual_pages);
        gauge("process_resident_memory_bytes", "Resident memory size in bytes.", *resident_pages);
    }
    let files = std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0);
    let files = u64::try_from(files).unwrap_or(0);
    document.family("process_open_fds", "gauge", "Number of open file descriptors.").sample(&[], float(files), None);
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    if let Ok(used) = used {
        let time = |t: nix::sys::time::TimeVal| {
            seconds(
                u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_usec()).unwrap_or(0) * 1000,
            )
        };
        document
            .family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.")
            .sample(&[], time(used.user_time()) + time(used.system_time()), None);
    }
}
