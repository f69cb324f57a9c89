//! Asks the host's resolvers for names outside the cluster, with a short bounded cache.

use crate::upstreams::SharedUpstreams;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Longest time to wait for one resolver.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);
/// Most resolvers tried for one question, as in resolv.conf.
const RESOLVERS_MAX: usize = 3;
/// Most answers remembered; when full, new ones are not kept until old ones expire.
const CACHE_ENTRIES_MAX: usize = 4_096;
/// Longest time that an answer, or a "no", is remembered, in seconds.
const CACHE_SECONDS_MAX: u32 = 30;
/// How long the list of resolvers is trusted before its file is read again.
const RESOLVERS_AGE_MAX: Duration = Duration::from_secs(5);
const DATAGRAM_BYTES_MAX: u16 = 1_232;

/// Why a name outside the cluster has no answer; all are worth another try by the client.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("{file} names no usable resolver")]
    NoResolver { file: PathBuf },
    #[error("resolver {resolver} did not answer in {ASK_TIME_MAX:?}")]
    Silent { resolver: SocketAddr },
    #[error("cannot ask resolver {resolver}")]
    Io { resolver: SocketAddr, source: std::io::Error },
    #[error("resolver {resolver} answered nonsense")]
    Nonsense { resolver: SocketAddr },
}

type CacheKey = (Name, RecordType, bool);

struct Cached {
    answer: Message,
    since: Instant,
    until: Instant,
}

/// The forwarder.
pub struct Forwarder {
    resolv_conf: PathBuf,
    /// Our own addresses: asking them would be asking ourselves.
    own: Vec<IpAddr>,
    upstreams: SharedUpstreams,
    resolvers: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    /// Answers, and the generation of upstreams that gave them.
    cache: Mutex<(u64, HashMap<CacheKey, Cached>)>,
}

/// The nameservers of a resolv.conf text.
pub fn nameservers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default());
    let servers =
        lines.filter_map(|line| line.trim().strip_prefix("nameserver")).filter(|rest| rest.starts_with([' ', '\t']));
    // A second word or a %zone makes an address that we cannot use; the resolver library skips it too.
    servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, 53)).collect()
}

impl Forwarder {
    pub fn new(resolv_conf: PathBuf, own: Vec<IpAddr>, upstreams: SharedUpstreams) -> Self {
        Self { resolv_conf, own, upstreams, resolvers: Mutex::new(None), cache: Mutex::default() }
    }

    #[cfg(test)]
    pub fn with_resolvers(resolvers: Vec<SocketAddr>) -> Self {
        let forwarder = Self::new(PathBuf::from("test"), vec![], SharedUpstreams::default());
        let far = Instant::now() + Duration::from_secs(3_600);
        *forwarder.resolvers.lock().unwrap() = Some((far, resolvers));
        forwarder
    }

    /// Whom to ask for a name.
    fn resolvers_of(&self, name: &Name) -> Vec<SocketAddr> {
        let Some(mut stated) = self.upstreams.of(&name.to_ascii()) else { return self.resolvers() };
        stated.retain(|server| !self.own.contains(&server.ip()));
        stated
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        let mut known = self.resolvers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, list)) = &*known
            && read.elapsed() < RESOLVERS_AGE_MAX
        {
            return list.clone();
        }
        let text = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        let list: Vec<SocketAddr> = nameservers(&text)
            .into_iter()
            .filter(|server| !self.own.contains(&server.ip()))
            .take(RESOLVERS_MAX)
            .collect();
        *known = Some((Instant::now(), list.clone()));
        list
    }

    /// Asks until one resolver answers. Over TCP for clients that use it: their answer may not fit a datagram.
    pub async fn ask(&self, question: &Query, dnssec: bool, tcp: bool) -> Result<Message, ForwardError> {
        let key = (question.name().to_lowercase(), question.query_type(), dnssec);
        if let Some(answer) = self.remembered(&key) {
            return Ok(answer);
        }
        let mut last = ForwardError::NoResolver { file: self.resolv_conf.clone() };
        for resolver in self.resolvers_of(question.name()) {
            match tokio::time::timeout(ASK_TIME_MAX, exchange(resolver, question, dnssec, tcp)).await {
                Ok(Ok(answer)) => {
                    self.remember(key, &answer);
                    return Ok(answer);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = ForwardError::Silent { resolver },
            }
        }
        Err(last)
    }

    fn remembered(&self, key: &CacheKey) -> Option<Message> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.0 != self.upstreams.generation() {
            return None;
        }
        let cached = cache.1.get(key).filter(|cached| cached.until > Instant::now())?;
        let mut answer = cached.answer.clone();
        let age = u32::try_from(cached.since.elapsed().as_secs()).unwrap_or(u32::MAX);
        for record in answer.answers.iter_mut().chain(&mut answer.authorities).chain(&mut answer.additionals) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(answer)
    }

    fn remember(&self, key: CacheKey, answer: &Message) {
        let positive = answer.metadata.response_code == ResponseCode::NoError && !answer.answers.is_empty();
        let negative = matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
        let soa = answer.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
            _ => None,
        });
        let seconds = match (positive, negative) {
            (true, _) => answer.answers.iter().map(|record| record.ttl).min().unwrap_or(0),
            (_, true) => soa.unwrap_or(0),
            _ => 0,
        };
        if seconds == 0 || answer.metadata.truncation {
            return;
        }
        let since = Instant::now();
        let until = since + Duration::from_secs(seconds.min(CACHE_SECONDS_MAX).into());
        let mut known = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, cache) = &mut *known;
        let generation = self.upstreams.generation();
        if *of != generation {
            cache.clear();
            *of = generation;
        }
        if cache.len() >= CACHE_ENTRIES_MAX {
            cache.retain(|_, cached| cached.until > since);
        }
        if cache.len() < CACHE_ENTRIES_MAX {
            cache.insert(key, Cached { answer: answer.clone(), since, until });
        }
    }
}

async fn exchange(resolver: SocketAddr, question: &Query, dnssec: bool, tcp: bool) -> Result<Message, ForwardError> {
    let io = |source| ForwardError::Io { resolver, source };
    let mut request = Message::query();
    request.metadata.id = rand::random();
    request.metadata.recursion_desired = true;
    request.add_query(question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM_BYTES_MAX).set_dnssec_ok(dnssec);
    request.set_edns(edns);
    let bytes = request.to_vec().map_err(|_| ForwardError::Nonsense { resolver })?;
    let matches = |answer: &Message| {
        let same = |asked: &Query| asked.query_type() == question.query_type() && asked.name() == question.name();
        answer.metadata.id == request.metadata.id && answer.queries.first().is_none_or(same)
    };
    if tcp {
        let mut stream = TcpStream::connect(resolver).await.map_err(io)?;
        let length = u16::try_from(bytes.len()).unwrap_or(0);
        stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await.map_err(io)?;
        let mut answer = vec![0; usize::from(stream.read_u16().await.map_err(io)?)];
        stream.read_exact(&mut answer).await.map_err(io)?;
        return Message::from_vec(&answer).ok().filter(matches).ok_or(ForwardError::Nonsense { resolver });
    }
    let any: SocketAddr = if resolver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(io)?;
    socket.connect(resolver).await.map_err(io)?;
    socket.send(&bytes).await.map_err(io)?;
    let mut buffer = vec![0; usize::from(DATAGRAM_BYTES_MAX) * 2];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(io)?;
        // A forged or late datagram does not end the wait.
        if let Some(answer) = Message::from_vec(&buffer[..length]).ok().filter(matches) {
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_resolver_does() {
        let text = "# x\nnameserver 10.0.0.1\nnameserver\t::1 # v6\nnameservers 1.1.1.1\nnameserver fe80::1%eth0\nsearch a b\n";
        assert_eq!(nameservers(text), ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse::<SocketAddr>().unwrap()]);
    }
}
