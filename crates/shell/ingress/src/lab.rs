//! For tests: an ingress on loopback with routes from text, and backends of a few lines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;
use routes::Key;
use routes::compile::{Snapshot, compile};
use routes::settings::{CONTROLLER, Settings};
use routes::view::{ClassView, EndpointView, IngressView, Protocol, ServicePort, ServiceView, SliceView};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::certificates::{Loaded, Store};
use crate::listen::Listeners;
use crate::log::AccessLog;
use crate::metrics::Metrics;
use crate::serving::Serving;
use crate::worker::Shared;

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A running ingress.
pub struct Lab {
    pub serving: Serving,
    pub metrics: Arc<Metrics>,
    pub settings: Settings,
    pub store: Store,
    listeners: Listeners,
    services: Vec<ServiceView>,
    slices: Vec<SliceView>,
}

async fn free_port() -> u16 {
    TcpListener::bind((LOOPBACK, 0)).await.unwrap().local_addr().unwrap().port()
}

impl Lab {
    pub async fn new() -> Self {
        let settings = Settings { http_port: free_port().await, https_port: free_port().await, ..Settings::default() };
        let (serving, metrics, store) = (Serving::default(), Arc::new(Metrics::default()), Store::default());
        let log = AccessLog::new(std::env::temp_dir().join(format!("ingress-test-{}.log", std::process::id())));
        let shared = Shared { serving: serving.clone(), metrics: metrics.clone(), log };
        let listeners = Listeners::new(vec![LOOPBACK], shared, store.clone());
        Self { serving, metrics, settings, store, listeners, services: vec![], slices: vec![] }
    }

    /// Makes a Service with these endpoints, or gives it others.
    pub fn service(&mut self, name: &str, protocol: Protocol, endpoints: &[SocketAddr]) {
        let key = Key::new("a", name);
        self.services.retain(|service| service.key != key);
        self.slices.retain(|slice| slice.service != name);
        let port = ServicePort { name: "p".to_owned(), number: 80, protocol };
        self.services.push(ServiceView { key, ports: vec![port], is_external_name: false });
        for (index, address) in endpoints.iter().enumerate() {
            self.slices.push(SliceView {
                key: Key::new("a", format!("{name}-{index}")),
                service: name.to_owned(),
                ports: vec![("p".to_owned(), address.port())],
                endpoints: vec![EndpointView { address: address.ip(), ready: true, lingering: false, zones: vec![] }],
            });
        }
    }

    /// Routes `spec` (of an Ingress) from now on.
    pub async fn route(&mut self, spec: &str) {
        let text = format!("metadata: {{name: i, namespace: a}}\nspec: {spec}");
        let ingress = IngressView::from(&serde_saphyr::from_str::<Ingress>(&text).unwrap());
        let class = ClassView { name: "tug".to_owned(), controller: CONTROLLER.to_owned(), is_default: true };
        let snapshot = Snapshot {
            ingresses: vec![&ingress],
            classes: vec![&class],
            services: self.services.iter().collect(),
            slices: self.slices.iter().collect(),
            ..Snapshot::default()
        };
        let plan = compile(&snapshot, &self.settings);
        let wanted: BTreeMap<u16, bool> = plan.table.ports.iter().map(|(port, what)| (*port, what.tls)).collect();
        self.serving.replace(plan.table, self.settings.clone());
        assert!(self.listeners.apply(&wanted).await);
    }

    /// Every path of every host goes to this Service.
    pub async fn route_all(&mut self, service: &str) {
        self.route(&format!("{{defaultBackend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}")).await;
    }

    pub async fn listen(&mut self, wanted: &BTreeMap<u16, bool>) -> bool {
        self.listeners.apply(wanted).await
    }

    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(LOOPBACK, self.settings.http_port)
    }

    pub fn https(&self) -> SocketAddr {
        SocketAddr::new(LOOPBACK, self.settings.https_port)
    }

    /// Sends a request on a connection of its own and reads until the end.
    pub async fn ask(&self, request: &str) -> String {
        exchange(self.http(), request).await
    }
}

/// One request with `Connection: close`, one answer.
pub async fn exchange(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.com\r\nConnection: close\r\n\r\n")
}

/// The request head as it arrived at a backend, read from a stream.
pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// A backend that gives each connection to a function.
pub async fn backend<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A backend that answers every request with its name and the head it got, and keeps connections.
pub async fn echo(name: &'static str) -> SocketAddr {
    backend(move |mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let body = format!("{name}\n{head}");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// A certificate for names, and its own DER form to trust.
pub fn certificate(names: &[&str]) -> (Loaded, rustls::pki_types::CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let der = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certified = CertifiedKey::from_der(vec![der.clone()], key, &pki::tls::provider()).unwrap();
    (Ok(Arc::new(certified)), der)
}
