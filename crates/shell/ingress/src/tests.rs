//! The proxy over real sockets: what clients and backends do to each other through it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use routes::Key;
use routes::view::Protocol;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::lab::{Lab, backend, certificate, echo, exchange, get, read_head};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_request_reaches_its_backend_and_says_where_it_came_from() {
    let mut lab = Lab::new().await;
    let one = echo("one").await;
    lab.service("one", Protocol::Http1, &[one]);
    lab.route("{rules: [{host: a.com, http: {paths: [{path: /x, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}]}}]}").await;
    let answer = lab.ask("GET /x/y?q=1 HTTP/1.1\r\nHost: A.com\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let said = answer.to_lowercase();
    for line in [
        "one\nget /x/y?q=1 http/1.1",
        "host: a.com",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-real-ip: 127.0.0.1",
    ] {
        assert!(said.contains(line), "{line}: {answer}");
    }
    assert!(!said.contains("x-hop") && !said.contains("6.6.6.6"), "{answer}");
    assert!(lab.ask(&get("/z")).await.starts_with("HTTP/1.1 404"));
    assert!(lab.ask("GET /x HTTP/1.1\r\nHost: b.com\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    assert!(lab.ask("GET /x HTTP/1.1\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    assert!(
        lab.ask("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 400")
    );
}

#[tokio::test]
async fn connections_to_backends_are_kept_and_a_closed_one_is_replaced() {
    let mut lab = Lab::new().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    // Each connection carries three requests and is then closed without a word.
    let address = backend(move |mut stream| {
        counted.fetch_add(1, Relaxed);
        async move {
            for _ in 0..3 {
                if read_head(&mut stream).await.is_none() {
                    return;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    lab.service("one", Protocol::Http1, &[address]);
    lab.route_all("one").await;
    let mut client = TcpStream::connect(lab.http()).await.unwrap();
    for turn in 0..30 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n").await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{turn}: {head}");
        let mut body = [0; 2];
        client.read_exact(&mut body).await.unwrap();
    }
    let made = connections.load(Relaxed);
    assert!((10..=12).contains(&made), "{made} connections for 30 requests");
}

#[tokio::test]
async fn a_backend_that_refuses_is_passed_over() {
    let mut lab = Lab::new().await;
    let gone = backend(|_| async {}).await;
    let refusing = {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let one = echo("one").await;
    lab.service("one", Protocol::Http1, &[one, refusing, gone]);
    lab.route_all("one").await;
    for turn in 0..30 {
        let answer = lab.ask(&get("/")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{turn}: {answer}");
    }
    lab.service("one", Protocol::Http1, &[refusing]);
    lab.route_all("one").await;
    assert!(lab.ask(&get("/")).await.starts_with("HTTP/1.1 502"));
    lab.service("one", Protocol::Http1, &[]);
    lab.route_all("one").await;
    assert!(lab.ask(&get("/")).await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn what_was_sent_is_not_sent_again_unless_it_has_no_effect() {
    let mut lab = Lab::new().await;
    let posts = Arc::new(AtomicUsize::new(0));
    let counted = posts.clone();
    let address = backend(move |mut stream| {
        let counted = counted.clone();
        async move {
            let head = read_head(&mut stream).await.unwrap_or_default();
            if head.starts_with("POST") {
                counted.fetch_add(1, Relaxed);
            }
        }
    })
    .await;
    lab.service("one", Protocol::Http1, &[address]);
    lab.route_all("one").await;
    let answer = lab.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(posts.load(Relaxed), 1);
    let good = echo("good").await;
    lab.service("one", Protocol::Http1, &[address, good]);
    lab.route_all("one").await;
    for _ in 0..10 {
        assert!(lab.ask(&get("/")).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn backends_that_misbehave_cost_their_own_requests_only() {
    let mut lab = Lab::new().await;
    lab.settings.answer_seconds_max = 1;
    let hangs = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let garbage = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let _ = stream.write_all(b"\0\x01garbage\xff\r\n\r\n").await;
    })
    .await;
    let floods = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let line = format!("X-Flood: {}\r\n", "x".repeat(8000));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        for _ in 0..200 {
            let _ = stream.write_all(line.as_bytes()).await;
        }
    })
    .await;
    let cuts = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").await;
    })
    .await;
    let good = echo("good").await;
    for (name, address) in [("hangs", hangs), ("garbage", garbage), ("floods", floods), ("cuts", cuts), ("good", good)]
    {
        lab.service(name, Protocol::Http1, &[address]);
    }
    let path = |name: &str| {
        format!("{{path: /{name}, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}")
    };
    let paths = ["hangs", "garbage", "floods", "cuts", "good"].map(path).join(", ");
    lab.route(&format!("{{rules: [{{http: {{paths: [{paths}]}}}}]}}")).await;
    let asked = |path: &str| {
        let (to, request) = (lab.http(), get(path));
        async move { exchange(to, &request).await }
    };
    let (hung, garbled, flooded, cut, good) =
        tokio::join!(asked("/hangs"), asked("/garbage"), asked("/floods"), asked("/cuts"), asked("/good"),);
    assert!(hung.starts_with("HTTP/1.1 504"), "{hung}");
    assert!(garbled.starts_with("HTTP/1.1 502"), "{garbled}");
    assert!(flooded.starts_with("HTTP/1.1 502"), "{flooded}");
    assert!(cut.ends_with("short"), "{cut}");
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
}

#[tokio::test]
async fn bodies_and_headers_have_a_size() {
    let mut lab = Lab::new().await;
    lab.settings.body_bytes_max = 1000;
    let address = backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    lab.service("one", Protocol::Http1, &[address]);
    lab.route_all("one").await;
    let declared = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n";
    assert!(lab.ask(declared).await.starts_with("HTTP/1.1 413"));
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let chunked = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    let answer = lab.ask(&chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let mut stream = TcpStream::connect(lab.http()).await.unwrap();
    let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Huge: {}", "x".repeat(1 << 20));
    stream.write_all(huge.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431", "the client hears why, although it sent more than was read");
    let answer = lab.ask("GET / HTTP/1.1\r\nHo st: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn upgraded_connections_pass_bytes_both_ways() {
    let mut lab = Lab::new().await;
    let address = backend(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap().to_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        let mut bytes = [0; 5];
        while stream.read_exact(&mut bytes).await.is_ok() {
            bytes.reverse();
            let _ = stream.write_all(&bytes).await;
        }
    })
    .await;
    lab.service("one", Protocol::Http1, &[address]);
    lab.route_all("one").await;
    let mut stream = TcpStream::connect(lab.http()).await.unwrap();
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut stream).await.unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    // A new table and even the end of the endpoint leave the connection alone.
    lab.service("one", Protocol::Http1, &[]);
    lab.route_all("one").await;
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut bytes = [0; 5];
        timeout(SOON, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), word.chars().rev().collect::<String>());
    }
}

#[tokio::test]
async fn a_new_table_drops_no_answer_and_no_connection() {
    let mut lab = Lab::new().await;
    let (begun, waits) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (started, go) = (begun.clone(), waits.clone());
    let slow = backend(move |mut stream| {
        let (started, go) = (started.clone(), go.clone());
        async move {
            let _ = read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
            started.notify_one();
            go.notified().await;
            let _ = stream.write_all(b"done").await;
        }
    })
    .await;
    lab.service("one", Protocol::Http1, &[slow]);
    lab.route_all("one").await;
    let mut client = TcpStream::connect(lab.http()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    timeout(SOON, begun.notified()).await.unwrap();
    let new = echo("new").await;
    lab.service("one", Protocol::Http1, &[new]);
    lab.route_all("one").await;
    waits.notify_one();
    let head = read_head(&mut client).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut body = [0; 8];
    client.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"halfdone");
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("new\nGET /"), "{rest}");
}

fn tls_client(trusted: &[&CertificateDer<'static>], alpn: &[&[u8]]) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).unwrap();
    }
    let mut config = rustls::ClientConfig::builder_with_provider(pki::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

async fn handshake(
    lab: &Lab,
    name: &'static str,
    trusted: &CertificateDer<'static>,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(lab.https()).await?;
    tls_client(&[trusted], alpn).connect(ServerName::try_from(name).unwrap(), stream).await
}

#[tokio::test]
async fn certificates_follow_names_and_change_under_open_connections() {
    let mut lab = Lab::new().await;
    let one = echo("one").await;
    lab.service("one", Protocol::Http1, &[one]);
    lab.route(
        "{tls: [{hosts: [a.com], secretName: a}, {hosts: ['*.b.com'], secretName: b}],
          rules: [{host: a.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}]}}]}",
    )
    .await;
    let ((a, a_root), (b, b_root), (newer, newer_root)) =
        (certificate(&["a.com"]), certificate(&["x.b.com"]), certificate(&["a.com"]));
    let keys = |a| BTreeMap::from([(Key::new("a", "a"), a), (Key::new("a", "b"), b.clone())]);
    lab.store.replace(&keys(a));
    let mut open = handshake(&lab, "a.com", &a_root, &[b"http/1.1"]).await.unwrap();
    handshake(&lab, "x.b.com", &b_root, &[]).await.unwrap();
    handshake(&lab, "c.com", &b_root, &[]).await.expect_err("nobody has a certificate for it");
    lab.store.replace(&keys(newer));
    handshake(&lab, "a.com", &newer_root, &[]).await.unwrap();
    handshake(&lab, "a.com", &a_root, &[]).await.expect_err("the old certificate is shown no longer");
    open.write_all(get("/").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = open.read_to_string(&mut answer).await;
    assert!(answer.contains("200 OK") && answer.contains("x-forwarded-proto: https"), "{answer}");
    let redirected = lab.ask(&get("/p?q")).await.to_lowercase();
    let location = format!("location: https://a.com:{}/p?q", lab.settings.https_port);
    assert!(redirected.starts_with("http/1.1 308") && redirected.contains(&location), "{redirected}");
}

/// A gRPC-like backend: HTTP/2 without TLS, an answer with trailers.
async fn grpc() -> SocketAddr {
    backend(|stream| async move {
        let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
            let told = format!(
                "{} {} {:?}",
                request.uri(),
                request.version() == http::Version::HTTP_2,
                request.headers().get("te")
            );
            let body = request.into_body().collect().await.unwrap();
            let trailer = body.trailers().and_then(|t| t.get("sent")).cloned();
            let text = format!("{told} {:?} {trailer:?}", body.to_bytes());
            let trailers =
                HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from(0))]);
            let frames = [
                Ok::<_, std::io::Error>(hyper::body::Frame::data(Bytes::from(text))),
                Ok(hyper::body::Frame::trailers(trailers)),
            ];
            Ok::<_, std::io::Error>(Response::new(StreamBody::new(futures::stream::iter(frames))))
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
    .await
}

async fn http2_answer<S>(stream: S, uri: &str) -> (Bytes, Option<HeaderMap>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let request = Request::post(uri).header("te", "trailers").body(Full::new(Bytes::from_static(b"call"))).unwrap();
    let answer = timeout(SOON, sender.send_request(request)).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned();
    (body.to_bytes(), trailers)
}

#[tokio::test]
async fn grpc_passes_with_its_trailers_with_tls_and_without() {
    let mut lab = Lab::new().await;
    lab.service("one", Protocol::Http2, &[grpc().await]);
    lab.route("{tls: [{secretName: a}], defaultBackend: {service: {name: one, port: {number: 80}}}}").await;
    let (certificate, root) = certificate(&["a.com"]);
    lab.store.replace(&BTreeMap::from([(Key::new("a", "a"), certificate)]));
    let stream = handshake(&lab, "a.com", &root, &[b"h2"]).await.unwrap();
    let (body, trailers) = http2_answer(stream, "https://a.com/pkg.Service/Call").await;
    assert_eq!(body, "http://a.com/pkg.Service/Call true Some(\"trailers\") b\"call\" None");
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    lab.settings.ssl_redirect = false;
    lab.route_all("one").await;
    let stream = TcpStream::connect(lab.http()).await.unwrap();
    let (body, trailers) = http2_answer(stream, "http://a.com/pkg.Service/Call").await;
    assert!(body.starts_with(b"http://a.com/pkg.Service/Call true"), "{body:?}");
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    // An HTTP/2 client may have an HTTP/1 backend, and the other way round.
    let echo = echo("one").await;
    lab.service("one", Protocol::Http1, &[echo]);
    lab.route_all("one").await;
    let stream = TcpStream::connect(lab.http()).await.unwrap();
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let request = Request::get("http://a.com/x").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(text.starts_with("one\nget /x http/1.1\r\n") && text.contains("host: a.com"), "{text}");
}

#[tokio::test]
async fn a_trusted_load_balancer_names_the_client() {
    let mut lab = Lab::new().await;
    lab.settings.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
    lab.settings.proxy_protocol = true;
    let one = echo("one").await;
    lab.service("one", Protocol::Http1, &[one]);
    lab.route_all("one").await;
    let answer = lab.ask(&format!("PROXY TCP4 192.0.2.7 10.0.0.1 5000 80\r\n{}", get("/"))).await;
    assert!(answer.contains("x-forwarded-for: 192.0.2.7\r\n"), "{answer}");
    assert_eq!(lab.ask(&get("/")).await, "", "the header is missing");
}

#[tokio::test]
async fn idle_and_slow_clients_are_in_nobodys_way() {
    let mut lab = Lab::new().await;
    let one = echo("one").await;
    lab.service("one", Protocol::Http1, &[one]);
    lab.route_all("one").await;
    let mut silent = Vec::new();
    for index in 0..200 {
        let mut stream = TcpStream::connect(lab.http()).await.unwrap();
        if index % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        }
        silent.push(stream);
    }
    for _ in 0..20 {
        let answer = timeout(SOON, lab.ask(&get("/"))).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(lab.metrics.render().contains("tug_ingress_requests_total{code=\"2xx\"} 20"), "{}", lab.metrics.render());
}

#[tokio::test]
async fn a_port_in_use_is_no_failure() {
    let mut lab = Lab::new().await;
    let _taken = tokio::net::TcpListener::bind(lab.https()).await.unwrap();
    let one = echo("one").await;
    lab.service("one", Protocol::Http1, &[one]);
    let wanted = BTreeMap::from([(lab.settings.http_port, false), (lab.settings.https_port, true)]);
    assert!(!lab.listen(&wanted).await, "one port is not open");
    lab.route_all("one").await;
    assert!(lab.ask(&get("/")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn answers_end_where_their_framing_says() {
    let mut lab = Lab::new().await;
    let address = backend(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let (parts, closes): (&[&str], bool) = match path {
                "/chunks" => (&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "c\r\n2;x=y\r\nde\r\n0\r\n\r\n"], false),
                "/length" => (&["HTTP/1.1 200 OK\r\nContent-Len", "gth: 5\r\n\r\nab", "cde"], false),
                "/close" => (&["HTTP/1.1 200 OK\r\n\r\nab", "cde"], true),
                "/hints" => (&["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"], false),
                // A second answer that nobody asked for.
                "/smuggles" => (&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcdeHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"], false),
                _ => (&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nabcde"], false),
            };
            for part in parts {
                let _ = stream.write_all(part.as_bytes()).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if closes {
                return;
            }
        }
    })
    .await;
    lab.service("one", Protocol::Http1, &[address]);
    lab.route_all("one").await;
    for turn in 0..2 {
        for path in ["/smuggles", "/chunks", "/length", "/close", "/hints"] {
            let mut stream = TcpStream::connect(lab.http()).await.unwrap();
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.0 200"), "{turn} {path}: {answer}");
            assert!(answer.ends_with("\r\n\r\nabcde"), "{turn} {path}: {answer}");
        }
    }
    assert!(lab.ask(&get("/unclear")).await.starts_with("HTTP/1.1 502"));
    let head = lab.ask("HEAD /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 5\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}
