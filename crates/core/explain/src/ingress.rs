//! Why an Ingress leads nowhere: its class, its backends, its certificates, or who gives it an address.

use serde_json::Value;

use crate::cause::Cause;
use crate::ending;
use crate::view::{event_line, is_being_deleted, list, name, namespace, short, since, text, texts};

/// How long whoever serves the class may take before the wait is called one, in seconds.
const ADDRESS_WITHIN: i64 = 10;
const DEFAULT_CLASS: &str = "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class";
const OLD_CLASS: &str = "/metadata/annotations/kubernetes.io~1ingress.class";

/// A Service that the Ingress names.
#[derive(Clone, Copy, Debug)]
pub struct Backend<'a> {
    pub name: &'a str,
    /// Nothing where it does not exist.
    pub service: Option<&'a Value>,
    /// What stands in its way.
    pub causes: &'a [Cause],
}

/// What a Secret is worth as a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    Good,
    /// No Secret of this name.
    Missing,
    /// The caller may not see it.
    Hidden,
    /// What is wrong with it, as a sentence's end: `holds no tls.key`.
    Bad(String),
    /// It is for other hosts than these.
    OtherHosts {
        hosts: Vec<String>,
        names: Vec<String>,
    },
}

/// What is known of an Ingress.
#[derive(Clone, Copy, Debug)]
pub struct IngressFacts<'a> {
    pub ingress: &'a Value,
    pub events: &'a [Value],
    /// Nothing where the caller may not see them.
    pub classes: Option<&'a [Value]>,
    pub backends: &'a [Backend<'a>],
    /// By name of the Secret.
    pub certificates: &'a [(String, Certificate)],
    /// Seconds since the epoch.
    pub now: i64,
}

/// Where a backend is named: in words, and the object that names it.
fn named_backends(ingress: &Value) -> Vec<(String, &Value)> {
    let mut named = Vec::new();
    if let Some(backend) = ingress.pointer("/spec/defaultBackend") {
        named.push(("its default backend".to_owned(), backend));
    }
    for rule in list(ingress, "/spec/rules") {
        let host = Some(text(rule, "/host")).filter(|host| !host.is_empty()).unwrap_or("*");
        for path in list(rule, "/http/paths") {
            let shown = Some(text(path, "/path")).filter(|path| !path.is_empty()).unwrap_or("/");
            if let Some(backend) = path.get("backend") {
                named.push((format!("{host}{shown}"), backend));
            }
        }
    }
    named
}

/// Names of the Services that an Ingress leads to.
pub fn backend_names(ingress: &Value) -> Vec<String> {
    let mut names: Vec<String> =
        named_backends(ingress).iter().map(|(_, backend)| text(backend, "/service/name").to_owned()).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

/// Names of the Secrets that hold its certificates, and the hosts that each is for.
pub fn certificate_names(ingress: &Value) -> Vec<(String, Vec<String>)> {
    let mut names: Vec<(String, Vec<String>)> = Vec::new();
    for tls in list(ingress, "/spec/tls") {
        let (secret, hosts) = (text(tls, "/secretName"), texts(tls, "/hosts"));
        match names.iter_mut().find(|(known, _)| known == secret) {
            Some((_, all)) => all.extend(hosts),
            None if !secret.is_empty() => names.push((secret.to_owned(), hosts)),
            None => {}
        }
    }
    names
}

/// How it is, in a few words.
pub fn ingress_state(ingress: &Value) -> String {
    let class = text(ingress, "/spec/ingressClassName");
    let class = if class.is_empty() { text(ingress, OLD_CLASS) } else { class };
    let class = if class.is_empty() { "no class".to_owned() } else { format!("class {class}") };
    let hosts: Vec<&str> =
        list(ingress, "/spec/rules").iter().map(|rule| text(rule, "/host")).filter(|h| !h.is_empty()).collect();
    let hosts = if hosts.is_empty() { "all hosts".to_owned() } else { hosts.join(", ") };
    let addresses: Vec<&str> = list(ingress, "/status/loadBalancer/ingress")
        .iter()
        .map(|one| if text(one, "/ip").is_empty() { text(one, "/hostname") } else { text(one, "/ip") })
        .collect();
    let at = if addresses.is_empty() { "no address yet".to_owned() } else { format!("at {}", addresses.join(", ")) };
    format!("{class}, {hosts}, {at}")
}

/// What stands in an Ingress's way, the true cause first.
pub fn ingress(facts: &IngressFacts<'_>) -> Vec<Cause> {
    if is_being_deleted(facts.ingress) {
        return ending::finalizers(facts.ingress, "ingress").into_iter().collect();
    }
    let mut causes: Vec<Cause> = class(facts).into_iter().collect();
    causes.extend(backends(facts));
    causes.extend(certificates(facts));
    if causes.is_empty() {
        causes.extend(unserved(facts));
    }
    causes
}

/// Its class, as far as it names one or there is a default.
fn class_of<'a>(facts: &IngressFacts<'a>) -> Option<&'a Value> {
    let wanted = match text(facts.ingress, "/spec/ingressClassName") {
        "" => text(facts.ingress, OLD_CLASS),
        wanted => wanted,
    };
    facts
        .classes?
        .iter()
        .find(|class| if wanted.is_empty() { text(class, DEFAULT_CLASS) == "true" } else { name(class) == wanted })
}

fn class(facts: &IngressFacts<'_>) -> Option<Cause> {
    let classes = facts.classes?;
    if class_of(facts).is_some() {
        return None;
    }
    let (ingress, space) = (name(facts.ingress), namespace(facts.ingress));
    let names: Vec<&str> = classes.iter().map(name).collect();
    let known = if names.is_empty() { "there are none".to_owned() } else { format!("there are: {}", names.join(", ")) };
    let wanted = text(facts.ingress, "/spec/ingressClassName");
    let what = match (wanted, text(facts.ingress, OLD_CLASS)) {
        ("", "") => "it names no IngressClass, and none is the default: nobody serves it".to_owned(),
        ("", old) => format!("its annotation names the class {old:?}, which does not exist as an IngressClass"),
        (wanted, _) => format!("its IngressClass {wanted:?} does not exist: nobody serves it"),
    };
    let cause = Cause::new(what, format!("name a class that exists ({known}), or create it"));
    Some(match names.first() {
        Some(first) => {
            let patch = serde_json::json!({"spec": {"ingressClassName": first}});
            cause.run(format!("kubectl patch ingress {ingress} -n {space} -p '{patch}'"))
        }
        None => cause.run("kubectl get ingressclass"),
    })
}

/// Services and ports that are not there, then Services that answer nobody.
fn backends(facts: &IngressFacts<'_>) -> Vec<Cause> {
    let (space, edit) = (
        namespace(facts.ingress),
        format!("kubectl edit ingress {} -n {}", name(facts.ingress), namespace(facts.ingress)),
    );
    let mut causes: Vec<Cause> = Vec::new();
    let mut later: Vec<Cause> = Vec::new();
    let mut told: Vec<&str> = Vec::new();
    for (place, backend) in named_backends(facts.ingress) {
        let wanted = text(backend, "/service/name");
        let Some(known) = facts.backends.iter().find(|one| one.name == wanted) else { continue };
        let Some(service) = known.service else {
            let what = format!("{place} goes to the Service {wanted:?}, which does not exist in {space}");
            causes.push(Cause::new(what, "create the Service, or correct its name").run(edit.clone()));
            continue;
        };
        if let Some(shown) = missing_port(backend, service) {
            let ports: Vec<String> = list(service, "/spec/ports").iter().map(port_words).collect();
            let what = format!("{place} goes to port {shown} of the Service {wanted}, which has no such port");
            let seen = format!("service {wanted} has {}", ports.join(", "));
            causes.push(
                Cause::new(what, "correct the port in the Ingress or in the Service").seen(seen).run(edit.clone()),
            );
            continue;
        }
        if !told.contains(&wanted) {
            told.push(wanted);
            later.extend(
                known
                    .causes
                    .iter()
                    .take(1)
                    .map(|cause| cause.clone().of(&format!("service {wanted}")).seen(format!("for {place}"))),
            );
        }
    }
    causes.extend(later);
    causes
}

/// The port that a backend names and its Service does not have.
fn missing_port(backend: &Value, service: &Value) -> Option<String> {
    let ports = list(service, "/spec/ports");
    let wanted = backend.pointer("/service/port")?;
    let (shown, found) = match text(wanted, "/name") {
        "" => {
            let number = wanted.get("number").and_then(Value::as_i64)?;
            (number.to_string(), ports.iter().any(|port| port.get("port").and_then(Value::as_i64) == Some(number)))
        }
        name => (format!("{name:?}"), ports.iter().any(|port| text(port, "/name") == name)),
    };
    (!found).then_some(shown)
}

fn port_words(port: &Value) -> String {
    let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
    match text(port, "/name") {
        "" => format!("port {number}"),
        name => format!("port {number} ({name})"),
    }
}

fn certificates(facts: &IngressFacts<'_>) -> Vec<Cause> {
    let space = namespace(facts.ingress);
    let hosts_of = certificate_names(facts.ingress);
    let of = |(secret, state): &(String, Certificate)| {
        let hosts =
            hosts_of.iter().find(|(name, _)| name == secret).map(|(_, hosts)| hosts.join(", ")).unwrap_or_default();
        let hosts = if hosts.is_empty() { "all hosts".to_owned() } else { hosts };
        let create = format!("kubectl create secret tls {secret} -n {space} --cert=FILE --key=FILE");
        let begin = format!("HTTPS for {hosts}: the Secret {secret:?}");
        Some(match state {
            Certificate::Good | Certificate::Hidden => return None,
            Certificate::Missing => {
                let what = format!("{begin} with its certificate does not exist in {space}");
                Cause::new(what, "create it from certificate and key, or correct its name in spec.tls").run(create)
            }
            Certificate::Bad(why) => {
                let what = format!("{begin} {why}");
                let replace = format!("{create} --dry-run=client -o yaml | kubectl replace -f -");
                Cause::new(what, "put a certificate for these hosts and its key there").run(replace)
            }
            Certificate::OtherHosts { hosts, names } => {
                let names = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
                let what = format!("{begin} is a certificate for {names}, not for {}", hosts.join(", "));
                let replace = format!("{create} --dry-run=client -o yaml | kubectl replace -f -");
                Cause::new(what, "use a certificate for these hosts, or another Secret in spec.tls").run(replace)
            }
        })
    };
    facts.certificates.iter().filter_map(of).collect()
}

/// Nothing is wrong with the object, and it has no address.
fn unserved(facts: &IngressFacts<'_>) -> Option<Cause> {
    let warning = |event: &&Value| text(event, "/type") == "Warning";
    let newest = facts.events.iter().filter(warning).max_by_key(|event| text(event, "/lastTimestamp").to_owned());
    let age = since(facts.ingress, "/metadata/creationTimestamp", facts.now).unwrap_or(0);
    if !list(facts.ingress, "/status/loadBalancer/ingress").is_empty() || age < ADDRESS_WITHIN {
        return None;
    }
    if let Some(event) = newest {
        let what = format!("it is not served: {}", short(text(event, "/message")));
        return Some(Cause::new(what, "mend what the message names").seen(event_line(event)));
    }
    let controller = class_of(facts).map(|class| text(class, "/spec/controller")).unwrap_or("its class's controller");
    let what = format!("nobody has given it an address: {controller}, which serves its class, was not heard of");
    Some(
        Cause::new(what, "see whether that controller runs, or name another class")
            .seen("status.loadBalancer is empty")
            .run("kubectl get ingressclass"),
    )
}
