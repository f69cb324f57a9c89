//! Between etcd's words and the contract's: keys with their prefix, revisions, errors.

use bytes::Bytes;
use tonic::Status;

use super::proto::{KeyValue, ResponseHeader};
use crate::contract::{Entry, StoreError, StoreResult};

#[derive(Clone)]
pub struct Keys {
    prefix: Bytes,
}

impl Keys {
    pub fn new(prefix: String) -> Self {
        Self { prefix: prefix.into() }
    }

    pub fn full(&self, key: &[u8]) -> Bytes {
        [&self.prefix[..], key].concat().into()
    }

    pub fn strip(&self, key: &Bytes) -> StoreResult<Bytes> {
        if !key.starts_with(&self.prefix) {
            return Err(StoreError::Corrupt("etcd answered a key outside of the prefix".to_owned()));
        }
        Ok(key.slice(self.prefix.len()..))
    }

    pub fn entry(&self, kv: KeyValue) -> StoreResult<Entry> {
        Ok(Entry {
            key: self.strip(&kv.key)?,
            value: kv.value,
            create_revision: unsigned(kv.create_revision),
            mod_revision: unsigned(kv.mod_revision),
        })
    }
}

pub fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

pub fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

pub fn revision_of(header: Option<&ResponseHeader>) -> StoreResult<u64> {
    let header = header.ok_or_else(|| StoreError::Corrupt("etcd answered without a header".to_owned()))?;
    Ok(unsigned(header.revision))
}

pub fn is_compacted(status: &Status) -> bool {
    status.message().contains("required revision has been compacted")
}

/// `oldest` as far as known; etcd does not tell it with this error.
pub fn failed(status: &Status, asked: u64, oldest: u64) -> StoreError {
    if is_compacted(status) {
        return StoreError::Compacted { asked, oldest: oldest.max(asked + 1) };
    }
    StoreError::Unavailable(format!("etcd: {}: {}", status.code(), status.message()))
}
