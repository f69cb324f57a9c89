//! Addresses and ports that a Service gets from the cluster: which it needs, which it keeps, which are free.

use std::net::IpAddr;

use meta::address_range::{Range, family};
use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Value, json};

use super::json::{list, remove, set, text};

/// Random draws before the range is searched in order.
const DRAWS_MAX: usize = 32;
/// Of a range, this share is left to Services that name their address themselves.
const STATIC_SHARE: u64 = 16;
const STATIC_MIN: u64 = 16;
const STATIC_MAX: u64 = 256;

/// What a cluster gives to Services.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// One range or more of each family; the first is of the cluster's primary family.
    pub addresses: Vec<Range>,
    /// First and last node port.
    pub node_ports: (u16, u16),
}

/// What other Services hold.
pub trait Taken {
    fn address(&self, ip: IpAddr) -> bool;
    fn port(&self, port: u16) -> bool;
}

fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_port(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn needs_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// Addresses that a Service holds.
pub fn addresses(service: &Value) -> impl Iterator<Item = IpAddr> {
    let ips = list(&service["spec"], "clusterIPs").iter().chain(Some(&service["spec"]["clusterIP"]));
    ips.filter_map(Value::as_str).filter_map(|ip| ip.parse().ok())
}

/// Node ports that a Service holds.
pub fn ports(service: &Value) -> impl Iterator<Item = u16> {
    let ports = list(&service["spec"], "ports").iter().map(|port| &port["nodePort"]);
    let all = ports.chain(Some(&service["spec"]["healthCheckNodePort"]));
    all.filter_map(Value::as_u64).filter(|port| *port > 0).filter_map(|port| u16::try_from(port).ok())
}

/// Gives a new or changed Service what it needs. `draw` answers a random number below its argument.
pub fn settle(
    service: &mut Value,
    old: Option<&Value>,
    ranges: &Ranges,
    taken: &impl Taken,
    mut draw: impl FnMut(u64) -> u64,
) -> Result<(), FieldErrors> {
    let Some(spec) = service.get_mut("spec").filter(|spec| spec.is_object()) else { return Ok(()) };
    if let Some(old) = old {
        drop_unneeded(spec, &old["spec"]);
        keep(spec, &old["spec"]);
    }
    let mut errors = Vec::new();
    if needs_cluster_ip(spec) {
        settle_families(spec, ranges, &mut errors);
        if errors.is_empty() {
            settle_addresses(spec, ranges, taken, &mut draw, &mut errors);
        }
    }
    settle_ports(spec, old, ranges, taken, &mut draw, &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// A change of type takes away what only the old type has, where the author did not touch it.
fn drop_unneeded(spec: &mut Value, old: &Value) {
    let mut gone = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) && spec["clusterIPs"] == old["clusterIPs"] {
        gone.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if needs_health_check(old) && !needs_health_check(spec) && spec["healthCheckNodePort"] == old["healthCheckNodePort"]
    {
        gone.push("healthCheckNodePort");
    }
    let external = |spec: &Value| matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    if external(old) && !external(spec) && list(spec, "externalIPs").is_empty() {
        gone.push("externalTrafficPolicy");
    }
    if old["type"] == "LoadBalancer" && spec["type"] != "LoadBalancer" {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    remove(spec, &gone);
    if needs_node_port(old) && !needs_node_port(spec) {
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
        for port in ports.filter(|port| find_port(old, port).is_some_and(|own| own["nodePort"] == port["nodePort"])) {
            remove(port, &["nodePort"]);
        }
    }
}

fn find_port<'a>(spec: &'a Value, port: &Value) -> Option<&'a Value> {
    list(spec, "ports").iter().find(|own| own["port"] == port["port"] && own["protocol"] == port["protocol"])
}

/// What a change leaves out, it keeps.
fn keep(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(spec) && needs_cluster_ip(old) {
        let given = text(spec, "clusterIP").to_owned();
        if given.is_empty() || given == text(old, "clusterIP") {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec[field].is_null() || spec[field] == "" {
                    set(spec, field, old[field].clone());
                }
            }
        }
    }
    if needs_node_port(spec) && needs_node_port(old) {
        let used: Vec<Value> = list(spec, "ports").iter().map(|port| port["nodePort"].clone()).collect();
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let own = find_port(old, port).map(|own| own["nodePort"].clone());
            if let Some(own) =
                own.filter(|own| port["nodePort"].as_u64().unwrap_or_default() == 0 && !used.contains(own))
            {
                set(port, "nodePort", own);
            }
        }
    }
    if needs_health_check(spec) && needs_health_check(old) && spec["healthCheckNodePort"].is_null() {
        set(spec, "healthCheckNodePort", old["healthCheckNodePort"].clone());
    }
}

/// `ipFamilies` and `ipFamilyPolicy`, from what is given and what the cluster has.
fn settle_families(spec: &mut Value, ranges: &Ranges, errors: &mut FieldErrors) {
    let path = FieldPath::new("spec");
    let mut configured: Vec<&str> = Vec::new();
    for range in &ranges.addresses {
        if !configured.contains(&range.family()) {
            configured.push(range.family());
        }
    }
    let headless = spec["clusterIP"] == "None" || list(spec, "clusterIPs").first().is_some_and(|ip| ip == "None");
    let selects = spec["selector"].as_object().is_some_and(|selector| !selector.is_empty());
    let given: Vec<String> = list(spec, "ipFamilies").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if headless && !selects {
        if given.is_empty() {
            let second = if configured.first() == Some(&"IPv6") { "IPv4" } else { "IPv6" };
            let first = configured.first().copied().unwrap_or("IPv4");
            let single = spec["ipFamilyPolicy"] == "SingleStack";
            set(spec, "ipFamilies", if single { json!([first]) } else { json!([first, second]) });
        }
        if text(spec, "ipFamilyPolicy").is_empty() {
            let both = list(spec, "ipFamilies").len() == 2;
            set(spec, "ipFamilyPolicy", if both { "RequireDualStack" } else { "SingleStack" });
        }
        return;
    }
    for (i, family) in given.iter().enumerate().filter(|(_, family)| !configured.contains(&family.as_str())) {
        let path = path.child("ipFamilies").index(i);
        errors.push(FieldError::invalid(&path, family.as_str(), "not configured on this cluster"));
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack" && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), "RequireDualStack", why));
    }
    let dual = matches!(text(spec, "ipFamilyPolicy"), "PreferDualStack" | "RequireDualStack");
    if text(spec, "ipFamilyPolicy").is_empty() {
        set(spec, "ipFamilyPolicy", if given.len() == 2 { "RequireDualStack" } else { "SingleStack" });
    }
    let own = addresses(&json!({"spec": spec})).map(family).next();
    let mut families = given;
    if families.is_empty() {
        families.extend(own.or_else(|| configured.first().copied()).map(str::to_owned));
    }
    if dual && families.len() == 1 {
        families.extend(configured.iter().find(|family| **family != families[0]).map(|family| (*family).to_owned()));
    }
    set(spec, "ipFamilies", families);
}

fn settle_addresses(
    spec: &mut Value,
    ranges: &Ranges,
    taken: &impl Taken,
    draw: &mut impl FnMut(u64) -> u64,
    errors: &mut FieldErrors,
) {
    let first = text(spec, "clusterIP").to_owned();
    let mut ips: Vec<String> = list(spec, "clusterIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if ips.is_empty() && !first.is_empty() {
        ips.push(first);
    }
    let path = FieldPath::new("spec").child("clusterIPs");
    let families: Vec<String> = list(spec, "ipFamilies").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if ips.first().is_some_and(|ip| ip != "None") || ips.is_empty() {
        let given = json!(ips);
        for (i, family) in families.iter().enumerate() {
            let own: Vec<Range> = ranges.addresses.iter().copied().filter(|range| range.family() == family).collect();
            if own.is_empty() {
                continue;
            }
            match ips.get(i).map(|ip| ip.parse::<IpAddr>()) {
                Some(Ok(ip)) => {
                    if let Some(why) = refuse(&own, ip, taken) {
                        let why = format!("failed to allocate IP {ip}: {why}");
                        errors.push(FieldError::invalid(&path, given.clone(), why));
                    }
                }
                Some(Err(_)) => {}
                None => match own.iter().find_map(|range| free_address(*range, taken, draw)) {
                    Some(ip) => ips.push(ip.to_string()),
                    None => {
                        let why = "failed to allocate a serviceIP: range is full";
                        errors.push(FieldError::invalid(&path, given.clone(), why));
                    }
                },
            }
        }
    }
    set(spec, "clusterIP", ips.first().map(String::as_str).unwrap_or_default());
    set(spec, "clusterIPs", ips);
}

fn refuse(ranges: &[Range], ip: IpAddr, taken: &impl Taken) -> Option<String> {
    if !ranges.iter().any(|range| range.contains(ip)) {
        let valid = ranges.iter().map(Range::to_string).collect::<Vec<_>>().join(",");
        return Some(format!("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {valid}"));
    }
    taken.address(ip).then(|| "provided IP is already allocated".to_owned())
}

/// A free address: drawn from the upper part of the range, searched for where draws keep failing.
fn free_address(range: Range, taken: &impl Taken, draw: &mut impl FnMut(u64) -> u64) -> Option<IpAddr> {
    let size = range.size();
    let reserved = (size / STATIC_SHARE).clamp(STATIC_MIN, STATIC_MAX).min(size.saturating_sub(1));
    let upper = size - reserved;
    let drawn = (0..DRAWS_MAX).map(|_| range.at(1 + reserved + draw(upper.max(1))));
    let mut free = drawn.filter(|ip| !taken.address(*ip));
    free.next().or_else(|| (1..=size).rev().map(|place| range.at(place)).find(|ip| !taken.address(*ip)))
}

fn settle_ports(
    spec: &mut Value,
    old: Option<&Value>,
    ranges: &Ranges,
    taken: &impl Taken,
    draw: &mut impl FnMut(u64) -> u64,
    errors: &mut FieldErrors,
) {
    let needed = needs_node_port(spec);
    let health = needs_health_check(spec);
    let held: Vec<u16> = old.map(|old| ports(old).collect()).unwrap_or_default();
    let mut own: Vec<u16> = ports(&json!({"spec": spec})).collect();
    let path = FieldPath::new("spec");
    for (i, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let given = port["nodePort"].as_u64().unwrap_or_default();
        let path = path.child("ports").index(i).child("nodePort");
        if given > 0 {
            let (first, last) = ranges.node_ports;
            let number = u16::try_from(given).unwrap_or_default();
            let is_new = needed && !held.contains(&number);
            if is_new && !(first..=last).contains(&number) {
                let why = "provided port is not in the valid range. The range of valid ports is";
                errors.push(FieldError::invalid(&path, given, format!("{why} {first}-{last}")));
            } else if is_new && taken.port(number) {
                errors.push(FieldError::invalid(&path, given, "provided port is already allocated"));
            }
        } else if needed {
            match free_port(ranges, taken, &own, draw) {
                Some(number) => {
                    own.push(number);
                    set(port, "nodePort", number);
                }
                None => errors.push(FieldError::invalid(&path, 0, "failed to allocate a nodePort: range is full")),
            }
        }
    }
    if health && spec["healthCheckNodePort"].as_u64().unwrap_or_default() == 0 {
        match free_port(ranges, taken, &own, draw) {
            Some(number) => set(spec, "healthCheckNodePort", number),
            None => {
                let path = path.child("healthCheckNodePort");
                errors.push(FieldError::invalid(&path, 0, "failed to allocate a nodePort: range is full"));
            }
        }
    }
}

fn free_port(ranges: &Ranges, taken: &impl Taken, own: &[u16], draw: &mut impl FnMut(u64) -> u64) -> Option<u16> {
    let (first, last) = ranges.node_ports;
    let size = u64::from(last.saturating_sub(first)) + 1;
    let is_free = |port: &u16| !taken.port(*port) && !own.contains(port);
    let drawn = (0..DRAWS_MAX).filter_map(|_| u16::try_from(u64::from(first) + draw(size)).ok()).find(is_free);
    drawn.or_else(|| (first..=last).find(is_free))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Held(Vec<IpAddr>, Vec<u16>);

    impl Taken for Held {
        fn address(&self, ip: IpAddr) -> bool {
            self.0.contains(&ip)
        }

        fn port(&self, port: u16) -> bool {
            self.1.contains(&port)
        }
    }

    fn settled(spec: Value, old: Option<Value>) -> String {
        let network: IpAddr = [10, 98, 0, 0].into();
        let ranges = Ranges { addresses: vec![Range { network, prefix: 16 }], node_ports: (30000, 30002) };
        let held = Held(vec![[10, 98, 0, 1].into()], vec![30000]);
        let mut service = json!({"spec": spec});
        let old = old.map(|spec| json!({"spec": spec}));
        match settle(&mut service, old.as_ref(), &ranges, &held, |_| 0) {
            Ok(()) => service["spec"].to_string(),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn services_get_what_their_type_needs() {
        let np = json!({"type": "NodePort", "clusterIP": "10.98.0.7", "clusterIPs": ["10.98.0.7"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}]});
        for (spec, old, expected) in [
            (
                json!({"type": "ClusterIP"}),
                None,
                r#"{"clusterIP":"10.98.1.1","clusterIPs":["10.98.1.1"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","type":"ClusterIP"}"#,
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "1.2.3.4"}),
                None,
                r#"spec.clusterIPs: Invalid value: ["1.2.3.4"]: failed to allocate IP 1.2.3.4: the provided IP (1.2.3.4) is not in the valid range. The range of valid IPs is 10.98.0.0/16"#,
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "10.98.0.1"}),
                None,
                r#"spec.clusterIPs: Invalid value: ["10.98.0.1"]: failed to allocate IP 10.98.0.1: provided IP is already allocated"#,
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "None"}),
                None,
                r#"{"clusterIP":"None","clusterIPs":["None"],"ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"RequireDualStack","type":"ClusterIP"}"#,
            ),
            (
                json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack"}),
                None,
                r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30000}]}),
                None,
                "spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated",
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 99}]}),
                Some(np.clone()),
                "spec.ports[0].nodePort: Invalid value: 99: provided port is not in the valid range. The range of valid ports is 30000-30002",
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}),
                Some(np.clone()),
                r#"{"clusterIP":"10.98.0.7","clusterIPs":["10.98.0.7"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{"nodePort":30000,"port":80,"protocol":"TCP"}],"type":"NodePort"}"#,
            ),
            (
                json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}]}),
                Some(np),
                r#"{"clusterIP":"10.98.0.7","clusterIPs":["10.98.0.7"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{"port":80,"protocol":"TCP"}],"type":"ClusterIP"}"#,
            ),
        ] {
            assert_eq!(settled(spec.clone(), old), expected, "{spec}");
        }
        let ports = settled(json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}), None);
        assert!(ports.contains(r#""nodePort":30001"#) && ports.contains(r#""nodePort":30002"#), "{ports}");
        let full = settled(json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}, {"port": 3}]}), None);
        assert_eq!(full, "spec.ports[2].nodePort: Invalid value: 0: failed to allocate a nodePort: range is full");
    }
}
