//! A small service with a memory: notes by id, kept in a Redis server.
//!
//! A note that was answered for is stored. While the store is away a request waits for it, and is tried again: to store
//! the same note twice changes nothing.

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::server::{self, Request};

const KEY: &[u8] = b"notes";
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request waits for a store that is away.
const WAIT_MAX: Duration = Duration::from_secs(25);
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What the store answers.
enum Reply {
    Text(String),
    Number(i64),
    Bytes(Option<Vec<u8>>),
    List(Vec<Vec<u8>>),
}

pub fn serve(store: &str) -> Result<()> {
    let store = store.to_owned();
    server::serve(Arc::new(move |request: &Request| answer(&store, request)))
}

fn answer(store: &str, request: &Request) -> (u16, String) {
    let id = request.path.strip_prefix("/notes/").filter(|id| !id.is_empty());
    match (request.method.as_str(), id) {
        ("PUT", Some(id)) => match patiently(store, &[b"HSET", KEY, id.as_bytes(), &request.body]) {
            Ok(Reply::Number(new)) => (if new == 1 { 201 } else { 200 }, format!("{id}\n")),
            other => failed(other),
        },
        ("GET", Some(id)) => match patiently(store, &[b"HGET", KEY, id.as_bytes()]) {
            Ok(Reply::Bytes(Some(note))) => (200, String::from_utf8_lossy(&note).into_owned()),
            Ok(Reply::Bytes(None)) => (404, format!("no note {id}\n")),
            other => failed(other),
        },
        ("GET", None) if request.path == "/notes" => match patiently(store, &[b"HKEYS", KEY]) {
            Ok(Reply::List(ids)) => (200, ids.iter().map(|id| format!("{}\n", String::from_utf8_lossy(id))).collect()),
            other => failed(other),
        },
        _ => server::answer(request),
    }
}

fn failed(reply: Result<Reply>) -> (u16, String) {
    let why = match reply {
        Ok(Reply::Text(text)) => text,
        Ok(_) => "the store gave an answer of another kind".to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("the store: {why}");
    (503, format!("{why}\n"))
}

fn patiently(store: &str, words: &[&[u8]]) -> Result<Reply> {
    let started = Instant::now();
    loop {
        match ask(store, words) {
            Err(_) if started.elapsed() < WAIT_MAX => sleep(TRY_AGAIN),
            answer => return answer,
        }
    }
}

/// One command on a connection of its own, in Redis's protocol.
fn ask(store: &str, words: &[&[u8]]) -> Result<Reply> {
    let address = store.to_socket_addrs()?.next().ok_or_else(|| Error::other("the store has no address"))?;
    let stream = TcpStream::connect_timeout(&address, STORE_TIMEOUT)?;
    stream.set_read_timeout(Some(STORE_TIMEOUT))?;
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        write!(command, "${}\r\n", word.len())?;
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    (&stream).write_all(&command)?;
    read(&mut BufReader::new(&stream))
}

fn read(from: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| Error::other("the store hung up"))?;
    let number = || rest.parse::<i64>().map_err(Error::other);
    match kind {
        "+" => Ok(Reply::Text(rest.to_owned())),
        ":" => Ok(Reply::Number(number()?)),
        "$" => Ok(Reply::Bytes(bytes(from, number()?)?)),
        "*" => {
            let mut all = Vec::new();
            for _ in 0..number()? {
                if let Reply::Bytes(Some(one)) = read(from)? {
                    all.push(one);
                }
            }
            Ok(Reply::List(all))
        }
        _ => Err(Error::other(rest.to_owned())),
    }
}

fn bytes(from: &mut impl BufRead, count: i64) -> Result<Option<Vec<u8>>> {
    let Ok(count) = usize::try_from(count) else { return Ok(None) };
    let mut data = vec![0; count + 2];
    from.read_exact(&mut data)?;
    data.truncate(count);
    Ok(Some(data))
}
