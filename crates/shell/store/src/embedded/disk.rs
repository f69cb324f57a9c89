//! The durable side: records with checksums in a log-structured database, one atomic synced batch per commit.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::memory::{Change, Current};
use crate::contract::{Entry, EventKind, StoreError, StoreResult};

/// The revision of an empty store, as etcd's.
const FIRST_REVISION: u64 = 1;
const REVISION_KEY: &[u8] = b"revision";
/// Nothing is read from the database after the start, so its block cache is only for compaction.
const CACHE_BYTES: u64 = 1024 * 1024;
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// How long a reopened disk may take to write what its journal held.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const SETTLE_POLL: Duration = Duration::from_millis(5);
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;

pub struct Disk {
    database: Database,
    entries: Keyspace,
    meta: Keyspace,
}

impl Disk {
    pub fn open(path: &Path) -> StoreResult<Self> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let entries = database.keyspace("entries", options).map_err(failed)?;
        let meta = database.keyspace("meta", options).map_err(failed)?;
        Ok(Self { database, entries, meta })
    }

    /// The revision of the last commit.
    pub fn revision(&self) -> StoreResult<u64> {
        let Some(record) = self.meta.get(REVISION_KEY).map_err(failed)? else { return Ok(FIRST_REVISION) };
        let (head, _) = open_record(REVISION_KEY, &record)?;
        Ok(head.mod_revision)
    }

    /// Every entry, checked.
    pub fn load(&self) -> StoreResult<Current> {
        let revision = self.revision()?;
        let mut current = Current::new();
        for guard in self.entries.iter() {
            let (key, record) = guard.into_inner().map_err(failed)?;
            let (head, value) = open_record(&key, &record)?;
            if head.mod_revision > revision || head.create_revision > head.mod_revision {
                let key = String::from_utf8_lossy(&key);
                return Err(StoreError::Corrupt(format!("{key} is at {}, the store at {revision}", head.mod_revision)));
            }
            let entry = Entry {
                key: Bytes::copy_from_slice(&key),
                value: Bytes::copy_from_slice(value),
                create_revision: head.create_revision,
                mod_revision: head.mod_revision,
            };
            current.insert(entry.key.clone(), Arc::new(entry));
        }
        Ok(current)
    }

    /// All changes or none; on stable storage when this returns.
    pub fn commit(&self, changes: &[Change]) -> StoreResult<()> {
        let Some(last) = changes.last() else { return Ok(()) };
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for Change { event, .. } in changes {
            match event.kind {
                EventKind::Put => {
                    let head = Head { create_revision: event.create_revision, mod_revision: event.revision };
                    batch.insert(&self.entries, &event.key[..], &seal_record(&event.key, head, &event.value)[..]);
                }
                EventKind::Delete => batch.remove(&self.entries, &event.key[..]),
            }
        }
        let head = Head { create_revision: 0, mod_revision: last.event.revision };
        batch.insert(&self.meta, REVISION_KEY, &seal_record(REVISION_KEY, head, b"")[..]);
        batch.commit().map_err(failed)
    }

    /// Moves what the journal holds into synced tables. Needed after a failed sync: the kernel may have dropped pages
    /// that still read back, and later records must not stand behind such a hole.
    ///
    /// The wait is bounded: a background flush that fails ends its worker and would never be done.
    pub fn settle(&self) -> StoreResult<()> {
        let deadline = Instant::now() + SETTLE_MAX;
        for keyspace in [&self.entries, &self.meta] {
            keyspace.rotate_memtable().map_err(failed)?;
            while keyspace.sealed_memtable_count() > 0 {
                if Instant::now() > deadline {
                    return Err(StoreError::Unavailable("disk: the tables could not be written".to_owned()));
                }
                std::thread::sleep(SETTLE_POLL);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    create_revision: u64,
    mod_revision: u64,
}

const HEAD_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// Create revision, mod revision, value, CRC-32 over key and all of these.
fn seal_record(key: &[u8], head: Head, value: &[u8]) -> BytesMut {
    let mut record = BytesMut::with_capacity(HEAD_BYTES + value.len() + CHECKSUM_BYTES);
    record.put_u64(head.create_revision);
    record.put_u64(head.mod_revision);
    record.put_slice(value);
    let sum = checksum(key, &record);
    record.put_u32(sum);
    record
}

fn open_record<'a>(key: &[u8], record: &'a [u8]) -> StoreResult<(Head, &'a [u8])> {
    let damaged = || StoreError::Corrupt(format!("the record of {} is damaged", String::from_utf8_lossy(key)));
    let (body, sum) = record.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
    if u32::from_be_bytes(*sum) != checksum(key, body) {
        return Err(damaged());
    }
    let (create, rest) = body.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (modified, value) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let head = Head { create_revision: u64::from_be_bytes(*create), mod_revision: u64::from_be_bytes(*modified) };
    Ok((head, value))
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

fn failed(error: fjall::Error) -> StoreError {
    use fjall::Error;
    match &error {
        Error::Io(_) | Error::Poisoned | Error::Locked | Error::Storage(fjall::LsmError::Io(_)) => {
            StoreError::Unavailable(format!("disk: {error}"))
        }
        _ => StoreError::Corrupt(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_damage_is_seen() {
        let head = Head { create_revision: 7, mod_revision: 9 };
        let record = seal_record(b"/a", head, b"value");
        assert_eq!(open_record(b"/a", &record).unwrap(), (head, &b"value"[..]));
        assert!(open_record(b"/b", &record).is_err(), "a record under another key");
        assert!(open_record(b"/a", &record[..10]).is_err(), "a torn record");
        assert!(open_record(b"/a", b"").is_err());
        let mut flipped = record;
        flipped[HEAD_BYTES] ^= 1;
        assert!(open_record(b"/a", &flipped).is_err());
    }
}
