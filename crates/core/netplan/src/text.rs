//! The language of this crate's tests: one object per line.
//!
//! ```text
//! service default/web 10.96.0.20 http/tcp/80/30080 external=1.2.3.4 lb=5.6.7.8 from=10.0.0.0/8 affinity=10 internal=Local external-policy=Local
//! service default/db None sql/tcp/5432          service default/out ->example.test
//! slice default/web-1 web http/tcp/8080 : 10.200.1.3@n1 10.200.1.4@n2!terminating a=10.200.1.5@n1!unready
//! ```

use crate::view::{EndpointView, Frontend, Key, Protocol, ServicePort, ServiceView, SliceView};

pub enum Line {
    Service(Key, ServiceView),
    Slice(Key, SliceView),
    Gone(Key),
}

fn key(text: &str) -> Key {
    let (namespace, name) = text.split_once('/').unwrap();
    Key::new(namespace, name)
}

fn protocol(text: &str) -> Protocol {
    Protocol::parse(Some(&text.to_uppercase())).unwrap()
}

pub fn parse(line: &str) -> Line {
    let mut words = line.split_whitespace();
    match words.next().unwrap() {
        "service" => {
            let name = key(words.next().unwrap());
            Line::Service(name, service(words))
        }
        "slice" => {
            let name = key(words.next().unwrap());
            let service = Key::new(name.namespace.clone(), words.next().unwrap());
            Line::Slice(name, slice(service, words))
        }
        "gone" => Line::Gone(key(words.next().unwrap())),
        other => panic!("unknown word {other}"),
    }
}

fn service<'a>(mut words: impl Iterator<Item = &'a str>) -> ServiceView {
    let frontend = match words.next().unwrap() {
        "None" => Frontend::Headless,
        "-" => Frontend::Pending,
        text if text.starts_with("->") => Frontend::External(text[2..].to_owned()),
        ips => Frontend::Cluster(ips.split(',').map(|ip| ip.parse().unwrap()).collect()),
    };
    let mut view = ServiceView {
        frontend,
        ports: vec![],
        external_ips: Default::default(),
        load_balancer_ips: Default::default(),
        source_ranges: Default::default(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        health_check_port: 0,
        other_proxy: false,
    };
    for word in words {
        match word.split_once('=') {
            Some(("external", ip)) => drop(view.external_ips.insert(ip.parse().unwrap())),
            Some(("lb", ip)) => drop(view.load_balancer_ips.insert(ip.parse().unwrap())),
            Some(("from", range)) => drop(view.source_ranges.insert(range.to_owned())),
            Some(("affinity", seconds)) => view.affinity_seconds = Some(seconds.parse().unwrap()),
            Some(("health", port)) => view.health_check_port = port.parse().unwrap(),
            Some(("internal", policy)) => view.internal_local = policy == "Local",
            Some(("external-policy", policy)) => view.external_local = policy == "Local",
            Some(other) => panic!("unknown option {other:?}"),
            None => {
                let parts: Vec<&str> = word.split('/').collect();
                view.ports.push(ServicePort {
                    name: parts[0].to_owned(),
                    protocol: protocol(parts[1]),
                    port: parts[2].parse().unwrap(),
                    node_port: parts.get(3).map_or(0, |port| port.parse().unwrap()),
                });
            }
        }
    }
    view
}

fn slice<'a>(service: Key, words: impl Iterator<Item = &'a str>) -> SliceView {
    let mut view = SliceView { service, ipv6: false, not_proxied: false, ports: vec![], endpoints: vec![] };
    let mut in_endpoints = false;
    for word in words {
        match word {
            ":" => in_endpoints = true,
            _ if !in_endpoints => {
                let parts: Vec<&str> = word.split('/').collect();
                view.ports.push((parts[0].to_owned(), protocol(parts[1]), parts[2].parse().unwrap()));
            }
            _ => view.endpoints.push(endpoint(word)),
        }
    }
    view.ipv6 = view.endpoints.iter().any(|e| e.addresses[0].contains(':'));
    view
}

fn endpoint(word: &str) -> EndpointView {
    let (rest, state) = word.split_once('!').unwrap_or((word, "ready"));
    let (rest, hint) = rest.split_once('~').unwrap_or((rest, ""));
    let (hostname, rest) = rest.split_once('=').map_or((None, rest), |(name, rest)| (Some(name.to_owned()), rest));
    let (ip, node) = rest.split_once('@').map_or((rest, None), |(ip, node)| (ip, Some(node.to_owned())));
    EndpointView {
        addresses: vec![ip.to_owned()],
        hostname,
        node,
        ready: state == "ready",
        serving: state != "unready",
        terminating: state == "terminating",
        zones: (!hint.is_empty()).then(|| hint.to_owned()).into_iter().collect(),
        nodes: vec![],
    }
}
