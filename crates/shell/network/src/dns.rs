//! The node's DNS server: answers the cluster's names from memory, sends other names to the host's resolvers.
//!
//! Answers about the cluster never wait for anything. Every pod's lookups end here on its own node, because the service
//! proxy maps the cluster DNS address to this listener.

use crate::forward::Forwarder;
use crate::remembered::Remembered;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use netplan::dns::{Answer, Data, TTL_SECONDS, Type, Zone};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// Most datagrams being forwarded at once; beyond it clients get SERVFAIL at once instead of a queue.
const FORWARDS_MAX: usize = 512;
/// Most TCP connections at once.
const CONNECTIONS_MAX: usize = 128;
/// Longest silence on a TCP connection.
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(10);
/// Largest answer in one datagram (the DNS community's agreed size that is never fragmented).
const DATAGRAM_BYTES_MAX: u16 = 1_232;
const DATAGRAM_BYTES_WITHOUT_EDNS: u16 = 512;
/// Most external names followed from one answer.
const CNAME_STEPS_MAX: usize = 8;

/// The zone as shared between the watches, which change it, and the server, which asks it.
pub type SharedZone = Arc<RwLock<Zone>>;

/// The server; cheap to clone.
#[derive(Clone)]
pub struct Server {
    zone: SharedZone,
    forwarder: Arc<Forwarder>,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// A bound listener.
pub struct Listener {
    udp: std::net::UdpSocket,
    tcp: TcpListener,
}

impl Listener {
    /// Binds UDP and TCP to one address.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        // With port 0 both must get the same number.
        let udp = UdpSocket::bind(tcp.local_addr()?).await?.into_std()?;
        Ok(Self { udp, tcp })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

impl Server {
    pub fn new(zone: SharedZone, forwarder: Forwarder) -> Self {
        Self {
            zone,
            forwarder: Arc::new(forwarder),
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }

    /// Serves until cancelled.
    pub async fn run(self, listener: Listener, stop: CancellationToken) {
        let stop = stop.child_token();
        let end = stop.clone().drop_guard();
        let (tell, mut ended) = oneshot::channel();
        let (server, others) = (self.clone(), Handle::current());
        let thread = std::thread::Builder::new().name("dns".to_owned());
        let started = thread.spawn(move || tell.send(server.datagram_thread(listener.udp, &others, &stop)));
        if let Err(error) = started {
            return tracing::error!(%error, "the DNS server has no thread; the node answers no lookups");
        }
        tokio::select! {
            told = &mut ended => {
                if let Ok(Err(error)) = told {
                    tracing::error!(%error, "the DNS server has no event loop; the node answers no lookups");
                }
            }
            () = self.connections(&listener.tcp) => {
                drop(end);
                let _ = ended.await;
            }
        }
    }

    /// Answers datagrams on the calling thread: it alone wakes for one, and most need nothing else. `others` run what has
    /// to wait.
    fn datagram_thread(
        self,
        socket: std::net::UdpSocket,
        others: &Handle,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            let others = others.clone();
            // A task and not the runtime's main future, which costs a system call each time that it is woken.
            let serving = tokio::spawn(async move { self.datagrams(&socket, &others).await });
            stop.cancelled().await;
            serving.abort();
            Ok(())
        })
    }

    async fn datagrams(&self, socket: &Arc<UdpSocket>, others: &Handle) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let mut remembered = Remembered::default();
        loop {
            // An error here belongs to an earlier datagram whose client is gone.
            let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
            let question = &buffer[..length];
            let version = self.zone.read().unwrap_or_else(PoisonError::into_inner).version();
            if let Some(answer) = remembered.answer(version, question) {
                drop(socket.send_to(answer, peer).await);
                continue;
            }
            let Some(request) = parse(question) else { continue };
            if let Some(answer) = self.at_once(&request) {
                // Of several addresses another one is first each time.
                let lasts = answer.answers.len() <= 1;
                let bytes = encode(&request, answer, false);
                drop(socket.send_to(&bytes, peer).await);
                if lasts {
                    remembered.keep(question, &bytes);
                }
                continue;
            }
            let Ok(permit) = self.forwards.clone().try_acquire_owned() else {
                let answer = failed(&request, ResponseCode::ServFail);
                drop(socket.send_to(&encode(&request, answer, false), peer).await);
                continue;
            };
            let (server, socket) = (self.clone(), socket.clone());
            others.spawn(async move {
                let answer = server.follow(&request, false).await;
                drop(socket.send_to(&encode(&request, answer, false), peer).await);
                drop(permit);
            });
        }
    }

    async fn connections(&self, listener: &TcpListener) {
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        let _ = server.connection(stream).await;
                        drop(permit);
                    });
                }
                // Out of file descriptors, most likely: time heals it, a busy loop does not.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let read = async {
                let length = stream.read_u16().await?;
                let mut bytes = vec![0; usize::from(length)];
                stream.read_exact(&mut bytes).await?;
                Ok::<_, std::io::Error>(bytes)
            };
            let query = tokio::time::timeout(CONNECTION_IDLE_MAX, read).await??;
            let Some(request) = parse(&query) else { return Ok(()) };
            let answer = match self.at_once(&request) {
                Some(answer) => answer,
                None => self.follow(&request, true).await,
            };
            let bytes = encode(&request, answer, true);
            let length = u16::try_from(bytes.len()).unwrap_or(0);
            let framed = [&length.to_be_bytes()[..], &bytes].concat();
            tokio::time::timeout(CONNECTION_IDLE_MAX, stream.write_all(&framed)).await??;
        }
    }

    /// The answer to what needs no other server; `None` if another one must be asked.
    fn at_once(&self, request: &Message) -> Option<Message> {
        if request.metadata.op_code != OpCode::Query {
            return Some(failed(request, ResponseCode::NotImp));
        }
        let [question] = request.queries.as_slice() else { return Some(failed(request, ResponseCode::FormErr)) };
        if question.query_class() != DNSClass::IN {
            return Some(failed(request, ResponseCode::Refused));
        }
        let mut answer = failed(request, ResponseCode::NoError);
        match self.ask_zone(question, &mut answer) {
            Step::Done => Some(answer),
            Step::Follow(_) | Step::NotOurs => None,
        }
    }

    /// Answers by asking other servers, following external names from the zone.
    async fn follow(&self, request: &Message, tcp: bool) -> Message {
        let mut answer = failed(request, ResponseCode::NoError);
        let Some(mut question) = request.queries.first().cloned() else { return answer };
        for _ in 0..CNAME_STEPS_MAX {
            match self.ask_zone(&question, &mut answer) {
                Step::Done => return answer,
                Step::Follow(name) => drop(question.set_name(name)),
                Step::NotOurs => {
                    let dnssec = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
                    match self.forwarder.ask(&question, dnssec, tcp).await {
                        Ok(other) => {
                            answer.metadata.response_code = other.metadata.response_code;
                            answer.metadata.truncation = other.metadata.truncation;
                            answer.metadata.authoritative = false;
                            answer.answers.extend(other.answers);
                            answer.authorities.extend(other.authorities);
                            answer.additionals.extend(other.additionals);
                        }
                        Err(error) => {
                            tracing::debug!(name = %question.name(), error = &error as &dyn std::error::Error, "no answer");
                            answer.metadata.response_code = ResponseCode::ServFail;
                        }
                    }
                    return answer;
                }
            }
        }
        answer.metadata.response_code = ResponseCode::ServFail;
        answer
    }

    /// Adds what the zone knows about one question to `answer`.
    fn ask_zone(&self, question: &Query, answer: &mut Message) -> Step {
        let kind = match question.query_type() {
            RecordType::A => Type::A,
            RecordType::AAAA => Type::Aaaa,
            RecordType::SRV => Type::Srv,
            RecordType::PTR => Type::Ptr,
            RecordType::CNAME => Type::Cname,
            RecordType::TXT => Type::Txt,
            RecordType::SOA => Type::Soa,
            RecordType::NS => Type::Ns,
            RecordType::ANY => Type::Any,
            _ => Type::Other,
        };
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        let said = zone.query(&question.name().to_ascii(), kind);
        let authority = || record(zone.domain(), Data::Soa, zone.domain());
        match said {
            Answer::NotOurs => return Step::NotOurs,
            Answer::NoData => answer.authorities.extend(authority()),
            Answer::NoSuchName => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities.extend(authority());
            }
            Answer::Records { mut answers, additional } => {
                if answers.iter().all(|found| matches!(found.data, Data::Ip(_))) && answers.len() > 1 {
                    // Clients take the first address, so a different one is first each time.
                    let turn = usize::from(rand::random::<u16>()) % answers.len();
                    answers.rotate_left(turn);
                }
                let next = match answers.first().map(|found| &found.data) {
                    Some(Data::Cname(target)) if !matches!(kind, Type::Cname | Type::Any) => {
                        Name::from_ascii(target).ok()
                    }
                    _ => None,
                };
                let convert = |found: netplan::dns::Record| record(&found.name, found.data, zone.domain());
                answer.answers.extend(answers.into_iter().filter_map(convert));
                answer.additionals.extend(additional.into_iter().filter_map(convert));
                answer.metadata.authoritative = true;
                return match next {
                    Some(mut name) => {
                        name.set_fqdn(true);
                        Step::Follow(name)
                    }
                    None => Step::Done,
                };
            }
        }
        answer.metadata.authoritative = true;
        Step::Done
    }
}

/// What is left to do after the zone was asked.
enum Step {
    Done,
    Follow(Name),
    NotOurs,
}

fn parse(bytes: &[u8]) -> Option<Message> {
    Message::from_vec(bytes).ok().filter(|message| message.metadata.message_type == MessageType::Query)
}

/// An empty answer with a code.
fn failed(request: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata.recursion_desired = request.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.queries.clone_from(&request.queries);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX);
        answer.set_edns(edns);
    }
    answer
}

/// The answer's bytes; one that does not fit a datagram is cut to nothing and marked, so that the client uses TCP.
fn encode(request: &Message, answer: Message, tcp: bool) -> Vec<u8> {
    let limit = match &request.edns {
        _ if tcp => u16::MAX,
        Some(edns) => edns.max_payload().clamp(DATAGRAM_BYTES_WITHOUT_EDNS, DATAGRAM_BYTES_MAX),
        None => DATAGRAM_BYTES_WITHOUT_EDNS,
    };
    match answer.to_vec() {
        Ok(bytes) if bytes.len() <= usize::from(limit) => bytes,
        Ok(_) if !tcp => {
            let mut short = failed(request, answer.metadata.response_code);
            short.metadata.authoritative = answer.metadata.authoritative;
            short.metadata.truncation = true;
            short.to_vec().unwrap_or_default()
        }
        _ => failed(request, ResponseCode::ServFail).to_vec().unwrap_or_default(),
    }
}

/// A record in wire types; `None` for a name that DNS cannot carry, which no valid object has.
fn record(name: &str, data: Data, domain: &str) -> Option<Record> {
    let absolute = |name: &str| {
        let mut name = Name::from_ascii(name).ok()?;
        name.set_fqdn(true);
        Some(name)
    };
    let data = match data {
        Data::Ip(IpAddr::V4(ip)) => RData::A(A(ip)),
        Data::Ip(IpAddr::V6(ip)) => RData::AAAA(AAAA(ip)),
        Data::Srv { port, weight, target } => RData::SRV(SRV::new(0, weight, port, absolute(&target)?)),
        Data::Ptr(target) => RData::PTR(PTR(absolute(&target)?)),
        Data::Cname(target) => RData::CNAME(CNAME(absolute(&target)?)),
        Data::Txt(text) => RData::TXT(TXT::new(vec![text])),
        Data::Ns(target) => RData::NS(NS(absolute(&target)?)),
        Data::Soa => RData::SOA(SOA::new(
            absolute(&format!("ns.dns.{domain}"))?,
            absolute(&format!("hostmaster.{domain}"))?,
            1,
            7_200,
            1_800,
            86_400,
            TTL_SECONDS,
        )),
    };
    Some(Record::from_rdata(absolute(name)?, TTL_SECONDS, data))
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
