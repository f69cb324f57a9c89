//! The proxy over routes that do not change: for benchmarks, which need no cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use routes::Key;
use routes::compile::{Snapshot, compile};
use routes::settings::{CONTROLLER, Settings};
use routes::view::{
    BackendView, ClassView, EndpointView, IngressView, PortRef, Protocol, ServicePort, ServiceView, SliceView,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use crate::certificates::Store;
use crate::listen::Listeners;
use crate::log::AccessLog;
use crate::metrics::Metrics;
use crate::serving::Serving;
use crate::worker::Shared;

/// Everything goes to one address.
pub struct Fixed {
    pub address: IpAddr,
    pub http_port: u16,
    pub https_port: u16,
    pub backend: SocketAddr,
    pub certificate_pem: String,
    pub key_pem: String,
}

/// Serves until `stop`.
///
/// # Errors
/// A port is taken, or the certificate is none.
pub async fn serve(fixed: Fixed, stop: CancellationToken) -> anyhow::Result<()> {
    let settings = Settings {
        http_port: fixed.http_port,
        https_port: fixed.https_port,
        ssl_redirect: false,
        ..Settings::default()
    };
    let (key, secret) = (Key::new("bench", "all"), "certificate");
    let ingress = IngressView {
        key: key.clone(),
        created: 0,
        class: None,
        default_backend: Some(BackendView::Service { name: key.name.clone(), port: PortRef::Number(80) }),
        rules: vec![],
        tls: vec![(vec![], Some(secret.to_owned()))],
        options: vec![],
    };
    let class = ClassView { name: "tug".to_owned(), controller: CONTROLLER.to_owned(), is_default: true };
    let port = ServicePort { name: String::new(), number: 80, protocol: Protocol::Http1 };
    let service = ServiceView { key: key.clone(), ports: vec![port], is_external_name: false };
    let endpoint = EndpointView { address: fixed.backend.ip(), ready: true, lingering: false, zones: vec![] };
    let slice = SliceView {
        service: key.name.clone(),
        key,
        ports: vec![(String::new(), fixed.backend.port())],
        endpoints: vec![endpoint],
    };
    let snapshot = Snapshot {
        ingresses: vec![&ingress],
        classes: vec![&class],
        services: vec![&service],
        slices: vec![&slice],
        ..Snapshot::default()
    };
    let plan = compile(&snapshot, &settings);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(fixed.certificate_pem.as_bytes()).collect();
    let private = PrivateKeyDer::from_pem_slice(fixed.key_pem.as_bytes()).context("the key is none")?;
    let certified = CertifiedKey::from_der(chain.context("the certificate is none")?, private, &pki::tls::provider())?;
    let store = Store::default();
    store.replace(&BTreeMap::from([(Key::new("bench", secret), Ok(Arc::new(certified)))]));
    let serving = Serving::default();
    let shared = Shared {
        serving: serving.clone(),
        metrics: Arc::new(Metrics::default()),
        log: AccessLog::new(PathBuf::from("/dev/null")),
    };
    let wanted: BTreeMap<u16, bool> = plan.table.ports.iter().map(|(port, what)| (*port, what.tls)).collect();
    serving.replace(plan.table, settings);
    let mut listeners = Listeners::new(vec![fixed.address], shared, store);
    ensure!(listeners.apply(&wanted).await, "a port is taken");
    stop.cancelled().await;
    Ok(())
}
