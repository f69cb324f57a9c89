//! Why a Service answers nobody: its selector, its pods, its ports, policies, or who gives it an address.

use std::collections::BTreeSet;

use meta::labels::Selector;
use serde_json::Value;

use crate::cause::Cause;
use crate::ending;
use crate::policy::{Port, Reach, named_port, reach};
use crate::view::{
    condition_is, event, event_line, flag, is_being_deleted, list, name, namespace, number, pairs, short, since, text,
};

/// Pods whose ports are tried.
const PODS_TRIED_MAX: usize = 3;
/// How long the control plane may take to list endpoints, and whoever gives addresses to give one, in seconds.
const ENDPOINTS_WITHIN: i64 = 5;
const ADDRESS_WITHIN: i64 = 10;

/// What came of an attempt to reach a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub pod: String,
    pub port: i64,
    /// Whether the connection was made, and not refused.
    pub listening: bool,
}

/// A pod that is to reach the Service, and how policies stand to that.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// `pod client`, as it was asked about.
    pub name: String,
    /// Policies of the caller's namespace that keep it in, by endpoint's pod.
    pub kept_in: Vec<(String, Vec<String>)>,
    /// Policies of the Service's namespace that keep it out, by endpoint's pod.
    pub kept_out: Vec<(String, Vec<String>)>,
}

/// What is known of a Service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceFacts<'a> {
    pub service: &'a Value,
    pub events: &'a [Value],
    pub slices: &'a [Value],
    /// Those of its namespace.
    pub pods: &'a [Value],
    /// What stands in the way of the worst of its pods.
    pub worst: Option<(&'a str, &'a [Cause])>,
    /// Where there are no pods: the workload whose template has the labels, as `deployment web`, and what stands in its
    /// way.
    pub maker: Option<(&'a str, &'a [Cause])>,
    /// NetworkPolicies of its namespace.
    pub policies: &'a [Value],
    /// Of the ports that `wants_attempts` asks for.
    pub attempts: &'a [Attempt],
    pub caller: Option<&'a Caller>,
    /// Names of the nodes that take traffic; nothing where the caller may not see them.
    pub nodes: Option<&'a [String]>,
    /// Seconds since the epoch.
    pub now: i64,
}

fn is_ready(pod: &Value) -> bool {
    condition_is(pod, "Ready", "True").is_some() && !is_being_deleted(pod)
}

fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// The pods that a Service's selector chooses; none where it has no selector.
pub fn selected<'a>(service: &Value, pods: &'a [Value]) -> Vec<&'a Value> {
    let Some(selector) = service.pointer("/spec/selector").filter(|map| map.as_object().is_some_and(|m| !m.is_empty()))
    else {
        return Vec::new();
    };
    let selector = Selector::from_map(selector);
    pods.iter().filter(|pod| selector.matches(&pod.pointer("/metadata/labels"))).collect()
}

/// A port of the Service and the number behind it at a pod, where the pod has it.
fn target(pod: &Value, port: &Value) -> Option<i64> {
    let protocol = protocol(port);
    match port.get("targetPort") {
        Some(Value::String(name)) => named_port(pod, name, protocol),
        Some(Value::Number(number)) => number.as_i64(),
        _ => number(port, "/port"),
    }
}

fn protocol(port: &Value) -> &str {
    Some(text(port, "/protocol")).filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

/// `http`, or `80` where the port has no name.
fn port_name(port: &Value) -> String {
    match text(port, "/name") {
        "" => number(port, "/port").unwrap_or(0).to_string(),
        name => name.to_owned(),
    }
}

/// Which ports of which pods are to be tried, by pod name.
pub fn wants_attempts(service: &Value, pods: &[Value]) -> Vec<(String, i64)> {
    let tcp = destinations(service, pods).into_iter().filter(|(.., protocol)| protocol == "TCP");
    let wanted: BTreeSet<(String, i64)> = tcp.map(|(pod, port, _)| (pod, port)).collect();
    wanted.into_iter().collect()
}

/// Pod, port and protocol behind the Service's ports, of a few of its ready pods.
pub fn destinations(service: &Value, pods: &[Value]) -> Vec<(String, i64, String)> {
    let ready = selected(service, pods).into_iter().filter(|pod| is_ready(pod)).take(PODS_TRIED_MAX);
    let of_pod = |pod: &Value| {
        let ports = list(service, "/spec/ports").iter();
        let found =
            ports.filter_map(|port| Some((name(pod).to_owned(), target(pod, port)?, protocol(port).to_owned())));
        found.collect::<Vec<_>>()
    };
    ready.flat_map(of_pod).collect()
}

fn endpoints(slices: &[Value]) -> impl Iterator<Item = &Value> {
    slices.iter().flat_map(|slice| list(slice, "/endpoints"))
}

fn is_serving(endpoint: &Value) -> bool {
    endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false)
}

impl<'a> ServiceFacts<'a> {
    /// How it is, in a few words.
    pub fn state(&self) -> String {
        let type_ = Some(text(self.service, "/spec/type")).filter(|t| !t.is_empty()).unwrap_or("ClusterIP");
        if type_ == "ExternalName" {
            return format!("ExternalName, stands for {}", text(self.service, "/spec/externalName"));
        }
        let address = match text(self.service, "/spec/clusterIP") {
            "None" => "headless".to_owned(),
            address => format!("{type_} {address}"),
        };
        let (all, ready) = (endpoints(self.slices).count(), endpoints(self.slices).filter(|e| is_serving(e)).count());
        let limits = match self.limited() {
            Some((policies, peers)) => format!("; the NetworkPolicy {policies} lets in only {peers}"),
            None => String::new(),
        };
        format!("{address}, {ready} of {all} endpoints ready{limits}")
    }

    fn ready_pods(&self) -> Vec<&'a Value> {
        selected(self.service, self.pods).into_iter().filter(|pod| is_ready(pod)).collect()
    }

    /// Policies that admit some and not others, where there are such.
    fn limited(&self) -> Option<(String, String)> {
        let pod = self.ready_pods().into_iter().next()?;
        list(self.service, "/spec/ports").iter().find_map(|port| {
            match reach(pod, Port { number: target(pod, port)?, protocol: protocol(port) }, self.policies) {
                Reach::Only { policies, peers } => Some((policies.join(", "), peers.join(", "))),
                _ => None,
            }
        })
    }
}

/// What stands in a Service's way, the true cause first.
pub fn service(facts: &ServiceFacts<'_>) -> Vec<Cause> {
    let service = facts.service;
    if is_being_deleted(service) {
        return ending::finalizers(service, "service").into_iter().collect();
    }
    if text(service, "/spec/type") == "ExternalName" {
        return external_name(service).into_iter().collect();
    }
    let mut causes = Vec::new();
    if service.pointer("/spec/selector").and_then(Value::as_object).is_none_or(|selector| selector.is_empty()) {
        causes.extend(without_selector(facts));
    } else {
        causes.extend(of_pods(facts));
    }
    causes.extend(address(facts));
    causes
}

/// The causes that lie in the Service and its surroundings, not in a pod: those are told of the pod itself.
pub fn service_alone(facts: &ServiceFacts<'_>) -> Vec<Cause> {
    let maker = facts.maker.map(|(maker, _)| (maker, &[][..]));
    service(&ServiceFacts { worst: None, maker, ..*facts })
        .into_iter()
        .filter(|cause| !cause.cause.starts_with(NOT_READY))
        .collect()
}

const NOT_READY: &str = "none of its pods is ready";

fn external_name(service: &Value) -> Option<Cause> {
    let name = text(service, "/spec/externalName");
    name.parse::<std::net::IpAddr>().ok()?;
    let what = format!("its externalName {name} is an address, and is looked up as a name, which does not exist");
    let help = "use a Service without a selector, and an EndpointSlice with the address";
    Some(Cause::new(what, help).seen(format!("spec.externalName {name}")))
}

fn without_selector(facts: &ServiceFacts<'_>) -> Option<Cause> {
    if endpoints(facts.slices).any(is_serving) {
        return None;
    }
    let what = "it has no selector, and nobody made an EndpointSlice with endpoints for it";
    let help = "give it a selector, or make an EndpointSlice with the label kubernetes.io/service-name";
    let space = namespace(facts.service);
    Some(
        Cause::new(what, help)
            .seen("spec.selector is empty")
            .run(format!("kubectl edit service {} -n {space}", name(facts.service))),
    )
}

fn of_pods(facts: &ServiceFacts<'_>) -> Vec<Cause> {
    let all = selected(facts.service, facts.pods);
    let live: Vec<&Value> = all.iter().copied().filter(|pod| !is_finished(pod) && !is_being_deleted(pod)).collect();
    if live.is_empty() {
        return match facts.maker {
            Some((maker, causes)) => unmade(facts, maker, causes),
            None => vec![no_pods(facts, &all)],
        };
    }
    let ready = facts.ready_pods();
    let of_worst: Vec<Cause> = facts
        .worst
        .map(|(pod, causes)| causes.iter().map(|cause| cause.clone().of(&format!("pod {pod}"))).collect())
        .unwrap_or_default();
    let count = format!("{} of {} pods are ready", ready.len(), live.len());
    let early = flag(facts.service, "/spec/publishNotReadyAddresses");
    if ready.is_empty() && !early {
        let mut causes = of_worst;
        match causes.first_mut() {
            Some(first) => *first = std::mem::take(first).seen(count),
            None => {
                let command =
                    format!("tug why pod {} -n {}", live.first().map_or("", |pod| name(pod)), namespace(facts.service));
                causes.push(Cause::new(NOT_READY, "see why, or wait if they are about to be").seen(count).run(command));
            }
        }
        return causes;
    }
    let mut causes: Vec<Cause> = Vec::new();
    causes.extend(ports(facts, if ready.is_empty() { &live } else { &ready }));
    causes.extend(closed(facts, &ready));
    causes.extend(caller(facts));
    causes.extend(behind(facts, &ready));
    causes.extend(local_only(facts));
    causes.extend(of_worst.into_iter().take(1).map(|cause| cause.seen(count.clone())));
    causes
}

/// There is somebody who makes its pods, and has none.
fn unmade(facts: &ServiceFacts<'_>, maker: &str, causes: &[Cause]) -> Vec<Cause> {
    let seen = format!("no pod has {}", pairs(facts.service, "/spec/selector").join(","));
    if causes.is_empty() {
        let command = format!("tug why {maker} -n {}", namespace(facts.service));
        let what = format!("{NOT_READY}: {maker}, which makes them, has none yet");
        return vec![Cause::new(what, "see why, or wait if they are about to come").seen(seen).run(command)];
    }
    causes.iter().map(|cause| cause.clone().of(maker).seen(seen.clone())).collect()
}

/// Whether a workload's template makes pods that the Service's selector chooses.
pub fn makes_pods_of(workload: &Value, service: &Value) -> bool {
    workload
        .pointer("/spec/template")
        .is_some_and(|template| !selected(service, std::slice::from_ref(template)).is_empty())
}

/// The selector chooses nobody, or nobody who lives.
fn no_pods(facts: &ServiceFacts<'_>, ended: &[&Value]) -> Cause {
    let (space, selector) = (namespace(facts.service), pairs(facts.service, "/spec/selector"));
    let shown = selector.join(",");
    if let Some(first) = ended.first() {
        let state = if is_being_deleted(first) { "being deleted" } else { "finished" };
        let what = format!("all pods that its selector {shown} chooses are {state}, {} for one", name(first));
        return Cause::new(what, "start pods that stay, with these labels")
            .run(format!("kubectl get pods -n {space} -l {shown}"));
    }
    let has = |pod: &Value| {
        let labels = pairs(pod, "/metadata/labels");
        selector.iter().filter(|pair| labels.contains(pair)).count()
    };
    let nearly = |pod: &Value| {
        let label = |pair: &str| pod.pointer("/metadata/labels")?.get(key(pair))?.as_str().map(str::to_owned);
        let value = |pair: &str| pair.split_once('=').map(|(_, value)| value.to_owned()).unwrap_or_default();
        selector.iter().filter_map(|pair| Some(1 + alike(&value(pair), &label(pair)?))).sum::<usize>()
    };
    let living = facts.pods.iter().filter(|pod| !is_finished(pod) && !is_being_deleted(pod));
    let nearest = living.max_by_key(|pod| (has(pod), nearly(pod), alike(name(facts.service), name(pod))));
    let what = format!("its selector {shown} matches no pod of {space}");
    let edit = format!("kubectl edit service {} -n {space}", name(facts.service));
    let Some(nearest) = nearest else {
        let what = format!("{what}, which has no running pods at all");
        return Cause::new(what, "start the pods it is for, in this namespace")
            .run(format!("kubectl get pods -n {space}"));
    };
    let labels = pairs(nearest, "/metadata/labels");
    let lacking: Vec<&str> = selector.iter().filter(|pair| !labels.contains(pair)).map(|pair| key(pair)).collect();
    let found = labels.iter().filter(|pair| lacking.contains(&key(pair))).cloned().collect::<Vec<_>>().join(",");
    let found = if found.is_empty() { labels.join(",") } else { found };
    let found = if found.is_empty() { "no labels".to_owned() } else { found };
    let near = format!("the nearest, pod {}, has {}", name(nearest), short(&found));
    if let [key] = lacking.as_slice()
        && let Some(value) =
            nearest.pointer("/metadata/labels").and_then(|labels| labels.get(key)).and_then(Value::as_str)
    {
        let patch = serde_json::json!({"spec": {"selector": {*key: value}}});
        let command = format!("kubectl patch service {} -n {space} -p '{patch}'", name(facts.service));
        return Cause::new(format!("{what}; {near}"), "correct the selector, or the labels of the pods' template")
            .run(command);
    }
    Cause::new(what, "correct the selector, or the labels of the pods' template").seen(near).run(edit)
}

fn key(pair: &str) -> &str {
    pair.split('=').next().unwrap_or(pair)
}

/// How many letters two words have in common at their beginning and at their end.
fn alike(one: &str, other: &str) -> usize {
    let same = |(a, b): &(char, char)| a == b;
    let begin = one.chars().zip(other.chars()).take_while(same).count();
    let left = one.chars().count().min(other.chars().count()).saturating_sub(begin);
    begin + one.chars().rev().zip(other.chars().rev()).take(left).take_while(same).count()
}

/// Ports that pods do not have by that name, or on which nothing listens.
fn ports(facts: &ServiceFacts<'_>, pods: &[&Value]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (service, space) = (facts.service, namespace(facts.service));
    for port in list(service, "/spec/ports") {
        let shown = port_name(port);
        if let (Some(Value::String(wanted)), Some(pod)) = (port.get("targetPort"), pods.first())
            && pods.iter().all(|pod| target(pod, port).is_none())
        {
            let names = port_names(pod);
            let what =
                format!("its port {shown} goes to the pods' port {wanted:?}, and no container has a port of that name");
            causes.push(
                Cause::new(what, "correct targetPort, or name the container's port so")
                    .seen(format!(
                        "pod {} names {}",
                        name(pod),
                        if names.is_empty() { "no ports".to_owned() } else { names.join(", ") }
                    ))
                    .run(format!("kubectl edit service {} -n {space}", name(service))),
            );
            continue;
        }
        let tried: Vec<&Attempt> = facts
            .attempts
            .iter()
            .filter(|attempt| {
                pods.iter().any(|pod| name(pod) == attempt.pod && target(pod, port) == Some(attempt.port))
            })
            .collect();
        let Some(first) = tried.iter().find(|one| !one.listening) else { continue };
        if protocol(port) != "TCP" {
            continue;
        }
        let everywhere = tried.iter().all(|attempt| !attempt.listening);
        let whom = if everywhere { String::new() } else { format!(" in pod {}", first.pod) };
        let what = format!("its port {shown} goes to port {} of its pods, and nobody listens there{whom}", first.port);
        let declared = pods.first().map(|pod| port_names(pod)).unwrap_or_default();
        let declared = if declared.is_empty() {
            String::new()
        } else {
            format!("; its containers declare {}", declared.join(", "))
        };
        causes.push(
            Cause::new(
                what,
                "correct targetPort to the port that the program listens on, or let it listen there on all addresses",
            )
            .seen(format!("pod {}: connection refused on port {}{declared}", first.pod, first.port))
            .run(format!("kubectl edit service {} -n {space}", name(service))),
        );
    }
    causes
}

/// `http (8080)` of each port that a pod's containers declare.
fn port_names(pod: &Value) -> Vec<String> {
    let ports = list(pod, "/spec/containers").iter().flat_map(|container| list(container, "/ports"));
    let shown = ports.map(|port| match (text(port, "/name"), number(port, "/containerPort").unwrap_or(0)) {
        ("", number) => number.to_string(),
        (name, number) => format!("{name} ({number})"),
    });
    shown.collect()
}

/// A policy that lets nobody in.
fn closed(facts: &ServiceFacts<'_>, ready: &[&Value]) -> Option<Cause> {
    let pod = ready.first()?;
    let space = namespace(facts.service);
    list(facts.service, "/spec/ports").iter().find_map(|port| {
        let number = target(pod, port)?;
        let Reach::Nobody(policies) = reach(pod, Port { number, protocol: protocol(port) }, facts.policies) else {
            return None;
        };
        let first = policies.first()?;
        let (word, verb) = if policies.len() == 1 { ("NetworkPolicy", "lets") } else { ("NetworkPolicies", "let") };
        let what = format!("the {word} {} {verb} nobody reach port {number} of its pods", policies.join(", "));
        let help = format!("add an ingress rule for port {number} to one of them, or a policy that has such a rule");
        Some(
            Cause::new(what, help)
                .seen(format!("pod {} is chosen by {}", name(pod), policies.join(", ")))
                .run(format!("kubectl describe networkpolicy {first} -n {space}")),
        )
    })
}

/// Policies at both ends, for one who wants to reach it.
fn caller(facts: &ServiceFacts<'_>) -> Vec<Cause> {
    let Some(caller) = facts.caller else { return Vec::new() };
    let mut causes = Vec::new();
    let sides = [
        (&caller.kept_in, "let", "egress", format!("{} out to", caller.name)),
        (&caller.kept_out, "admit", "ingress", format!("{} to", caller.name)),
    ];
    for (kept, verb, direction, whom) in sides {
        let Some((pod, policies)) = kept.first() else { continue };
        let Some(first) = policies.first() else { continue };
        let (space, first) = first.split_once('/').unwrap_or((namespace(facts.service), first));
        let begin = if policies.len() == 1 { "NetworkPolicy" } else { "NetworkPolicies" };
        let does = if policies.len() == 1 { "does" } else { "do" };
        let what = format!("the {begin} {} {does} not {verb} {whom} pod {pod}", policies.join(", "));
        causes.push(
            Cause::new(what, format!("add an {direction} rule that names it, or give it labels that a rule names"))
                .seen(format!(
                    "closed to it: {}",
                    kept.iter().map(|(pod, _)| pod.as_str()).collect::<Vec<_>>().join(", ")
                ))
                .run(format!("kubectl describe networkpolicy {first} -n {space}")),
        );
    }
    causes
}

/// Pods are ready and are not listed as endpoints.
fn behind(facts: &ServiceFacts<'_>, ready: &[&Value]) -> Option<Cause> {
    if endpoints(facts.slices).any(is_serving) || ready.is_empty() {
        return None;
    }
    let since_ready =
        ready.iter().filter_map(|pod| since(condition_is(pod, "Ready", "True")?, "/lastTransitionTime", facts.now));
    if since_ready.max().unwrap_or(0) < ENDPOINTS_WITHIN {
        return None;
    }
    let what = format!("{} of its pods are ready, and its EndpointSlices list none", ready.len());
    let command = format!(
        "kubectl get endpointslices -n {} -l kubernetes.io/service-name={}",
        namespace(facts.service),
        name(facts.service)
    );
    Some(Cause::new(what, "see whether the control plane runs").run(command))
}

/// Nodes whose traffic goes nowhere, because it may not leave them.
fn local_only(facts: &ServiceFacts<'_>) -> Option<Cause> {
    let nodes = facts.nodes?;
    let internal = text(facts.service, "/spec/internalTrafficPolicy") == "Local";
    let with: BTreeSet<&str> =
        endpoints(facts.slices).filter(|e| is_serving(e)).map(|e| text(e, "/nodeName")).collect();
    let without: Vec<&str> = nodes.iter().map(String::as_str).filter(|node| !with.contains(node)).collect();
    if !internal || without.is_empty() || with.is_empty() {
        return None;
    }
    let what = format!(
        "callers on {} get no answer: its internalTrafficPolicy is Local, and no pod of it is there",
        without.join(", ")
    );
    Some(
        Cause::new(what, "use internalTrafficPolicy Cluster, or run a pod of it on each node")
            .seen(format!("its endpoints are on {}", with.into_iter().collect::<Vec<_>>().join(", "))),
    )
}

/// A load balancer's address that does not come.
fn address(facts: &ServiceFacts<'_>) -> Option<Cause> {
    let service = facts.service;
    let age = since(service, "/metadata/creationTimestamp", facts.now).unwrap_or(0);
    let waits =
        text(service, "/spec/type") == "LoadBalancer" && list(service, "/status/loadBalancer/ingress").is_empty();
    if !waits || age < ADDRESS_WITHIN {
        return None;
    }
    let told = ["SyncLoadBalancerFailed", "AllocationFailed", "NoAddress"].iter().find_map(|r| event(facts.events, r));
    if let Some(told) = told {
        let what = format!("it has no address from outside: {}", short(text(told, "/message")));
        return Some(Cause::new(what, "mend what the message names").seen(event_line(told)));
    }
    let what = match text(service, "/spec/loadBalancerClass") {
        "" => "nobody has given it an address from outside".to_owned(),
        class => format!("nobody answers for its loadBalancerClass {class}, so that it has no address from outside"),
    };
    let help =
        "see whether the controller for such load balancers runs; its ClusterIP and node ports work all the same";
    Some(Cause::new(what, help).seen("status.loadBalancer is empty"))
}
