//! Tests' packets: single TCP, UDP and SCTP packets sent and caught at addresses of the laboratory, so that a thousand
//! questions to the kernel's rules take less than a second.

use crate::lab::Lab;
use netplan::policy::judge::Connection;
use netplan::view::Protocol;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long the last packet may take.
const ARRIVAL_MAX: Duration = Duration::from_secs(3);
/// How long packets that should not pass are waited for.
const SILENCE: Duration = Duration::from_millis(60);
/// First source port; each probe has its own.
const PORT_FIRST: u16 = 20_000;

const PROTOCOLS: [Protocol; 3] = [Protocol::Sctp, Protocol::Tcp, Protocol::Udp];

fn number(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Sctp => libc::IPPROTO_SCTP,
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    }
}

/// Raw sockets at one address.
struct Station {
    ip: Ipv4Addr,
    sockets: Vec<(Protocol, OwnedFd)>,
}

/// All stations.
pub struct Probes(Vec<Station>);

fn address(ip: Ipv4Addr) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    }
}

const ADDRESS_BYTES: u32 = size_of::<libc::sockaddr_in>() as u32;

fn open(ip: Ipv4Addr, protocol: Protocol) -> OwnedFd {
    let own = address(ip);
    // SAFETY: plain system calls; the pointer is to a live value of the stated size, and the descriptor is new and ours.
    unsafe {
        let fd =
            libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, number(protocol));
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        let bound = libc::bind(fd, std::ptr::from_ref(&own).cast(), ADDRESS_BYTES);
        assert_eq!(bound, 0, "{ip}: {}", std::io::Error::last_os_error());
        socket
    }
}

impl Probes {
    /// Stations at addresses of the laboratory's namespaces.
    pub fn open(lab: &Lab, places: &[(&str, Ipv4Addr)]) -> Self {
        let station = |(namespace, ip): &(&str, Ipv4Addr)| {
            let ip = *ip;
            let sockets = lab.inside(namespace, move || PROTOCOLS.map(|protocol| (protocol, open(ip, protocol))));
            Station { ip, sockets: sockets.into() }
        };
        Self(places.iter().map(station).collect())
    }

    fn socket(&self, ip: Ipv4Addr, protocol: Protocol) -> &OwnedFd {
        let station = self.0.iter().find(|station| station.ip == ip).unwrap();
        &station.sockets.iter().find(|(of, _)| *of == protocol).unwrap().1
    }

    /// Sends the first packet of each connection and tells which arrived. Waits until `wanted` have, and then for more.
    pub fn arrivals(&self, connections: &[Connection], wanted: usize) -> BTreeSet<usize> {
        for (index, connection) in connections.iter().enumerate() {
            let packet = first_packet(*connection, PORT_FIRST + index as u16);
            let to = address(connection.destination);
            let socket = self.socket(connection.source, connection.protocol).as_raw_fd();
            // SAFETY: both pointers are to live values of the stated sizes. A refusal is a packet that does not arrive.
            unsafe {
                let to = std::ptr::from_ref(&to).cast();
                libc::sendto(socket, packet.as_ptr().cast(), packet.len(), 0, to, ADDRESS_BYTES);
            }
            if index % 16 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let (begin, mut quiet_since, mut arrived) = (Instant::now(), None, BTreeSet::new());
        loop {
            let before = arrived.len();
            self.0.iter().for_each(|station| collect(station, connections, &mut arrived));
            if arrived.len() > before {
                quiet_since = None;
            }
            if arrived.len() >= wanted && quiet_since.get_or_insert_with(Instant::now).elapsed() > SILENCE {
                return arrived;
            }
            if begin.elapsed() > ARRIVAL_MAX {
                return arrived;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn collect(station: &Station, connections: &[Connection], arrived: &mut BTreeSet<usize>) {
    for (protocol, socket) in &station.sockets {
        let mut buffer = [0_u8; 128];
        loop {
            // SAFETY: the buffer is live and as long as stated.
            let read = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let Ok(length) = usize::try_from(read) else { break };
            let header = usize::from(buffer[0] & 15) * 4;
            if length < header + 4 {
                continue;
            }
            let port = |at: usize| u16::from_be_bytes([buffer[header + at], buffer[header + at + 1]]);
            let source = Ipv4Addr::new(buffer[12], buffer[13], buffer[14], buffer[15]);
            let index = usize::from(port(0).wrapping_sub(PORT_FIRST));
            if let Some(connection) = connections.get(index)
                && (connection.source, connection.destination) == (source, station.ip)
                && (connection.protocol, connection.port) == (*protocol, port(2))
            {
                arrived.insert(index);
            }
        }
    }
}

fn first_packet(connection: Connection, source_port: u16) -> Vec<u8> {
    let ports = [source_port.to_be_bytes(), connection.port.to_be_bytes()].concat();
    match connection.protocol {
        Protocol::Udp => [&ports[..], &[0, 9, 0, 0, b'?']].concat(),
        Protocol::Tcp => {
            // SYN.
            let mut packet = [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0, 0, 0, 0]].concat();
            let sum = internet_checksum(connection, &packet);
            packet[16..18].copy_from_slice(&sum.to_be_bytes());
            packet
        }
        Protocol::Sctp => {
            // INIT, 20 bytes: tag, window, streams out and in, first number.
            let chunk = [1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 1];
            let mut packet = [&ports[..], &[0; 8], &chunk].concat();
            let sum = crc32c(&packet);
            packet[8..12].copy_from_slice(&sum.to_le_bytes());
            packet
        }
    }
}

fn internet_checksum(connection: Connection, packet: &[u8]) -> u16 {
    let length = packet.len() as u16;
    let pseudo = [&connection.source.octets()[..], &connection.destination.octets(), &[0, 6], &length.to_be_bytes()];
    let bytes = [&pseudo.concat()[..], packet].concat();
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
