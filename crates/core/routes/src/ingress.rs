//! Ingresses into routes: which are Tug's, what each of their rules becomes, and what is wrong with them.

use std::sync::Arc;

use crate::Key;
use crate::endpoints::Resolver;
use crate::filter::Filters;
use crate::host::HostPattern;
use crate::path::PathMatch;
use crate::settings::{CONTROLLER, Options, Settings};
use crate::table::{Action, Backend, Certificates, Condition, IngressHosts, Route, Unusable, Weighted, sort};
use crate::view::{BackendView, ClassView, IngressView};

/// What is to be said about an Ingress that Tug serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub key: Key,
    /// What keeps it, or a part of it, from working; empty when all is well.
    pub problems: Vec<String>,
}

/// The outcome for all Ingresses.
#[derive(Debug, Default)]
pub struct Compiled {
    pub hosts: IngressHosts,
    pub certificates: Certificates,
    pub verdicts: Vec<Verdict>,
}

/// Whether an Ingress is Tug's: its class names Tug's controller, or it has none and Tug's class is the default one.
pub fn is_ours<'a>(ingress: &IngressView, classes: impl Iterator<Item = &'a ClassView>) -> bool {
    let mut classes = classes.filter(|class| class.controller == CONTROLLER);
    match &ingress.class {
        Some(name) => classes.any(|class| class.name == *name),
        // An Ingress from before the default class was made; newer ones get it written into them when they are created.
        None => classes.any(|class| class.is_default),
    }
}

/// Compiles the Ingresses that are Tug's, oldest first: where two claim the same host and path, the older one has it.
pub fn compile(ingresses: &[&IngressView], resolver: &mut Resolver<'_>, settings: &Settings) -> Compiled {
    let mut ordered = ingresses.to_vec();
    ordered.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut compiled = Compiled::default();
    for ingress in ordered {
        let problems = add(&mut compiled, ingress, resolver, settings);
        compiled.verdicts.push(Verdict { key: ingress.key.clone(), problems });
    }
    sort(&mut compiled.hosts.rules);
    compiled
}

fn add(to: &mut Compiled, ingress: &IngressView, resolver: &mut Resolver<'_>, settings: &Settings) -> Vec<String> {
    let (options, mut problems) = Options::read(&ingress.options, settings);
    let source: Arc<str> = format!("Ingress {}", ingress.key).into();
    let tls = |host: &str| {
        let pattern = HostPattern::ingress(host);
        let covers = |name: &String| HostPattern::ingress(name) == pattern || HostPattern::ingress(name).matches(host);
        ingress.tls.iter().any(|(hosts, _)| hosts.is_empty() || hosts.iter().any(covers))
    };
    let mut route = |host: &str, path: PathMatch, backend: &BackendView| {
        let backend = resolve(&ingress.key.namespace, backend, resolver);
        if let Some(why) = backend.unusable {
            let problem = format!("backend {}: {}", backend.name, why.message());
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let action = Action {
            source: source.clone(),
            filters: Filters::default(),
            backends: vec![Weighted { weight: 1, backend, filters: Filters::default() }],
            limits: options.limits,
            unusable_status: 503,
            ssl_redirect: options.ssl_redirect && tls(host),
        };
        Route { condition: Condition::path(path), action: Arc::new(action) }
    };
    for (host, paths) in &ingress.rules {
        let routes = to.hosts.rules.entry(&HostPattern::ingress(host));
        for path in paths {
            // What is implementation-specific is a prefix here, with or without the star that others write.
            let matched = if path.exact {
                PathMatch::Exact(path.path.as_str().into())
            } else {
                PathMatch::prefix(path.path.trim_end_matches('*'))
            };
            let taken = routes.iter().any(|known: &Route| known.condition.path == matched);
            let new = route(host, matched, &path.backend);
            if !taken {
                routes.push(new);
            }
        }
    }
    if let Some(backend) = &ingress.default_backend {
        let any = [String::new()];
        for host in ingress.rules.iter().map(|(host, _)| host).filter(|host| !host.is_empty()).chain(&any) {
            let new = route(host, PathMatch::prefix("/"), backend);
            let routes = to.hosts.defaults.entry(&HostPattern::ingress(host));
            if routes.is_empty() {
                routes.push(new);
            }
        }
    }
    for (hosts, secret) in &ingress.tls {
        let Some(secret) = secret else {
            problems.push("a tls entry names no Secret".to_owned());
            continue;
        };
        let secret = Key::new(&ingress.key.namespace, secret);
        let any = [String::new()];
        for host in if hosts.is_empty() { &any[..] } else { hosts } {
            to.certificates.entry(&HostPattern::ingress(host)).get_or_insert_with(|| secret.clone());
        }
    }
    problems
}

fn resolve(namespace: &str, backend: &BackendView, resolver: &mut Resolver<'_>) -> Arc<Backend> {
    match backend {
        BackendView::Service { name, port } => resolver.backend(&Key::new(namespace, name), port),
        BackendView::Resource(text) => Arc::new(Backend::unusable(text.as_str(), Unusable::NoServiceKind)),
    }
}
