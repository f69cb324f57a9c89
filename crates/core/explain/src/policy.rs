//! Which NetworkPolicies close a pod's port to everybody, and whom the others let in.

use meta::labels::Selector;
use serde_json::Value;

use crate::view::{list, name, namespace, number, text, texts};

/// Who reaches a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// No policy is about the pod, or one admits everybody.
    Everybody,
    /// These policies are about the pod, and none of them has a rule for the port.
    Nobody(Vec<String>),
    /// Only these, in words.
    Only { policies: Vec<String>, peers: Vec<String> },
}

/// A port as a connection finds it: its number, `TCP` or another protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port<'a> {
    pub number: i64,
    pub protocol: &'a str,
}

/// Who reaches the port as far as the policies of the pod's namespace tell.
pub(crate) fn reach(pod: &Value, port: Port<'_>, policies: &[Value]) -> Reach {
    if pod.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Reach::Everybody;
    }
    let (mut about, mut admitting, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for policy in policies.iter().filter(|policy| isolates(policy, pod)) {
        about.push(name(policy).to_owned());
        for rule in list(policy, "/spec/ingress").iter().filter(|rule| has_port(rule, pod, port)) {
            let from = list(rule, "/from");
            if from.is_empty() {
                return Reach::Everybody;
            }
            admitting.push(name(policy).to_owned());
            peers.extend(from.iter().map(peer_words));
        }
    }
    peers.sort();
    peers.dedup();
    admitting.dedup();
    match (about.is_empty(), admitting.is_empty()) {
        (true, _) => Reach::Everybody,
        (false, true) => Reach::Nobody(about),
        (false, false) => Reach::Only { policies: admitting, peers },
    }
}

/// Whether a policy limits who reaches the pod. Without types a policy is always about those who come.
fn isolates(policy: &Value, pod: &Value) -> bool {
    let types = texts(policy, "/spec/policyTypes");
    namespace(policy) == namespace(pod)
        && (types.is_empty() || types.iter().any(|type_| type_ == "Ingress"))
        && selects(policy.pointer("/spec/podSelector"), pod)
}

fn selects(selector: Option<&Value>, object: &Value) -> bool {
    let selector = selector.map_or_else(|| Some(Selector::default()), Selector::from_label_selector);
    selector.is_some_and(|selector| selector.matches(&object.pointer("/metadata/labels")))
}

fn has_port(rule: &Value, pod: &Value, port: Port<'_>) -> bool {
    let ports = list(rule, "/ports");
    ports.is_empty() || ports.iter().any(|one| is_port(one, pod, port))
}

fn is_port(one: &Value, pod: &Value, port: Port<'_>) -> bool {
    let protocol = Some(text(one, "/protocol")).filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
    let number_fits = match one.get("port") {
        None | Some(Value::Null) => true,
        Some(Value::String(name)) => named_port(pod, name, protocol) == Some(port.number),
        Some(first) => {
            let first = first.as_i64().unwrap_or(0);
            (first..=number(one, "/endPort").unwrap_or(first)).contains(&port.number)
        }
    };
    protocol == port.protocol && number_fits
}

/// Number of a pod's container port by its name.
pub(crate) fn named_port(pod: &Value, wanted: &str, protocol: &str) -> Option<i64> {
    let sidecars = list(pod, "/spec/initContainers").iter().filter(|one| text(one, "/restartPolicy") == "Always");
    let containers = list(pod, "/spec/containers").iter().chain(sidecars);
    let mut ports = containers.flat_map(|container| list(container, "/ports"));
    let of = |port: &&Value| {
        let is = Some(text(port, "/protocol")).filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
        text(port, "/name") == wanted && is == protocol
    };
    ports.find(of).and_then(|port| number(port, "/containerPort"))
}

/// `pods with app=web`, `pods with app=web of namespaces with team=a`, `10.0.0.0/8 without 10.1.0.0/16`.
fn peer_words(peer: &Value) -> String {
    if let Some(block) = peer.get("ipBlock") {
        let except = texts(block, "/except").join(", ");
        let without = if except.is_empty() { String::new() } else { format!(" without {except}") };
        return format!("{}{without}", text(block, "/cidr"));
    }
    let with = |selector: Option<&Value>| {
        let selector = selector.and_then(Selector::from_label_selector).unwrap_or_default();
        if selector.is_empty() { None } else { Some(selector.to_string()) }
    };
    let pods = match with(peer.get("podSelector")) {
        Some(labels) => format!("pods with {labels}"),
        None => "all pods".to_owned(),
    };
    match peer.get("namespaceSelector") {
        None => format!("{pods} of this namespace"),
        Some(selector) => match with(Some(selector)) {
            Some(labels) => format!("{pods} of namespaces with {labels}"),
            None => format!("{pods} of all namespaces"),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Port, Reach, reach};

    fn of(policies: &[Value]) -> String {
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "labels": {"app": "web"}},
            "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        match reach(&pod, Port { number: 8080, protocol: "TCP" }, policies) {
            Reach::Everybody => "everybody".to_owned(),
            Reach::Nobody(policies) => format!("nobody by {}", policies.join(", ")),
            Reach::Only { policies, peers } => format!("{} by {}", peers.join(" or "), policies.join(", ")),
        }
    }

    fn policy(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec})
    }

    #[test]
    fn policies_are_read_as_upstream_reads_them() {
        let deny = policy("deny", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
        let other = policy("other", json!({"podSelector": {"matchLabels": {"app": "db"}}}));
        let egress = policy("egress", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
        let rule = |from: Value, ports: Value| {
            let spec =
                json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from, "ports": ports}]});
            policy("rule", spec)
        };
        let front = json!([{"podSelector": {"matchLabels": {"app": "front"}}}]);
        assert_eq!(of(&[]), "everybody");
        assert_eq!(of(&[other, egress]), "everybody");
        assert_eq!(of(std::slice::from_ref(&deny)), "nobody by deny");
        assert_eq!(of(&[deny.clone(), rule(json!([]), json!([]))]), "everybody");
        assert_eq!(of(&[rule(front.clone(), json!([{"port": 80}]))]), "nobody by rule");
        assert_eq!(of(&[rule(front.clone(), json!([{"port": 8080, "protocol": "UDP"}]))]), "nobody by rule");
        let admitted = "pods with app=front of this namespace by rule";
        assert_eq!(of(&[deny, rule(front.clone(), json!([{"port": "http"}]))]), admitted);
        assert_eq!(of(&[rule(front, json!([{"port": 8000, "endPort": 9000}]))]), admitted);
        let many = json!([{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            {"namespaceSelector": {"matchLabels": {"team": "x"}}}, {"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}}]);
        assert_eq!(
            of(&[rule(many, json!([]))]),
            "10.0.0.0/8 without 10.1.0.0/16 or all pods of namespaces with team=x or pods with a=b of all namespaces by rule"
        );
    }
}
