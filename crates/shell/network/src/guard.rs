//! Notices at once when someone deletes our table, as `nft flush ruleset` in a firewall's start script does.

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::io::unix::AsyncFd;

/// Multicast group of nftables' notifications: NFNLGRP_NFTABLES.
const NFTABLES_GROUP: u32 = 7;
/// NFNL_SUBSYS_NFTABLES and NFT_MSG_DELTABLE.
const DELETE_TABLE: u16 = 10 << 8 | 2;
const TABLE_NAME_ATTRIBUTE: u16 = 1;
const HEADER_BYTES: usize = 16;
/// Netlink header, then four bytes with family and generation.
const PREFIX_BYTES: usize = HEADER_BYTES + 4;
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// All listeners of a node.
#[derive(Clone, Default)]
pub struct Guards(Arc<Mutex<Vec<Weak<AsyncFd<OwnedFd>>>>>);

impl Guards {
    /// One more listener; `None`, with a warning, where the kernel gives none.
    pub fn open(&self) -> Option<Guard> {
        let open = Guard::open().inspect_err(|error| tracing::warn!(%error, "cannot listen for nftables changes"));
        let guard = open.ok()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&guard.socket));
        Some(guard)
    }

    /// Nobody listens until the value is dropped. While somebody does the kernel makes a notice of every element that is
    /// written, which is two thirds of its work when there are tens of thousands. What is deleted meanwhile is found by
    /// the next look.
    pub fn hush(&self) -> Hushed<'_> {
        self.listen(false);
        Hushed(self)
    }

    fn listen(&self, on: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|socket| socket.strong_count() > 0);
        for socket in all.iter().filter_map(Weak::upgrade) {
            let (option, group) =
                (if on { libc::NETLINK_ADD_MEMBERSHIP } else { libc::NETLINK_DROP_MEMBERSHIP }, NFTABLES_GROUP);
            // SAFETY: the descriptor is open while `socket` lives, and the pointer is to a live value of the stated size.
            let done = unsafe {
                let group = std::ptr::from_ref(&group).cast();
                libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, group, size_of::<u32>() as u32)
            };
            if done != 0 {
                tracing::warn!(error = %io::Error::last_os_error(), on, "cannot change what nftables tells");
            }
        }
    }
}

/// Ends the silence when it is dropped.
pub struct Hushed<'a>(&'a Guards);

impl Drop for Hushed<'_> {
    fn drop(&mut self) {
        self.0.listen(true);
    }
}

/// A listener for deletions in this network namespace.
pub struct Guard {
    socket: Arc<AsyncFd<OwnedFd>>,
}

impl Guard {
    fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1 << (NFTABLES_GROUP - 1)))?;
        // SAFETY: an `OwnedFd` keeps its descriptor open and its own until dropped, and `AsyncFd` owns it from here on.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket: Arc::new(socket) })
    }

    /// Returns when `table` was deleted, maybe by ourselves to replace it, or when notifications were lost. The caller looks.
    pub async fn deleted(&self, table: &str) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let mut ready = self.socket.readable().await?;
            let read = ready.try_io(|fd| Ok(recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?));
            match read {
                Ok(Ok(length)) if deletes(&buffer[..length], table) => return Ok(()),
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

/// Waits for the kernel's notice that the table was deleted; for ever once notices cannot be had.
pub async fn deleted(guard: &mut Option<Guard>, table: &str) {
    match guard {
        Some(listener) => {
            if let Err(error) = listener.deleted(table).await {
                tracing::warn!(%error, "nftables notices ended");
                *guard = None;
            }
        }
        None => std::future::pending().await,
    }
}

/// Whether a datagram of netlink messages tells that `table` was deleted.
fn deletes(mut bytes: &[u8], table: &str) -> bool {
    let number = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    while let Some(length) = bytes.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = bytes.get(..length).filter(|message| message.len() >= HEADER_BYTES) else { return false };
        let mut attributes = message.get(PREFIX_BYTES..).unwrap_or_default();
        while number(message, 4) == Some(DELETE_TABLE) {
            let (Some(size), Some(kind)) = (number(attributes, 0), number(attributes, 2)) else { break };
            let Some(value) = attributes.get(4..usize::from(size)) else { break };
            if kind == TABLE_NAME_ATTRIBUTE && value.strip_suffix(&[0]).unwrap_or(value) == table.as_bytes() {
                return true;
            }
            attributes = attributes.get(usize::from(size).next_multiple_of(4)..).unwrap_or_default();
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_deletion_of_the_named_table_counts() {
        let message = |kind: u16, name: &str| {
            let mut attribute =
                [&(5 + name.len() as u16).to_ne_bytes()[..], &1u16.to_ne_bytes(), name.as_bytes(), &[0]].concat();
            attribute.resize(attribute.len().next_multiple_of(4), 0);
            let length = (PREFIX_BYTES + attribute.len()) as u32;
            [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 14], &attribute].concat()
        };
        let added = DELETE_TABLE & 0xff00;
        assert!(deletes(&[message(added, "t"), message(DELETE_TABLE, "t")].concat(), "t"));
        assert!(!deletes(&[message(added, "t"), message(DELETE_TABLE, "other")].concat(), "t"));
        assert!(!deletes(&message(DELETE_TABLE, "t")[..10], "t"));
        assert!(!deletes(&[0; 64], "t"));
    }
}
