//! Which Secrets the ingress of a node may read: those that an Ingress or a Gateway of Tug's own class names for TLS.
//!
//! Every node may serve every Ingress, so the right does not depend on the node. It ends when the last Ingress or
//! Gateway that names the Secret goes or changes its class.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

/// The controller of classes that Tug's nodes serve.
pub const CONTROLLER: &str = "tug.local/ingress";
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
const LEGACY_CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// What names Secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    Ingress,
    Gateway,
}

type Name = (String, String);

#[derive(Debug)]
struct Need {
    class: Option<String>,
    secrets: Vec<Name>,
}

/// The relations, kept one object at a time.
#[derive(Debug, Default)]
pub struct IngressGraph {
    /// Classes with Tug's controller, and whether they are the default.
    classes: HashMap<(Source, String), bool>,
    needs: HashMap<(Source, Name), Need>,
    by_secret: HashMap<Name, BTreeSet<(Source, Name)>>,
    /// ReferenceGrants by namespace and name: namespaces whose Gateways may use which Secrets (none: all) of theirs.
    grants: HashMap<Name, Vec<(String, Option<String>)>>,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

impl IngressGraph {
    /// Whether nodes may read the Secret.
    pub fn names(&self, namespace: &str, name: &str) -> bool {
        let secret = (namespace.to_owned(), name.to_owned());
        let Some(sources) = self.by_secret.get(&secret) else { return false };
        sources.iter().any(|(source, at)| {
            let is_ours = self.needs.get(&(*source, at.clone())).is_some_and(|need| match &need.class {
                Some(class) => self.classes.contains_key(&(*source, class.clone())),
                None => self.classes.iter().any(|((of, _), is_default)| of == source && *is_default),
            });
            is_ours && (at.0 == namespace || self.is_granted(&at.0, namespace, name))
        })
    }

    fn is_granted(&self, from: &str, namespace: &str, name: &str) -> bool {
        let there = self.grants.iter().filter(|((place, _), _)| place == namespace);
        there
            .flat_map(|(_, granted)| granted)
            .any(|(who, what)| who == from && what.as_ref().is_none_or(|what| what == name))
    }

    /// Takes the new state of an IngressClass or a GatewayClass (None: it is gone).
    pub fn apply_class(&mut self, source: Source, name: &str, class: Option<&Value>) {
        let controller = if source == Source::Ingress { "/spec/controller" } else { "/spec/controllerName" };
        let id = (source, name.to_owned());
        match class.filter(|class| text(class, controller) == CONTROLLER) {
            Some(class) => {
                let is_default = class["metadata"]["annotations"][DEFAULT_ANNOTATION] == "true";
                self.classes.insert(id, is_default && source == Source::Ingress);
            }
            None => drop(self.classes.remove(&id)),
        }
    }

    /// Takes the new state of an Ingress (None: it is gone).
    pub fn apply_ingress(&mut self, namespace: &str, name: &str, ingress: Option<&Value>) {
        let need = ingress.map(|ingress| {
            let named = list(ingress, "/spec/tls").map(|tls| text(tls, "/secretName"));
            let own = ingress["spec"]["ingressClassName"].as_str();
            let legacy = ingress["metadata"]["annotations"][LEGACY_CLASS_ANNOTATION].as_str();
            Need {
                class: own.or(legacy).map(str::to_owned),
                secrets: named
                    .filter(|secret| !secret.is_empty())
                    .map(|secret| (namespace.to_owned(), secret.to_owned()))
                    .collect(),
            }
        });
        self.replace((Source::Ingress, (namespace.to_owned(), name.to_owned())), need);
    }

    /// Takes the new state of a Gateway (None: it is gone).
    pub fn apply_gateway(&mut self, namespace: &str, name: &str, gateway: Option<&Value>) {
        let need = gateway.map(|gateway| {
            let references =
                list(gateway, "/spec/listeners").flat_map(|listener| list(listener, "/tls/certificateRefs"));
            let secrets = references.filter(|of| {
                text(of, "/group").is_empty()
                    && matches!(text(of, "/kind"), "" | "Secret")
                    && !text(of, "/name").is_empty()
            });
            let place = |of: &Value| match text(of, "/namespace") {
                "" => namespace.to_owned(),
                other => other.to_owned(),
            };
            Need {
                class: Some(text(gateway, "/spec/gatewayClassName").to_owned()),
                secrets: secrets.map(|of| (place(of), text(of, "/name").to_owned())).collect(),
            }
        });
        self.replace((Source::Gateway, (namespace.to_owned(), name.to_owned())), need);
    }

    /// Takes the new state of a ReferenceGrant (None: it is gone).
    pub fn apply_grant(&mut self, namespace: &str, name: &str, grant: Option<&Value>) {
        let id = (namespace.to_owned(), name.to_owned());
        let Some(grant) = grant else { return drop(self.grants.remove(&id)) };
        let gateways = list(grant, "/spec/from")
            .filter(|from| text(from, "/group") == "gateway.networking.k8s.io" && text(from, "/kind") == "Gateway");
        let from: Vec<&str> = gateways.map(|from| text(from, "/namespace")).collect();
        let secrets =
            list(grant, "/spec/to").filter(|to| text(to, "/group").is_empty() && text(to, "/kind") == "Secret");
        let to: Vec<Option<String>> = secrets.map(|to| to["name"].as_str().map(str::to_owned)).collect();
        let pairs = from.iter().flat_map(|from| to.iter().map(|to| ((*from).to_owned(), to.clone())));
        self.grants.insert(id, pairs.collect());
    }

    fn replace(&mut self, id: (Source, Name), need: Option<Need>) {
        if let Some(old) = self.needs.remove(&id) {
            for secret in old.secrets {
                if let Some(sources) = self.by_secret.get_mut(&secret) {
                    sources.remove(&id);
                    if sources.is_empty() {
                        self.by_secret.remove(&secret);
                    }
                }
            }
        }
        if let Some(need) = need.filter(|need| !need.secrets.is_empty()) {
            for secret in &need.secrets {
                self.by_secret.entry(secret.clone()).or_default().insert(id.clone());
            }
            self.needs.insert(id, need);
        }
    }
}
