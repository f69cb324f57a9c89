//! The ingress beside Debian's nginx and haproxy: the same backend, the same certificate, the same load.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::proxies::Running;

const HOST: &str = "bench.local";
const BODY_BYTES: usize = 1024;
const CONNECTIONS: [usize; 2] = [1, 100];
const WARM_UP: Duration = Duration::from_millis(500);

/// What a proxy is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Proxy {
    #[arg(long)]
    http: u16,
    #[arg(long)]
    https: u16,
    #[arg(long)]
    backend: u16,
    /// Directory with tls.crt and tls.key.
    #[arg(long)]
    dir: PathBuf,
}

/// Runs Tug's proxy alone, so that its processor time can be told from the load's.
pub async fn proxy(proxy: Proxy) -> Result<()> {
    let read = |name: &str| std::fs::read_to_string(proxy.dir.join(name)).with_context(|| format!("no {name}"));
    let fixed = ::ingress::fixed::Fixed {
        address: Ipv4Addr::LOCALHOST.into(),
        http_port: proxy.http,
        https_port: proxy.https,
        backend: SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.backend)),
        certificate_pem: read("tls.crt")?,
        key_pem: read("tls.key")?,
    };
    ::ingress::fixed::serve(fixed, CancellationToken::new()).await
}

pub async fn run(seconds: u64) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("tug-bench-ingress-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = compare(&dir, Duration::from_secs(seconds)).await;
    let _ = std::fs::remove_dir_all(&dir);
    result
}

async fn compare(dir: &Path, time: Duration) -> Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs().try_into()?;
    let authority = pki::Authority::generate("bench", now)?;
    let issued = authority.issue(&pki::CertificateRequest::serving(HOST, vec![HOST.to_owned()], vec![]), now)?;
    std::fs::write(dir.join("tls.crt"), &issued.certificate_pem)?;
    std::fs::write(dir.join("tls.key"), &issued.key_pem)?;
    std::fs::write(dir.join("tls.pem"), format!("{}{}", issued.certificate_pem, issued.key_pem))?;
    let mut tls = pki::tls::client_config(authority.certificate_pem(), None)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = TlsConnector::from(Arc::new(tls));
    let backend = backend().await?;
    println!(
        "| proxy | scheme | connections | requests/s | per core | p50 ms | p99 ms | memory MB |\n|---|---|---|---|---|---|---|---|"
    );
    for name in ["tug", "nginx", "haproxy"] {
        let (http, https) = (free_port().await?, free_port().await?);
        let Some(mut running) = start(name, dir, &Proxy { http, https, backend, dir: dir.to_owned() })? else {
            println!("{name} is not installed");
            continue;
        };
        until_open(http, &mut running.0).await?;
        until_open(https, &mut running.0).await?;
        for connections in CONNECTIONS {
            for (scheme, port, tls) in [("http", http, None), ("https", https, Some(tls.clone()))] {
                let _ = load(port, tls.clone(), connections, WARM_UP).await?;
                let before = running.used()?;
                let outcome = load(port, tls, connections, time).await?;
                let cpu = (running.used()?.0 - before.0).max(0.01);
                let count = outcome.latencies.len() as f64;
                println!(
                    "| {name} | {scheme} | {connections} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1} |",
                    count / outcome.seconds,
                    count / cpu,
                    outcome.percentile(50),
                    outcome.percentile(99),
                    running.used()?.1,
                );
            }
        }
    }
    Ok(())
}

async fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port())
}

async fn until_open(port: u16, child: &mut Child) -> Result<()> {
    for _ in 0..200 {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("the proxy ended: {status}");
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    bail!("nobody listens on port {port}")
}

/// A backend that reads no more of a request than its end.
async fn backend() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let answer: Arc<[u8]> =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n{}", "x".repeat(BODY_BYTES))
            .into_bytes()
            .into();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let (mut buffer, mut filled) = ([0; 8192], 0);
                while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await {
                    filled += read;
                    if buffer[..filled].ends_with(b"\r\n\r\n") {
                        filled = 0;
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(port)
}

struct Outcome {
    latencies: Vec<Duration>,
    seconds: f64,
}

impl Outcome {
    fn percentile(&self, percent: usize) -> f64 {
        let index = self.latencies.len().saturating_sub(1) * percent / 100;
        self.latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }
}

async fn load(port: u16, tls: Option<TlsConnector>, connections: usize, time: Duration) -> Result<Outcome> {
    let mut clients = Vec::new();
    let until = Instant::now() + time;
    for _ in 0..connections {
        let tls = tls.clone();
        clients.push(tokio::spawn(async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            stream.set_nodelay(true)?;
            match tls {
                Some(tls) => ask(tls.connect(ServerName::try_from(HOST)?, stream).await?, until).await,
                None => ask(stream, until).await,
            }
        }));
    }
    let begun = Instant::now();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    latencies.sort();
    Ok(Outcome { latencies, seconds: begun.elapsed().as_secs_f64() })
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, until: Instant) -> Result<Vec<Duration>> {
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n");
    let mut latencies = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while Instant::now() < until {
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                bail!("the proxy closed a connection");
            }
            filled += read;
            let head = buffer[..filled].windows(4).position(|end| end == b"\r\n\r\n");
            if head.is_some_and(|head| filled >= head + 4 + BODY_BYTES) {
                break;
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            bail!("{}", String::from_utf8_lossy(&buffer[..filled.min(200)]));
        }
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// Starts a proxy with as many workers as the machine has processors; `None` where it is not installed.
fn start(name: &str, dir: &Path, proxy: &Proxy) -> Result<Option<Running>> {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let Proxy { http, https, backend, .. } = proxy;
    let place = dir.display();
    let command = match name {
        "tug" => {
            let mut command = Command::new(std::env::current_exe()?);
            let ports = [("--http", http), ("--https", https), ("--backend", backend)];
            command.arg("ingress-proxy").arg("--dir").arg(dir);
            command.args(ports.iter().flat_map(|(flag, port)| [(*flag).to_owned(), port.to_string()]));
            command
        }
        "nginx" => {
            let config = format!(
                "worker_processes {workers}; daemon off; pid {place}/nginx.pid; error_log {place}/nginx.log;
                 events {{ worker_connections 4096; }}
                 http {{ access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
                   uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; keepalive_requests 100000000;
                   upstream all {{ server 127.0.0.1:{backend}; keepalive 128; keepalive_requests 100000000; }}
                   server {{ listen 127.0.0.1:{http}; listen 127.0.0.1:{https} ssl; ssl_certificate {place}/tls.crt;
                     ssl_certificate_key {place}/tls.key; location / {{ proxy_pass http://all; proxy_http_version 1.1;
                     proxy_set_header Connection \"\"; proxy_set_header Host $host;
                     proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; }} }} }}"
            );
            std::fs::write(dir.join("nginx.conf"), config)?;
            let mut command = Command::new("nginx");
            command.arg("-c").arg(dir.join("nginx.conf")).arg("-p").arg(dir);
            command
        }
        _ => {
            let config = format!(
                "global\n nbthread {workers}\n maxconn 4096\ndefaults\n mode http\n timeout connect 2s\n timeout client 60s\n timeout server 60s\n \
                 option forwardfor\n http-reuse always\nfrontend all\n bind 127.0.0.1:{http}\n bind 127.0.0.1:{https} ssl crt {place}/tls.pem\n \
                 default_backend one\nbackend one\n server one 127.0.0.1:{backend}\n"
            );
            std::fs::write(dir.join("haproxy.cfg"), config)?;
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
            command
        }
    };
    Running::start(command)
}
