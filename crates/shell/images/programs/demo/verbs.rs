//! The verbs of the demo program: what a test wants to do inside a container.

use std::io::{Error, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_CHUNK: usize = 1 << 20;

fn wrong(what: &str, value: &str) -> Error {
    Error::other(format!("{what}: {value:?}"))
}

/// Prints the body of an `http://` URL; an HTTP error code is an error.
pub fn get(url: &str) -> Result<()> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(h, p)| (h, p.to_owned()));
    let address = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let target = address.to_socket_addrs()?.next().ok_or_else(|| wrong("no address for", host))?;
    let mut stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| wrong("no HTTP answer from", url))?;
    print!("{body}");
    match head.split(' ').nth(1) {
        Some(code) if code.starts_with('2') => Ok(()),
        code => Err(wrong("HTTP status", code.unwrap_or("none"))),
    }
}

pub fn lookup(name: &str) -> Result<()> {
    let mut addresses: Vec<String> = (name, 0).to_socket_addrs()?.map(|a| a.ip().to_string()).collect();
    addresses.sort();
    addresses.dedup();
    println!("{}", addresses.join("\n"));
    Ok(())
}

pub fn sleep(seconds: &str) -> Result<()> {
    let seconds: f64 = seconds.parse().map_err(|_| wrong("not a number of seconds", seconds))?;
    std::thread::sleep(Duration::try_from_secs_f64(seconds).map_err(Error::other)?);
    Ok(())
}

pub fn write(file: &str, bytes: &str) -> Result<()> {
    let mut left: usize = bytes.parse().map_err(|_| wrong("not a number of bytes", bytes))?;
    let chunk = vec![b'x'; WRITE_CHUNK.min(left)];
    let mut out = std::fs::File::create(file)?;
    while left > 0 {
        let part = left.min(chunk.len());
        out.write_all(&chunk[..part])?;
        left -= part;
    }
    out.sync_all()
}

pub fn stat(file: &str) -> Result<()> {
    println!("{}", std::fs::metadata(file)?.len());
    Ok(())
}
