//! Host name, `/etc/hosts` and resolver configuration of a pod.

use crate::config::KubeletConfig;
use crate::runtime::cri::DnsConfig;
use k8s_openapi::api::core::v1::Pod;
use std::fmt::Write as _;

/// Most characters of a host name.
const HOSTNAME_MAX: usize = 63;

/// Most characters of a host name that the kernel takes.
const KERNEL_HOSTNAME_MAX: usize = 64;
/// What resolvers take of a configuration.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

/// The pod's host name and, when it has a subdomain, its fully qualified name.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = pod.spec.as_ref();
    if let Some(name) = spec.and_then(|s| s.hostname_override.clone()).filter(|n| !n.is_empty()) {
        return (name, None);
    }
    let own = spec.and_then(|s| s.hostname.as_deref()).filter(|h| !h.is_empty());
    let name = own.or(pod.metadata.name.as_deref()).unwrap_or_default();
    let short: String = name.chars().take(HOSTNAME_MAX).collect();
    let short = short.trim_end_matches(['-', '.']).to_string();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let subdomain = spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty());
    let full = subdomain.map(|sub| format!("{short}.{sub}.{namespace}.svc.{cluster_domain}"));
    let as_full = spec.and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    match (&full, as_full) {
        (Some(name), true) => (name.clone(), full),
        _ => (short, full),
    }
}

/// Text of the managed `/etc/hosts`.
pub fn hosts_file(pod: &Pod, cluster_domain: &str, pod_ips: &[String], node_hosts: Option<&str>) -> String {
    let mut text = String::new();
    match node_hosts {
        Some(hosts) => {
            text.push_str("# Kubernetes-managed hosts file (host network).\n");
            text.push_str(hosts);
        }
        None => {
            text.push_str(
                "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
            );
            text.push_str(
                "fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
            );
            let (name, full) = hostname(pod, cluster_domain);
            for ip in pod_ips {
                let _ = match &full {
                    Some(full) if *full != name => writeln!(text, "{ip}\t{full}\t{name}"),
                    _ => writeln!(text, "{ip}\t{name}"),
                };
            }
        }
    }
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
    text
}

fn node_resolver(config: &KubeletConfig) -> DnsConfig {
    let text = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_string)),
            Some("search") => dns.searches = words.map(str::to_string).collect(),
            Some("options") => dns.options = words.map(str::to_string).collect(),
            _ => {}
        }
    }
    dns
}

/// Resolver configuration by `dnsPolicy` and `dnsConfig`, within the limits of resolvers.
pub fn dns(pod: &Pod, config: &KubeletConfig) -> DnsConfig {
    within_limits(unlimited_dns(pod, config)).0
}

/// What the limits of resolvers leave out of the pod's configuration, as events tell it.
pub fn dns_excess(pod: &Pod, config: &KubeletConfig) -> Vec<String> {
    within_limits(unlimited_dns(pod, config)).1
}

fn within_limits(mut dns: DnsConfig) -> (DnsConfig, Vec<String>) {
    let mut told = Vec::new();
    if dns.servers.len() > NAMESERVERS_MAX {
        dns.servers.truncate(NAMESERVERS_MAX);
        told.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            dns.servers.join(" ")
        ));
    }
    let asked = dns.searches.len();
    dns.searches.truncate(SEARCHES_MAX);
    while dns.searches.join(" ").len() > SEARCH_CHARACTERS_MAX {
        dns.searches.pop();
    }
    if dns.searches.len() < asked {
        told.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            dns.searches.join(" ")
        ));
    }
    (dns, told)
}

/// Why the pod's host name cannot be set: the kernel takes 64 characters.
///
/// # Errors
/// The cause for the sandbox's failure.
pub fn check_hostname(pod: &Pod, cluster_domain: &str) -> Result<(), String> {
    let (name, _) = hostname(pod, cluster_domain);
    let length = name.chars().count();
    if length <= KERNEL_HOSTNAME_MAX {
        return Ok(());
    }
    Err(format!(
        "failed to construct FQDN from Pod hostname and cluster domain, FQDN {name} is too long \
         ({KERNEL_HOSTNAME_MAX} characters is the max, {length} characters requested)"
    ))
}

fn unlimited_dns(pod: &Pod, config: &KubeletConfig) -> DnsConfig {
    let Some(spec) = &pod.spec else { return DnsConfig::default() };
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = podsync::is_host_network(spec);
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !host_network,
        _ => false,
    };
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        _ if cluster && !config.cluster_dns.is_empty() => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let domain = &config.cluster_domain;
            let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.extend(node_resolver(config).searches);
            DnsConfig {
                servers: config.cluster_dns.iter().map(ToString::to_string).collect(),
                searches,
                options: vec!["ndots:5".into()],
            }
        }
        _ => node_resolver(config),
    };
    if let Some(own) = &spec.dns_config {
        dns.servers.extend(own.nameservers.iter().flatten().cloned());
        dns.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let same = |text: &String| text.split(':').next() == Some(name.as_str());
            dns.options.retain(|o| !same(o));
            dns.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    let mut seen = std::collections::HashSet::new();
    dns.servers.retain(|s| seen.insert(s.clone()));
    seen.clear();
    dns.searches.retain(|s| seen.insert(s.clone()));
    dns
}
