//! The health checks of load balancers: on a Service's `healthCheckNodePort` each node tells whether it has endpoints.

use crate::plain_http::{self, Answer};
use netplan::view::Key;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The Services with a health check by their port, with the number of their endpoints on this node.
pub type Checks = BTreeMap<u16, (Key, usize)>;

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
                let (known, port) = (checks.clone(), *port);
                let answers = Arc::new(move |_: &str| answer(known.borrow().get(&port).cloned()));
                servers.spawn(plain_http::serve(SocketAddr::from((address, port)), answers, token.clone()));
                open.insert(port, token);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = checks.changed() => if changed.is_err() { return },
            Some(_) = servers.join_next() => {}
        }
    }
}

/// As upstream's proxy answers, whatever the path is.
fn answer(check: Option<(Key, usize)>) -> Answer {
    let (key, count) = check.unwrap_or((Key::new("", ""), 0));
    let body = serde_json::json!({
        "service": { "namespace": key.namespace, "name": key.name },
        "localEndpoints": count,
        "serviceProxyHealthy": true,
    });
    let headers = format!("X-Load-Balancing-Endpoint-Weight: {count}\r\n");
    Answer { headers, ..Answer::json(count > 0, &body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

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
