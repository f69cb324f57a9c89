//! The health checks of load balancers: on a Service's `healthCheckNodePort` each node tells whether it has endpoints.

use netplan::view::Key;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The Services with a health check by their port, with the number of their endpoints on this node.
pub type Checks = BTreeMap<u16, (Key, usize)>;

/// Longest time that a check may take, and most bytes of its request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Most checks of one port answered at the same time.
const CONNECTIONS_MAX: usize = 32;
/// Wait before a port that somebody else holds is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Serves the checks on `address` until cancelled, opening and closing ports as `checks` says.
pub async fn run(address: Ipv4Addr, mut checks: watch::Receiver<Checks>, stop: CancellationToken) {
    let mut open: BTreeMap<u16, CancellationToken> = BTreeMap::new();
    let mut servers = JoinSet::new();
    loop {
        let wanted = checks.borrow_and_update().clone();
        open.retain(|port, server| {
            let keep = wanted.contains_key(port) && !server.is_cancelled();
            if !keep {
                server.cancel();
            }
            keep
        });
        for port in wanted.keys() {
            if !open.contains_key(port) {
                let token = stop.child_token();
                servers.spawn(serve(SocketAddr::from((address, *port)), checks.clone(), token.clone()));
                open.insert(*port, token);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = checks.changed() => if changed.is_err() { return },
            Some(_) = servers.join_next() => {}
        }
    }
}

async fn serve(address: SocketAddr, checks: watch::Receiver<Checks>, stop: CancellationToken) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => tracing::warn!(%address, %error, "cannot serve a load balancer's health check, trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let check = checks.borrow().get(&address.port()).cloned();
                connections.spawn(tokio::time::timeout(REQUEST_TIME_MAX, answer(stream, check)));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, check: Option<(Key, usize)>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    stream.write_all(response(check).as_bytes()).await?;
    stream.shutdown().await
}

/// As upstream's proxy answers, whatever the path is.
fn response(check: Option<(Key, usize)>) -> String {
    let (key, count) = check.unwrap_or((Key::new("", ""), 0));
    let status = if count > 0 { "200 OK" } else { "503 Service Unavailable" };
    let body = serde_json::json!({
        "service": { "namespace": key.namespace, "name": key.name },
        "localEndpoints": count,
        "serviceProxyHealthy": true,
    });
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {count}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(port: u16) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    #[tokio::test]
    async fn a_check_tells_of_the_endpoints_here() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let checks = |count| Checks::from([(port, (Key::new("a", "web"), count))]);
        let (sender, receiver) = watch::channel(checks(2));
        let stop = CancellationToken::new();
        let server = tokio::spawn(run(Ipv4Addr::LOCALHOST, receiver, stop.clone()));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let first = loop {
            if let Some(text) = get(port).await {
                break text;
            }
            assert!(tokio::time::Instant::now() < deadline, "never served");
            tokio::task::yield_now().await;
        };
        assert!(
            first.starts_with("HTTP/1.1 200 OK\r\n") && first.contains("\r\nX-Load-Balancing-Endpoint-Weight: 2\r\n")
        );
        assert!(
            first.ends_with(
                r#"{"localEndpoints":2,"service":{"name":"web","namespace":"a"},"serviceProxyHealthy":true}"#
            )
        );
        sender.send(checks(0)).unwrap();
        assert!(get(port).await.unwrap().starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        sender.send(Checks::new()).unwrap();
        while get(port).await.is_some() {
            assert!(tokio::time::Instant::now() < deadline, "served for ever");
            tokio::task::yield_now().await;
        }
        stop.cancel();
        server.await.unwrap();
    }
}
