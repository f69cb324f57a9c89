//! A webhook server in this process.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pki::tls::{ClientAuthority, ServingCertificate, server_config};
use pki::{Authority, CertificateRequest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

type Answer = Arc<dyn Fn(&Value) -> Option<Value> + Send + Sync>;

/// A server that answers reviews; it stops when it is dropped.
pub struct Hook {
    port: u16,
    ca: String,
    asked: Arc<Mutex<Vec<Value>>>,
    _stop: DropGuard,
}

/// A response with a JSON patch.
pub fn patched(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

impl Hook {
    /// `answer` makes the `response` of a review; its uid is filled in.
    pub async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let review = move |review: &Value| {
            let mut response = answer(review);
            response["uid"] = review["request"]["uid"].clone();
            Some(json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}))
        };
        Self::serve(Arc::new(review)).await
    }

    /// A server that answers any document with a whole document.
    pub async fn raw(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::serve(Arc::new(move |body: &Value| Some(answer(body)))).await
    }

    /// A server that takes a request and never answers.
    pub async fn silent() -> Self {
        Self::serve(Arc::new(|_: &Value| None)).await
    }

    async fn serve(answer: Answer) -> Self {
        let now = jiff::Timestamp::now().as_second();
        let authority = Authority::generate("hook", now).unwrap();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let request = CertificateRequest::serving("hook", vec!["hook.default.svc".to_owned()], vec![local]);
        let credential = authority.issue(&request, now).unwrap();
        let clients = ClientAuthority::new(authority.certificate_pem()).unwrap();
        let tls = server_config(ServingCertificate::new(&credential).unwrap(), &clients).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let (seen, stopped) = (asked.clone(), stop.clone());
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                        let (answer, seen) = (answer.clone(), seen.clone());
                        async move {
                            let body = request.into_body().collect().await?.to_bytes();
                            let review: Value = serde_json::from_slice(&body).unwrap_or_default();
                            seen.lock().unwrap().push(review.clone());
                            let Some(answer) = answer(&review) else { return std::future::pending().await };
                            Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(answer.to_string()))))
                        }
                    });
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }));
        Self { port, ca: authority.certificate_pem().to_owned(), asked, _stop: stop.drop_guard() }
    }

    /// How a configuration names this server.
    pub fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": STANDARD.encode(&self.ca)})
    }

    pub fn ca_bundle(&self) -> String {
        STANDARD.encode(&self.ca)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every document that came.
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}
