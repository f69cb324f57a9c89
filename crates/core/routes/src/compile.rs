//! One snapshot of all objects into the routing table and what is to be said about the objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::endpoints::Resolver;
use crate::gateway;
use crate::ingress::{self, Verdict};
use crate::settings::Settings;
use crate::table::{Port, Table};
use crate::view::{ClassView, IngressView, ServiceView, SliceView};

/// Everything that routing depends on.
#[derive(Clone, Debug, Default)]
pub struct Snapshot<'a> {
    pub ingresses: Vec<&'a IngressView>,
    pub classes: Vec<&'a ClassView>,
    pub services: Vec<&'a ServiceView>,
    pub slices: Vec<&'a SliceView>,
    pub gateway: gateway::Objects<'a>,
    /// Zone of the node that serves.
    pub zone: Option<&'a str>,
}

/// What comes of a snapshot.
#[derive(Debug, Default)]
pub struct Plan {
    pub table: Table,
    pub ingresses: Vec<Verdict>,
    pub gateway: gateway::Compiled,
}

/// The table for a snapshot. It has no port at all when nothing in the snapshot is Tug's to serve.
pub fn compile(snapshot: &Snapshot<'_>, settings: &Settings) -> Plan {
    let mut resolver = Resolver::new(snapshot.services.iter().copied(), snapshot.slices.iter().copied(), snapshot.zone);
    let is_ours = |view: &&&IngressView| ingress::is_ours(view, snapshot.classes.iter().copied());
    let ours: Vec<&IngressView> = snapshot.ingresses.iter().filter(is_ours).copied().collect();
    let mut table = Table { https_port: settings.https_port, ..Table::default() };
    let mut plan = Plan::default();
    if !ours.is_empty() {
        let compiled = ingress::compile(&ours, &mut resolver, settings);
        let hosts = Arc::new(compiled.hosts);
        table.ports.insert(settings.http_port, Port { ingress: Some(hosts.clone()), ..Port::default() });
        if !compiled.certificates.is_empty() {
            let certificates = compiled.certificates;
            let port = Port { tls: true, ingress: Some(hosts), certificates, ..Port::default() };
            table.ports.insert(settings.https_port, port);
        }
        plan.ingresses = compiled.verdicts;
    }
    plan.gateway = gateway::compile(&snapshot.gateway, &mut resolver, settings, &mut table.ports);
    let addresses = resolver.backends().flat_map(|backend| &backend.addresses).map(|address| address.ip());
    table.addresses = addresses.collect::<BTreeSet<_>>();
    plan.table = table;
    plan
}
