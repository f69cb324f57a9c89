//! Pod Security Standards: what the labels of a namespace allow its pods, in upstream's words.
//!
//! The checks are those of the newest version; a namespace that pins an older one is judged by the same.

use std::collections::BTreeSet;
use std::fmt;

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io/";
const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// A level at a version, as messages show it: `restricted:latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    pub version: String,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", LEVELS[self.level as usize], self.version)
    }
}

/// What a namespace says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

/// Reads the labels of a namespace, with complaints about those that make no sense; they count as the strictest.
pub fn policy(labels: &Value) -> (Policy, FieldErrors) {
    let mut errors = Vec::new();
    let mut one = |mode: &str| {
        let path = |key: &str| FieldPath::new("metadata").child("labels").key(key);
        let key = format!("{PREFIX}{mode}");
        let level = match labels[&key].as_str() {
            None => Level::Privileged,
            Some("privileged") => Level::Privileged,
            Some("baseline") => Level::Baseline,
            Some("restricted") => Level::Restricted,
            Some(other) => {
                let why = format!("must be one of {}", LEVELS.join(", "));
                errors.push(FieldError::invalid(&path(&key), other, why));
                // Who asked for something gets no less than they may have meant, except for enforcement.
                if mode == "enforce" { Level::Restricted } else { Level::Privileged }
            }
        };
        let key = format!("{PREFIX}{mode}-version");
        let version = labels[&key].as_str().unwrap_or("latest");
        if !is_version(version) {
            errors.push(FieldError::invalid(&path(&key), version, "must be \"latest\" or \"v1.x\""));
        }
        LevelVersion { level, version: version.to_owned() }
    };
    let enforce = one("enforce");
    let audit = one("audit");
    let mut warn = one("warn");
    // What is enforced is warned about too, unless the namespace says otherwise.
    if labels[&format!("{PREFIX}warn")].is_null() && enforce.level > warn.level {
        warn = enforce.clone();
    }
    (Policy { enforce, audit, warn }, errors)
}

fn is_version(version: &str) -> bool {
    let minor = version.strip_prefix("v1.");
    version == "latest"
        || minor.is_some_and(|minor| {
            !minor.is_empty() && minor.bytes().all(|c| c.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'))
        })
}

/// Something that a level does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

/// All of them in one sentence.
pub fn sentence(violations: &[Violation]) -> String {
    let one = |violation: &Violation| match violation.detail.as_str() {
        "" => violation.reason.clone(),
        detail => format!("{} ({detail})", violation.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What a level does not allow in a pod, or in the template of one.
pub fn violations(level: Level, pod: &Value) -> Vec<Violation> {
    let pod = Pod { metadata: &pod["metadata"], spec: &pod["spec"] };
    let restricted = level == Level::Restricted;
    let mut found = Vec::new();
    if level == Level::Privileged {
        return found;
    }
    found.extend(pod.app_armor());
    if !restricted {
        found.extend(pod.capabilities());
    }
    found.extend(pod.host_namespaces());
    if !restricted {
        found.extend(pod.host_path());
    }
    found.extend(pod.host_ports());
    found.extend(pod.probe_hosts());
    found.extend(pod.privileged());
    found.extend(pod.proc_mount(restricted));
    found.extend(pod.selinux());
    if !restricted {
        found.extend(pod.seccomp(false));
    }
    found.extend(pod.sysctls());
    found.extend(pod.host_process());
    if restricted {
        found.extend(pod.privilege_escalation());
        found.extend(pod.restricted_capabilities());
        found.extend(pod.restricted_volumes());
        found.extend(pod.run_as_non_root());
        found.extend(pod.run_as_user());
        found.extend(pod.seccomp(true));
    }
    found
}

struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural(names.len(), "container", "containers"), quoted(names))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn violation(reason: &str, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail: detail.into() })
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(self.spec, list))
    }

    /// The names of containers that are as asked.
    fn those(&self, mut is: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| is(container)).map(|container| text(container, "name")).collect()
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Pods in a user namespace of their own are nobody outside of it.
    fn has_user_namespace(&self) -> bool {
        self.spec["hostUsers"] == false
    }

    /// `pod and container "a"`, or nothing.
    fn setters(&self, pod: bool, names: &[&str]) -> Option<String> {
        let mut all = Vec::new();
        if pod {
            all.push("pod".to_owned());
        }
        if !names.is_empty() {
            all.push(containers(names));
        }
        (!all.is_empty()).then(|| all.join(" and "))
    }

    /// A security setting that pod and containers may have, with the values that are not allowed.
    fn setting(&self, bad: impl Fn(&'a Value) -> Option<&'a str>) -> (bool, Vec<&'a str>, BTreeSet<&'a str>) {
        let mut values = BTreeSet::new();
        let own = bad(&self.spec["securityContext"]);
        values.extend(own);
        let names = self.those(|container| {
            let found = bad(&container["securityContext"]);
            values.extend(found);
            found.is_some()
        });
        (own.is_some(), names, values)
    }

    fn app_armor(&self) -> Option<Violation> {
        const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
        let (pod, names, values) = self.setting(|context| {
            let of = context["appArmorProfile"]["type"].as_str()?;
            (!matches!(of, "RuntimeDefault" | "Localhost")).then_some(of)
        });
        let mut setters: Vec<String> = self.setters(pod, &names).into_iter().collect();
        let mut values: Vec<String> = values.into_iter().map(str::to_owned).collect();
        let annotations = self.metadata["annotations"].as_object().into_iter().flatten();
        let mut forbidden: Vec<String> = annotations
            .filter_map(|(key, value)| Some((key, value.as_str()?)))
            .filter(|(key, value)| {
                let fits = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
                key.starts_with(ANNOTATION) && !fits
            })
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect();
        if !forbidden.is_empty() {
            forbidden.sort_unstable();
            setters.push(plural(forbidden.len(), "annotation", "annotations").to_owned());
            values.extend(forbidden);
        }
        if setters.is_empty() {
            return None;
        }
        let reason = plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
        let detail = format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values));
        violation(reason, detail)
    }

    fn capabilities(&self) -> Option<Violation> {
        const ALLOWED: [&str; 13] = [
            "AUDIT_WRITE",
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "MKNOD",
            "NET_BIND_SERVICE",
            "SETFCAP",
            "SETGID",
            "SETPCAP",
            "SETUID",
            "SYS_CHROOT",
        ];
        let (names, found) = self.added(|capability| ALLOWED.contains(&capability));
        if names.is_empty() {
            return None;
        }
        let what = quoted(found);
        let detail = format!("{} must not include {what} in securityContext.capabilities.add", containers(&names));
        violation("non-default capabilities", detail)
    }

    /// Containers that add capabilities beyond those allowed, and which.
    fn added(&self, allowed: impl Fn(&str) -> bool) -> (Vec<&'a str>, BTreeSet<&'a str>) {
        let mut found = BTreeSet::new();
        let names = self.those(|container| {
            let added = items(&container["securityContext"]["capabilities"], "add").filter_map(Value::as_str);
            let bad: Vec<&str> = added.filter(|capability| !allowed(capability)).collect();
            found.extend(bad.iter().copied());
            !bad.is_empty()
        });
        (names, found)
    }

    fn restricted_capabilities(&self) -> Option<Violation> {
        if self.is_windows() {
            return None;
        }
        let keeps = self.those(|container| {
            !items(&container["securityContext"]["capabilities"], "drop").any(|capability| capability == "ALL")
        });
        let (adds, found) = self.added(|capability| capability == "NET_BIND_SERVICE");
        let mut details = Vec::new();
        if !keeps.is_empty() {
            details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeps)));
        }
        if !adds.is_empty() {
            let what = quoted(found);
            details.push(format!("{} must not include {what} in securityContext.capabilities.add", containers(&adds)));
        }
        (!details.is_empty()).then(|| violation("unrestricted capabilities", details.join("; "))).flatten()
    }

    fn host_namespaces(&self) -> Option<Violation> {
        let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|key| self.spec[*key] == true);
        let set: Vec<String> = set.map(|key| format!("{key}=true")).collect();
        (!set.is_empty()).then(|| violation("host namespaces", set.join(", "))).flatten()
    }

    fn host_path(&self) -> Option<Violation> {
        let volumes = items(self.spec, "volumes").filter(|volume| volume["hostPath"].is_object());
        let names: Vec<&str> = volumes.map(|volume| text(volume, "name")).collect();
        let what = plural(names.len(), "volume", "volumes");
        (!names.is_empty()).then(|| violation("hostPath volumes", format!("{what} {}", quoted(&names)))).flatten()
    }

    fn host_ports(&self) -> Option<Violation> {
        let mut ports = BTreeSet::new();
        let names = self.those(|container| {
            let used = items(container, "ports").filter_map(|port| port["hostPort"].as_u64()).filter(|port| *port != 0);
            let used: Vec<String> = used.map(|port| port.to_string()).collect();
            let any = !used.is_empty();
            ports.extend(used);
            any
        });
        if names.is_empty() {
            return None;
        }
        let shown = ports.iter().cloned().collect::<Vec<_>>().join(", ");
        let (uses, what) = (plural(names.len(), "uses", "use"), plural(ports.len(), "hostPort", "hostPorts"));
        violation("hostPort", format!("{} {uses} {what} {shown}", containers(&names)))
    }

    fn probe_hosts(&self) -> Option<Violation> {
        let mut hosts = BTreeSet::new();
        let names = self.those(|container| {
            let lifecycle = &container["lifecycle"];
            let all = [
                &container["livenessProbe"],
                &container["readinessProbe"],
                &container["startupProbe"],
                &lifecycle["postStart"],
                &lifecycle["preStop"],
            ];
            let hosts_of = all.into_iter().flat_map(|one| [&one["httpGet"], &one["tcpSocket"]]);
            let used: Vec<&str> = hosts_of.map(|one| text(one, "host")).filter(|host| !host.is_empty()).collect();
            hosts.extend(used.iter().copied());
            !used.is_empty()
        });
        if names.is_empty() {
            return None;
        }
        let names: BTreeSet<&str> = names.into_iter().collect();
        let names: Vec<&str> = names.into_iter().collect();
        let uses = plural(names.len(), "uses", "use");
        let what = plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts");
        violation("probe or lifecycle host", format!("{} {uses} {what} {}", containers(&names), quoted(hosts)))
    }

    fn privileged(&self) -> Option<Violation> {
        let names = self.those(|container| container["securityContext"]["privileged"] == true);
        let detail = || format!("{} must not set securityContext.privileged=true", containers(&names));
        (!names.is_empty()).then(|| violation("privileged", detail())).flatten()
    }

    fn proc_mount(&self, restricted: bool) -> Option<Violation> {
        if !restricted && self.has_user_namespace() {
            return None;
        }
        let mut found = BTreeSet::new();
        let names = self.those(|container| {
            let mount = container["securityContext"]["procMount"].as_str().filter(|mount| *mount != "Default");
            found.extend(mount);
            mount.is_some()
        });
        let detail =
            || format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(found.clone()));
        (!names.is_empty()).then(|| violation("procMount", detail())).flatten()
    }

    fn selinux(&self) -> Option<Violation> {
        const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
        let mut types = BTreeSet::new();
        let (mut user, mut role) = (false, false);
        let mut bad = |context: &'a Value| {
            let options = &context["seLinuxOptions"];
            let known = TYPES.contains(&text(options, "type"));
            let (has_user, has_role) = (!text(options, "user").is_empty(), !text(options, "role").is_empty());
            if !known {
                types.insert(text(options, "type"));
            }
            user |= has_user;
            role |= has_role;
            !known || has_user || has_role
        };
        let pod = bad(&self.spec["securityContext"]);
        let names = self.those(|container| bad(&container["securityContext"]));
        let setters = self.setters(pod, &names)?;
        let mut data = Vec::new();
        if !types.is_empty() {
            data.push(format!("{} {}", plural(types.len(), "type", "types"), quoted(types)));
        }
        if user {
            data.push("user may not be set".to_owned());
        }
        if role {
            data.push("role may not be set".to_owned());
        }
        let detail = format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
        violation("seLinuxOptions", detail)
    }

    fn seccomp(&self, restricted: bool) -> Option<Violation> {
        if restricted && self.is_windows() {
            return None;
        }
        let (pod, names, values) = self.setting(|context| {
            let of = context["seccompProfile"]["type"].as_str()?;
            (!matches!(of, "RuntimeDefault" | "Localhost")).then_some(of)
        });
        if let Some(setters) = self.setters(pod, &names) {
            let detail = format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(values));
            return violation("seccompProfile", detail);
        }
        let set = |context: &Value| context["seccompProfile"].is_object();
        if !restricted || set(&self.spec["securityContext"]) {
            return None;
        }
        let names = self.those(|container| !set(&container["securityContext"]));
        let detail = || {
            format!(
                "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
                containers(&names)
            )
        };
        (!names.is_empty()).then(|| violation("seccompProfile", detail())).flatten()
    }

    fn sysctls(&self) -> Option<Violation> {
        const ALLOWED: [&str; 12] = [
            "kernel.shm_rmid_forced",
            "net.ipv4.ip_local_port_range",
            "net.ipv4.tcp_syncookies",
            "net.ipv4.ping_group_range",
            "net.ipv4.ip_unprivileged_port_start",
            "net.ipv4.ip_local_reserved_ports",
            "net.ipv4.tcp_keepalive_time",
            "net.ipv4.tcp_fin_timeout",
            "net.ipv4.tcp_keepalive_intvl",
            "net.ipv4.tcp_keepalive_probes",
            "net.ipv4.tcp_rmem",
            "net.ipv4.tcp_wmem",
        ];
        let all = items(&self.spec["securityContext"], "sysctls").map(|sysctl| text(sysctl, "name"));
        let forbidden: Vec<&str> = all.filter(|name| !ALLOWED.contains(name)).collect();
        (!forbidden.is_empty()).then(|| violation("forbidden sysctls", forbidden.join(", "))).flatten()
    }

    fn host_process(&self) -> Option<Violation> {
        let set = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
        let names = self.those(|container| set(&container["securityContext"]));
        let setters = self.setters(set(&self.spec["securityContext"]), &names)?;
        violation("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
    }

    fn privilege_escalation(&self) -> Option<Violation> {
        if self.is_windows() {
            return None;
        }
        let names = self.those(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
        let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
        (!names.is_empty()).then(|| violation("allowPrivilegeEscalation != false", detail())).flatten()
    }

    fn restricted_volumes(&self) -> Option<Violation> {
        const ALLOWED: [&str; 8] = [
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "persistentVolumeClaim",
            "projected",
            "secret",
        ];
        const KNOWN: [&str; 21] = [
            "hostPath",
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "gitRepo",
            "nfs",
            "iscsi",
            "glusterfs",
            "rbd",
            "flexVolume",
            "cinder",
            "cephfs",
            "flocker",
            "fc",
            "azureFile",
            "vsphereVolume",
            "quobyte",
            "azureDisk",
            "photonPersistentDisk",
            "portworxVolume",
            "scaleIO",
            "storageos",
        ];
        let (mut names, mut types) = (Vec::new(), BTreeSet::new());
        for volume in items(self.spec, "volumes") {
            let has = |kind: &&&str| volume[**kind].is_object();
            if !ALLOWED.iter().any(|kind| has(&kind)) {
                names.push(text(volume, "name"));
                types.insert(KNOWN.iter().find(has).copied().unwrap_or("unknown"));
            }
        }
        if names.is_empty() {
            return None;
        }
        let (volumes, uses) = (plural(names.len(), "volume", "volumes"), plural(names.len(), "uses", "use"));
        let what = plural(types.len(), "restricted volume type", "restricted volume types");
        violation("restricted volume types", format!("{volumes} {} {uses} {what} {}", quoted(&names), quoted(types)))
    }

    fn run_as_non_root(&self) -> Option<Violation> {
        const REASON: &str = "runAsNonRoot != true";
        if self.has_user_namespace() {
            return None;
        }
        let flag = |context: &Value| context["runAsNonRoot"].as_bool();
        let own = flag(&self.spec["securityContext"]);
        let denies = self.those(|container| flag(&container["securityContext"]) == Some(false));
        if let Some(setters) = self.setters(own == Some(false), &denies) {
            return violation(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
        }
        let silent = self.those(|container| own != Some(true) && flag(&container["securityContext"]).is_none());
        let detail = || format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent));
        (!silent.is_empty()).then(|| violation(REASON, detail())).flatten()
    }

    fn run_as_user(&self) -> Option<Violation> {
        if self.has_user_namespace() {
            return None;
        }
        let is_root = |context: &Value| context["runAsUser"] == 0;
        let names = self.those(|container| is_root(&container["securityContext"]));
        let setters = self.setters(is_root(&self.spec["securityContext"]), &names)?;
        violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
    }
}

/// Whether an update of a pod is more than its metadata and what cannot break a level.
pub fn is_significant(new: &Value, old: &Value) -> bool {
    let containers = |pod: &Value| {
        let all = ["initContainers", "containers", "ephemeralContainers"].into_iter();
        all.map(|list| pod["spec"][list].as_array().map_or(0, Vec::len)).collect::<Vec<_>>()
    };
    let annotations = |pod: &Value| {
        let all = pod["metadata"]["annotations"].as_object().into_iter().flatten();
        let relevant = all.filter(|(key, _)| key.contains("apparmor.security") || key.contains("seccomp.security"));
        relevant.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
    };
    containers(new) != containers(old) || annotations(new) != annotations(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn violations_are_told_in_upstreams_words() {
        let pod = json!({"metadata": {}, "spec": {"hostNetwork": true, "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
            "containers": [{"name": "c", "ports": [{"hostPort": 80}], "securityContext": {"privileged": true}}]}});
        assert_eq!(
            sentence(&violations(Level::Baseline, &pod)),
            "host namespaces (hostNetwork=true), hostPath volumes (volume \"v\"), hostPort (container \"c\" uses hostPort 80), privileged (container \"c\" must not set securityContext.privileged=true)"
        );
        let plain = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert!(violations(Level::Baseline, &plain).is_empty());
        assert_eq!(
            sentence(&violations(Level::Restricted, &plain)),
            "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        let good = json!({"metadata": {}, "spec": {"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}});
        assert!(violations(Level::Restricted, &good).is_empty());
    }

    #[test]
    fn labels_say_what_holds() {
        let (found, errors) = policy(&json!({"pod-security.kubernetes.io/enforce": "baseline",
            "pod-security.kubernetes.io/enforce-version": "v1.36", "pod-security.kubernetes.io/warn": "x"}));
        assert_eq!((found.enforce.to_string().as_str(), errors.len()), ("baseline:v1.36", 1));
        assert_eq!(policy(&json!({})).0.enforce.level, Level::Privileged);
    }
}
