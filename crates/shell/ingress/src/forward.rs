//! What changes in a request's and an answer's headers on their way through.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

use crate::connection::Client;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// How many lines [`tell`] adds.
const FORWARDED_LINES: usize = 5;
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Whether the headers ask to change the protocol of the connection (WebSocket and others).
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE) && names_in(headers).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

fn names_in(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Takes away what concerns one connection only (RFC 9110, 7.6.1). An upgrade keeps its two headers.
pub fn strip(headers: &mut HeaderMap, upgrade: bool) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = names_in(headers).filter_map(|name| name.parse().ok()).collect();
        for name in named {
            if !(upgrade && name == header::UPGRADE) {
                headers.remove(name);
            }
        }
        headers.remove(header::CONNECTION);
    }
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(header::UPGRADE);
    }
    // gRPC asks for trailers in this way; nothing else of TE is ours to promise.
    if let Entry::Occupied(te) = headers.entry(header::TE)
        && te
            .get()
            .to_str()
            .is_ok_and(|value| !value.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")))
    {
        te.remove();
    }
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub client: &'a Client,
    /// Between the client and the first proxy.
    pub tls: bool,
    pub host: &'a str,
}

/// Tells the backend who asked, and how. What a client claims about itself is replaced unless it is a trusted proxy.
pub fn tell(headers: &mut HeaderMap, origin: &Origin<'_>) {
    let client = origin.client;
    let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"));
    let before = headers.get(&FORWARDED_FOR).filter(|_| client.trusted).and_then(|value| value.to_str().ok());
    let chain = match before {
        Some(before) => text(&format!("{before}, {}", client.ip)),
        None => client.ip_text.clone(),
    };
    let host = match headers.get(header::HOST) {
        Some(sent) if sent == origin.host => sent.clone(),
        _ => text(origin.host),
    };
    headers.reserve(FORWARDED_LINES);
    headers.insert(FORWARDED_FOR, chain);
    let mut say = |name: HeaderName, value: HeaderValue| match headers.entry(name) {
        Entry::Occupied(_) if client.trusted => {}
        Entry::Occupied(mut known) => drop(known.insert(value)),
        Entry::Vacant(none) => drop(none.insert(value)),
    };
    say(REAL_IP, client.ip_text.clone());
    say(FORWARDED_PROTO, HeaderValue::from_static(if origin.tls { "https" } else { "http" }));
    say(FORWARDED_PORT, client.port_text.clone());
    if !origin.host.is_empty() {
        say(FORWARDED_HOST, host);
    }
}

/// Whether a trusted proxy says that the client came by HTTPS.
pub fn was_https(headers: &HeaderMap) -> bool {
    headers.get(&FORWARDED_PROTO).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn what_concerns_one_connection_stays_on_it() {
        let sent = [
            ("connection", "keep-alive, x-secret"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("te", "trailers, deflate"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ];
        let mut kept = headers(&sent);
        assert!(!is_upgrade(&kept));
        strip(&mut kept, false);
        assert_eq!(kept, headers(&[("te", "trailers, deflate"), ("accept", "*/*")]));
        let mut socket = headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("te", "gzip")]);
        assert!(is_upgrade(&socket));
        strip(&mut socket, true);
        assert_eq!(socket, headers(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let told = |trusted| {
            let client = Client::new([192, 0, 2, 1].into(), 80, false, trusted);
            let mut headers = headers(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https")]);
            tell(&mut headers, &Origin { client: &client, tls: false, host: "a.com" });
            let get = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
            [get("x-forwarded-for"), get("x-forwarded-proto"), get("x-forwarded-host"), get("x-real-ip")].join(" ")
        };
        assert_eq!(told(false), "192.0.2.1 http a.com 192.0.2.1");
        assert_eq!(told(true), "6.6.6.6, 192.0.2.1 https a.com 192.0.2.1");
    }
}
