//! The HTTP server: one thread a connection, keep-alive, and an end that loses no request.
//!
//! On SIGTERM the listener stops accepting once what was already queued is taken, requests under way are finished, and
//! connections that are kept alive get `Connection: close` on their next answer, so that a client never writes into a
//! connection that is being torn down.

use std::fs::read_to_string;
use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::load;

const STACK_BYTES: usize = 128 << 10;
/// How long an idle kept-alive connection may still bring one last request after SIGTERM.
const LAST_REQUEST: Duration = Duration::from_millis(1500);
/// How often blocked reads look whether the end has come.
const TICK: Duration = Duration::from_millis(100);
const IDLE_MAX: Duration = Duration::from_secs(75);
const HEADER_BYTES_MAX: u64 = 64 << 10;
/// Of a longer body the rest is read and dropped.
const BODY_BYTES_MAX: u64 = 1 << 20;
const CONNECTIONS_MAX: usize = 4096;
const DEFAULT_PORT: u16 = 8080;

static STOPPING: AtomicBool = AtomicBool::new(false);

mod sys {
    //! The four C functions that the standard library does not lend.
    #[repr(C)]
    pub struct PollFd {
        pub fd: i32,
        pub events: i16,
        pub revents: i16,
    }
    unsafe extern "C" {
        pub fn signal(signum: i32, handler: usize) -> usize;
        pub fn poll(fds: *mut PollFd, count: u64, timeout_ms: i32) -> i32;
    }
}

extern "C" fn on_term(_: i32) {
    STOPPING.store(true, SeqCst);
}

pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: String,
    pub body: Vec<u8>,
    close: bool,
}

/// Answers a request with a code and a text.
pub type Answer = Arc<dyn Fn(&Request) -> (u16, String) + Send + Sync>;

/// Serves HTTP until SIGTERM.
pub fn serve(answer: Answer) -> Result<()> {
    let port = std::env::var("PORT").ok().and_then(|p| p.parse().ok()).unwrap_or(DEFAULT_PORT);
    // SAFETY: the handler only stores to an atomic, which is allowed in a signal handler.
    unsafe {
        sys::signal(15, on_term as *const () as usize);
        sys::signal(2, on_term as *const () as usize);
    }
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    listener.set_nonblocking(true)?;
    println!("{} serves on port {port}", hostname());
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stopping = STOPPING.load(SeqCst);
        match listener.accept() {
            Ok((stream, _)) if open.load(SeqCst) < CONNECTIONS_MAX => start(stream, &open, &answer),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if stopping {
                    break;
                }
                wait_readable(listener.as_raw_fd(), TICK);
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    drop(listener);
    println!("{} finishes {} connections", hostname(), open.load(SeqCst));
    while open.load(SeqCst) > 0 {
        thread::sleep(Duration::from_millis(5));
    }
    exit(0)
}

fn wait_readable(fd: i32, at_most: Duration) {
    const POLLIN: i16 = 1;
    let mut entry = sys::PollFd { fd, events: POLLIN, revents: 0 };
    // SAFETY: one valid entry, and the count says one.
    unsafe { sys::poll(&mut entry, 1, at_most.as_millis() as i32) };
}

fn start(stream: TcpStream, open: &Arc<AtomicUsize>, answer: &Answer) {
    open.fetch_add(1, SeqCst);
    let answer = Arc::clone(answer);
    let counter = Arc::clone(open);
    let body = move || {
        let _ = connection(stream, &answer);
        counter.fetch_sub(1, SeqCst);
    };
    if thread::Builder::new().stack_size(STACK_BYTES).spawn(body).is_err() {
        open.fetch_sub(1, SeqCst);
    }
}

fn connection(stream: TcpStream, answer: &Answer) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while wait_for_request(&mut reader)? {
        // A request has begun: from here the client may take its time, but not for ever.
        writer.set_read_timeout(Some(Duration::from_secs(10)))?;
        let Some(request) = read_request(&mut reader)? else { break };
        let (code, body) = answer(&request);
        let close = request.close || STOPPING.load(SeqCst);
        let connection = if close { "close" } else { "keep-alive" };
        let head = format!("HTTP/1.1 {code} {}\r\nContent-Type: text/plain; charset=utf-8\r\n", phrase(code));
        let message = format!("{head}Content-Length: {}\r\nConnection: {connection}\r\n\r\n{body}", body.len());
        writer.write_all(message.as_bytes())?;
        if close {
            break;
        }
        writer.set_read_timeout(Some(TICK))?;
    }
    Ok(())
}

/// True when bytes of a next request are there; false when the client left, idled too long or the end has come.
fn wait_for_request(reader: &mut BufReader<TcpStream>) -> Result<bool> {
    let mut idle_since = Instant::now();
    let mut stopping = false;
    loop {
        match reader.fill_buf() {
            Ok(bytes) => return Ok(!bytes.is_empty()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if STOPPING.load(SeqCst) && !stopping {
            stopping = true;
            idle_since = Instant::now();
        }
        if idle_since.elapsed() > if stopping { LAST_REQUEST } else { IDLE_MAX } {
            return Ok(false);
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
    let mut line = String::new();
    let mut bounded = reader.by_ref().take(HEADER_BYTES_MAX);
    bounded.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), version) = (words.next(), words.next(), words.next()) else { return Ok(None) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: String::new(),
        body: Vec::new(),
        close: version == Some("HTTP/1.0"),
    };
    let mut body_bytes = 0u64;
    loop {
        let mut header = String::new();
        if bounded.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        if header.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "connection" if value.eq_ignore_ascii_case("close") => request.close = true,
                "connection" if value.eq_ignore_ascii_case("keep-alive") => request.close = false,
                "content-length" => body_bytes = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        request.headers.push_str(&header);
    }
    reader.take(body_bytes.min(BODY_BYTES_MAX)).read_to_end(&mut request.body)?;
    std::io::copy(&mut reader.take(body_bytes.saturating_sub(BODY_BYTES_MAX)), &mut std::io::sink())?;
    Ok(Some(request))
}

/// The answers of the demo itself.
pub fn answer(request: &Request) -> (u16, String) {
    let number = |name: &str| parameter(&request.query, name);
    match request.path.as_str() {
        "/" => (200, format!("{} says hello from Tug\n", hostname())),
        "/headers" => (200, request.headers.clone()),
        "/crash" => std::process::abort(),
        "/delay" => {
            thread::sleep(Duration::from_millis(number("ms").unwrap_or(0)));
            (200, format!("{} waited\n", hostname()))
        }
        "/load" => {
            let seconds = number("seconds").unwrap_or(10);
            if let Some(millicores) = number("cpu") {
                load::cpu(millicores, seconds);
            }
            if let Some(megabytes) = number("memory") {
                load::memory(megabytes, seconds);
            }
            (200, format!("{} worked\n", hostname()))
        }
        path => match path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
            Some(code @ 200..=599) => (code, format!("{code} {}\n", phrase(code))),
            _ => (200, format!("{} {path}\n", hostname())),
        },
    }
}

fn parameter(query: &str, name: &str) -> Option<u64> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    value.parse().ok()
}

fn hostname() -> String {
    let name = read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "demo".to_owned() } else { name.to_owned() }
}

fn phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}
