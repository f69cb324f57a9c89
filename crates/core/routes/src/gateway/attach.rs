//! Gateways' listeners, and which HTTPRoutes are attached to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::objects::{Class, GROUP, Gateway, Grant, HttpRoute, Listener, ParentRef, is_granted};
use super::rules::{CompiledRule, Context, Flaws};
use super::status::{Condition, GatewayStatus, ListenerStatus, RouteStatus};
use crate::Key;
use crate::endpoints::Resolver;
use crate::host::HostPattern;
use crate::settings::{CONTROLLER, Settings};
use crate::table::{Port, Route, sort};

/// The objects of Gateway API in a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Objects<'a> {
    pub classes: Vec<&'a Class>,
    pub gateways: Vec<&'a Gateway>,
    pub routes: Vec<&'a HttpRoute>,
    pub grants: Vec<&'a Grant>,
    /// Labels of namespaces, for listeners that choose routes by them.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// What is wrong with Secrets that were read; those in order have an empty text.
    pub certificates: BTreeMap<Key, String>,
}

/// Statuses of everything that is Tug's; the routes are in the ports.
#[derive(Debug, Default)]
pub struct Compiled {
    pub classes: Vec<Key>,
    pub gateways: Vec<GatewayStatus>,
    pub routes: Vec<RouteStatus>,
}

/// Whether any Gateway is Tug's to serve.
pub fn has_ours(objects: &Objects<'_>) -> bool {
    let ours = our_classes(objects);
    objects.gateways.iter().any(|gateway| ours.contains(gateway.spec.gateway_class_name.as_str()))
}

fn our_classes<'a>(objects: &Objects<'a>) -> BTreeSet<&'a str> {
    let ours = objects.classes.iter().filter(|class| class.spec.controller_name == CONTROLLER);
    ours.map(|class| class.key.name.as_str()).collect()
}

/// A listener that may serve, while routes are attached to it.
struct Open<'a> {
    listener: &'a Listener,
    host: HostPattern,
    port: u16,
    attached: BTreeSet<&'a Key>,
    conditions: Vec<Condition>,
    usable: bool,
    takes_routes: bool,
}

/// Compiles all Gateways of Tug's classes into `ports`, the oldest first.
pub fn compile(
    objects: &Objects<'_>,
    resolver: &mut Resolver<'_>,
    settings: &Settings,
    ports: &mut BTreeMap<u16, Port>,
) -> Compiled {
    let classes = our_classes(objects);
    let mut gateways: Vec<&Gateway> = objects.gateways.to_vec();
    gateways.retain(|gateway| classes.contains(gateway.spec.gateway_class_name.as_str()));
    gateways.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut open: HashMap<&Key, Vec<Open<'_>>> = HashMap::new();
    for gateway in &gateways {
        open.insert(&gateway.key, listeners(objects, gateway, ports));
    }
    let mut compiled =
        Compiled { classes: classes.iter().map(|name| Key::new("", *name)).collect(), ..Compiled::default() };
    let mut routes = objects.routes.clone();
    routes.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    for route in routes {
        let mut context = Context { route, grants: &objects.grants, settings, resolver };
        if let Some(status) = attach(objects, &mut context, &mut open, ports) {
            compiled.routes.push(status);
        }
    }
    for port in ports.values_mut() {
        for listener in port.gateways.values_mut() {
            sort(&mut listener.hosts);
        }
    }
    for gateway in gateways {
        let listeners = open.remove(&gateway.key).unwrap_or_default();
        compiled.gateways.push(gateway_status(gateway, listeners));
    }
    compiled
}

fn listeners<'a>(objects: &Objects<'_>, gateway: &'a Gateway, ports: &mut BTreeMap<u16, Port>) -> Vec<Open<'a>> {
    let mut seen: BTreeMap<(u16, HostPattern), usize> = BTreeMap::new();
    for listener in &gateway.spec.listeners {
        let host = HostPattern::gateway(listener.hostname.as_deref().unwrap_or_default());
        *seen.entry((u16::try_from(listener.port).unwrap_or(0), host)).or_default() += 1;
    }
    gateway.spec.listeners.iter().map(|listener| open_listener(objects, gateway, listener, &seen, ports)).collect()
}

fn open_listener<'a>(
    objects: &Objects<'_>,
    gateway: &Gateway,
    listener: &'a Listener,
    seen: &BTreeMap<(u16, HostPattern), usize>,
    ports: &mut BTreeMap<u16, Port>,
) -> Open<'a> {
    let host = HostPattern::gateway(listener.hostname.as_deref().unwrap_or_default());
    let port = u16::try_from(listener.port).unwrap_or(0);
    let tls = listener.protocol == "HTTPS";
    let mut accepted = Condition::new("Accepted", true, "Accepted", "");
    let mut resolved = Condition::new("ResolvedRefs", true, "ResolvedRefs", "");
    let mut conflicted = Condition::new("Conflicted", false, "NoConflicts", "");
    let kinds = listener.allowed_routes.kinds.as_deref();
    let is_route =
        |kind: &super::objects::GroupKind| kind.kind == "HTTPRoute" && kind.group.as_deref().unwrap_or(GROUP) == GROUP;
    let takes_routes = kinds.is_none_or(|kinds| kinds.iter().any(is_route));
    if kinds.is_some_and(|kinds| !kinds.iter().all(is_route)) {
        resolved = Condition::new("ResolvedRefs", false, "InvalidRouteKinds", "only HTTPRoutes are served");
    }
    let protocol_known = tls || listener.protocol == "HTTP";
    if !protocol_known {
        let message = format!("protocol {:?} is not served, HTTP and HTTPS are", listener.protocol);
        accepted = Condition::new("Accepted", false, "UnsupportedProtocol", message);
    } else if port == 0 {
        accepted = Condition::new("Accepted", false, "PortUnavailable", "the port is none");
    }
    let mut secrets = Vec::new();
    if tls {
        let (found, flaw) = certificates(objects, gateway, listener);
        secrets = found;
        resolved = flaw.unwrap_or(resolved);
    }
    let conflict = if seen.get(&(port, host.clone())).is_some_and(|count| *count > 1) {
        Some(("HostnameConflict", "another listener has the same port and hostname"))
    } else if ports.get(&port).is_some_and(|known| known.tls != tls) && protocol_known {
        Some(("ProtocolConflict", "the port already speaks another protocol"))
    } else {
        None
    };
    if let Some((reason, message)) = conflict {
        conflicted = Condition::new("Conflicted", true, reason, message);
    }
    let usable = accepted.is_true && conflict.is_none() && (!tls || !secrets.is_empty());
    if usable {
        let place = ports.entry(port).or_insert_with(|| Port { tls, ..Port::default() });
        place.gateways.entry(&host);
        for secret in secrets {
            place.certificates.entry(&host).get_or_insert(secret);
        }
    }
    let programmed = if usable && resolved.is_true {
        Condition::new("Programmed", true, "Programmed", "")
    } else {
        Condition::new("Programmed", false, "Invalid", "see the other conditions")
    };
    let conditions = vec![accepted, programmed, resolved, conflicted];
    Open { listener, host, port, attached: BTreeSet::new(), conditions, usable, takes_routes }
}

/// The Secrets that a listener may use, and what is wrong with one of them.
fn certificates(objects: &Objects<'_>, gateway: &Gateway, listener: &Listener) -> (Vec<Key>, Option<Condition>) {
    let invalid = |message: String| Some(Condition::new("ResolvedRefs", false, "InvalidCertificateRef", message));
    let Some(tls) = &listener.tls else { return (vec![], invalid("an HTTPS listener needs tls".to_owned())) };
    if tls.mode.as_deref().is_some_and(|mode| mode != "Terminate") {
        return (vec![], invalid("TLS is terminated here; mode Passthrough is not served".to_owned()));
    }
    if tls.certificate_refs.is_empty() {
        return (vec![], invalid("no certificateRefs".to_owned()));
    }
    let (mut usable, mut flaw) = (Vec::new(), None);
    for reference in &tls.certificate_refs {
        let key = reference.key(&gateway.key.namespace);
        let here = key.namespace == gateway.key.namespace;
        if !reference.is_core("Secret") {
            flaw = invalid(format!("certificate {key} is no Secret"));
        } else if !here && !is_granted(&objects.grants, "Gateway", &gateway.key.namespace, "Secret", &key) {
            let message = format!("no ReferenceGrant permits Secret {key}");
            flaw = Some(Condition::new("ResolvedRefs", false, "RefNotPermitted", message));
        } else {
            if let Some(why) = objects.certificates.get(&key).filter(|why| !why.is_empty()) {
                flaw = invalid(format!("Secret {key}: {why}"));
            }
            usable.push(key);
        }
    }
    (usable, flaw)
}

/// Attaches a route to the listeners of its parents; `None` when none of them is Tug's.
fn attach<'a>(
    objects: &Objects<'_>,
    context: &mut Context<'a, '_, '_>,
    open: &mut HashMap<&Key, Vec<Open<'a>>>,
    ports: &mut BTreeMap<u16, Port>,
) -> Option<RouteStatus> {
    let route = context.route;
    let of_ours = |parent: &&ParentRef| parent.gateway(&route.key.namespace).is_some_and(|key| open.contains_key(&key));
    let parents: Vec<&ParentRef> = route.spec.parent_refs.iter().filter(of_ours).collect();
    if parents.is_empty() {
        return None;
    }
    let (rules, flaws) = context.rules();
    let mut status = RouteStatus { key: route.key.clone(), generation: route.generation, parents: vec![] };
    for parent in parents {
        let listeners = parent.gateway(&route.key.namespace).and_then(|key| open.get_mut(&key));
        let Some(listeners) = listeners else { continue };
        let accepted = to_parent(objects, route, parent, listeners, &rules, ports);
        status.parents.push((parent.clone(), route_conditions(accepted, &rules, &flaws)));
    }
    Some(status)
}

type Refusal = (&'static str, &'static str);

fn to_parent<'a>(
    objects: &Objects<'_>,
    route: &'a HttpRoute,
    parent: &ParentRef,
    listeners: &mut [Open<'a>],
    rules: &[CompiledRule],
    ports: &mut BTreeMap<u16, Port>,
) -> Result<(), Refusal> {
    let is_meant = |open: &&mut Open<'_>| {
        parent.section_name.as_ref().is_none_or(|name| *name == open.listener.name)
            && parent.port.is_none_or(|port| port == open.listener.port)
    };
    let mut meant: Vec<&mut Open<'a>> = listeners.iter_mut().filter(is_meant).collect();
    if meant.is_empty() {
        return Err(("NoMatchingParent", "the Gateway has no such listener"));
    }
    meant.retain(|open| open.takes_routes && admits(objects, route, parent, open));
    if meant.is_empty() {
        return Err(("NotAllowedByListeners", "no listener admits routes of this kind or namespace"));
    }
    let mut attached = false;
    for open in meant {
        let hosts = hosts(route, &open.host);
        if hosts.is_empty() {
            continue;
        }
        attached = true;
        open.attached.insert(&route.key);
        let Some(port) = ports.get_mut(&open.port).filter(|_| open.usable && !rules.is_empty()) else { continue };
        let listener = port.gateways.entry(&open.host);
        for host in &hosts {
            let routes = listener.hosts.entry(host);
            for rule in rules {
                let made = rule.conditions.iter();
                routes.extend(made.map(|c| Route { condition: c.clone(), action: rule.action.clone() }));
            }
        }
    }
    if attached { Ok(()) } else { Err(("NoMatchingListenerHostname", "no hostname fits a listener's")) }
}

fn hosts(route: &HttpRoute, listener: &HostPattern) -> Vec<HostPattern> {
    if route.spec.hostnames.is_empty() {
        return vec![listener.clone()];
    }
    route.spec.hostnames.iter().filter_map(|name| HostPattern::gateway(name).intersection(listener)).collect()
}

fn admits(objects: &Objects<'_>, route: &HttpRoute, parent: &ParentRef, open: &Open<'_>) -> bool {
    let namespaces = &open.listener.allowed_routes.namespaces;
    let gateway = parent.namespace.as_deref().unwrap_or(&route.key.namespace);
    match namespaces.from.as_deref().unwrap_or("Same") {
        "All" => true,
        "Same" => gateway == route.key.namespace,
        "Selector" => {
            let none = BTreeMap::new();
            let labels = objects.namespaces.get(&route.key.namespace).unwrap_or(&none);
            namespaces.selector.as_ref().is_some_and(|selector| selector.matches(labels))
        }
        _ => false,
    }
}

fn route_conditions(accepted: Result<(), Refusal>, rules: &[CompiledRule], flaws: &Flaws) -> Vec<Condition> {
    let mut conditions = vec![match (accepted, &flaws.accepted) {
        (Err((reason, message)), _) => Condition::new("Accepted", false, reason, message),
        (Ok(()), Some(flaw)) if rules.is_empty() => Condition::new("Accepted", false, flaw.reason, &*flaw.message),
        (Ok(()), _) => Condition::new("Accepted", true, "Accepted", ""),
    }];
    conditions.push(match &flaws.references {
        Some(flaw) => Condition::new("ResolvedRefs", false, flaw.reason, &*flaw.message),
        None => Condition::new("ResolvedRefs", true, "ResolvedRefs", ""),
    });
    if let Some(flaw) = flaws.accepted.as_ref().filter(|_| !rules.is_empty()) {
        let message = format!("Dropped Rule: {}", flaw.message);
        conditions.push(Condition::new("PartiallyInvalid", true, flaw.reason, message));
    }
    conditions
}

fn gateway_status(gateway: &Gateway, listeners: Vec<Open<'_>>) -> GatewayStatus {
    let valid = listeners.iter().filter(|open| open.conditions.iter().any(|c| c.type_ == "Programmed" && c.is_true));
    let (valid, all) = (valid.count(), listeners.len());
    let asked = gateway.spec.addresses.iter().any(|address| address.value.is_some());
    let accepted = if asked {
        Condition::new("Accepted", false, "UnsupportedAddress", "addresses are those of the nodes and cannot be chosen")
    } else if valid < all {
        Condition::new(
            "Accepted",
            valid > 0,
            "ListenersNotValid",
            format!("{} of {all} listeners are not valid", all - valid),
        )
    } else {
        Condition::new("Accepted", true, "Accepted", "")
    };
    let programmed = if valid > 0 && !asked {
        Condition::new("Programmed", true, "Programmed", "")
    } else {
        Condition::new("Programmed", false, "Invalid", "no listener is valid")
    };
    let listeners = listeners.into_iter().map(|open| ListenerStatus {
        name: open.listener.name.clone(),
        attached_routes: open.attached.len(),
        takes_routes: open.takes_routes,
        conditions: open.conditions,
    });
    GatewayStatus {
        key: gateway.key.clone(),
        generation: gateway.generation,
        conditions: vec![accepted, programmed],
        listeners: listeners.collect(),
    }
}
