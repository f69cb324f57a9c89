//! The PROXY protocol, versions 1 and 2: who connects to a load balancer in front of us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1.
const LINE_BYTES_MAX: usize = 107;
/// Longest header of version 2 that is taken, extensions included.
pub const HEADER_BYTES_MAX: usize = 1024;

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// So many more bytes are needed at least.
    Incomplete,
    /// No PROXY protocol, or a damaged one.
    Invalid,
    /// Length of the header, and the client where it is told.
    Complete { length: usize, client: Option<SocketAddr> },
}

/// Reads the header at the beginning of a connection.
pub fn parse(bytes: &[u8]) -> Header {
    if bytes.starts_with(SIGNATURE) {
        return parse_binary(bytes);
    }
    let is_prefix = |whole: &[u8]| whole.starts_with(&bytes[..bytes.len().min(whole.len())]);
    if bytes.len() < SIGNATURE.len() && (is_prefix(SIGNATURE) || is_prefix(b"PROXY ")) {
        return Header::Incomplete;
    }
    if bytes.starts_with(b"PROXY ") { parse_line(bytes) } else { Header::Invalid }
}

fn parse_line(bytes: &[u8]) -> Header {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() < LINE_BYTES_MAX { Header::Incomplete } else { Header::Invalid };
    };
    let Ok(line) = std::str::from_utf8(&window[..end]) else { return Header::Invalid };
    let length = end + 2;
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Header::Complete { length, client: None },
        ["PROXY", "TCP4" | "TCP6", source, _, port, _] => match (source.parse::<IpAddr>(), port.parse::<u16>()) {
            (Ok(ip), Ok(port)) => Header::Complete { length, client: Some(SocketAddr::new(ip, port)) },
            _ => Header::Invalid,
        },
        _ => Header::Invalid,
    }
}

fn parse_binary(bytes: &[u8]) -> Header {
    let Some(head) = bytes.get(12..16) else { return Header::Incomplete };
    let (version, command) = (head[0] >> 4, head[0] & 0xf);
    let size = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let length = 16 + size;
    if version != 2 || command > 1 || length > HEADER_BYTES_MAX {
        return Header::Invalid;
    }
    let Some(body) = bytes.get(16..length) else { return Header::Incomplete };
    if command == 0 {
        // The load balancer speaks for itself: a health check.
        return Header::Complete { length, client: None };
    }
    let port = |at: usize| body.get(at..at + 2).map(|p| u16::from_be_bytes([p[0], p[1]]));
    let client = match head[1] {
        0x11 => {
            let ip = body.get(..4).and_then(|ip| <[u8; 4]>::try_from(ip).ok()).map(Ipv4Addr::from);
            ip.zip(port(8)).map(|(ip, port)| SocketAddr::from((ip, port)))
        }
        0x21 => {
            let ip = body.get(..16).and_then(|ip| <[u8; 16]>::try_from(ip).ok()).map(Ipv6Addr::from);
            ip.zip(port(32)).map(|(ip, port)| SocketAddr::from((ip, port)))
        }
        _ => return Header::Complete { length, client: None },
    };
    client.map_or(Header::Invalid, |client| Header::Complete { length, client: Some(client) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn both_versions_name_the_client() {
        let line = b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\nGET /";
        assert_eq!(parse(line), Header::Complete { length: 39, client: client("192.0.2.1:5000") });
        for cut in 0..39 {
            assert_eq!(parse(&line[..cut]), Header::Incomplete, "{cut}");
        }
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Header::Complete { length: 15, client: None });
        let mut binary = SIGNATURE.to_vec();
        binary.extend([0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 1, 0x13, 0x88, 0, 80]);
        assert_eq!(parse(&binary), Header::Complete { length: 28, client: client("192.0.2.1:5000") });
        for cut in 0..28 {
            assert_eq!(parse(&binary[..cut]), Header::Incomplete, "{cut}");
        }
        binary[12] = 0x20;
        assert_eq!(parse(&binary), Header::Complete { length: 28, client: None });
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROXY TCP4 x y 1 2\r\n", b"PROXY TCP4\r\n"] {
            assert_eq!(parse(bytes), Header::Invalid, "{bytes:?}");
        }
        assert_eq!(parse(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat()), Header::Invalid);
        let mut long = SIGNATURE.to_vec();
        long.extend([0x21, 0x11, 0xff, 0xff]);
        assert_eq!(parse(&long), Header::Invalid);
    }
}
