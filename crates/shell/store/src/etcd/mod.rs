//! The etcd engine: the same contract on an etcd v3 cluster.
//!
//! Reads go to the next endpoint when one is away. A write whose answer was lost is not repeated: whether it happened is
//! not known, so the caller gets `Unavailable`, and the next call goes to another endpoint.

mod codec;
mod endpoints;
mod proto {
    #![allow(clippy::all, clippy::pedantic, missing_docs, rust_2018_idioms)]
    tonic::include_proto!("etcdserverpb");
}
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use self::codec::{Keys, failed, revision_of, signed, unsigned};
use self::endpoints::Endpoints;
use self::proto::request_op::Request;
use self::proto::response_op::Response;
use self::proto::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
    compare,
};
use crate::contract::{Entry, Expect, Page, Range, Store, StoreError, StoreResult, WatchStream};

/// etcd's default request limit, and what the rest of a request may take of it.
const REQUEST_BYTES_MAX: usize = 1_536 * 1024;
const REQUEST_OVERHEAD_BYTES: usize = 512;
/// Entries asked for in one call; longer lists are read in pages at one revision.
const LIST_PAGE_ENTRIES_MAX: usize = 500;

#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// `http://HOST:PORT` of the members.
    pub endpoints: Vec<String>,
    /// Put before every key, so that several clusters share one etcd.
    pub prefix: String,
}

pub struct Etcd {
    endpoints: Endpoints,
    keys: Keys,
    /// The highest compacted revision this process heard of.
    compacted: AtomicU64,
}

impl Etcd {
    /// Connects and asks for the revision once, so that a wrong address shows here.
    pub async fn connect(config: EtcdConfig) -> StoreResult<Self> {
        let endpoints = Endpoints::new(&config.endpoints)?;
        let etcd = Self { endpoints, keys: Keys::new(config.prefix), compacted: AtomicU64::new(0) };
        etcd.revision().await?;
        Ok(etcd)
    }

    async fn range(&self, request: RangeRequest) -> StoreResult<proto::RangeResponse> {
        let asked = unsigned(request.revision);
        let answer = self.endpoints.read(|mut kv| {
            let request = request.clone();
            async move { kv.range(request).await }
        });
        answer.await.map_err(|status| failed(&status, asked, self.compacted.load(Ordering::Relaxed)))
    }

    async fn txn(&self, key: &Bytes, expect: Expect, then: Request) -> StoreResult<u64> {
        let condition = |target, target_union, result| Compare {
            key: key.clone(),
            target,
            target_union: Some(target_union),
            result,
        };
        let equal = compare::Result::Equal as i32;
        let created = |revision, result| {
            let union = compare::TargetUnion::CreateRevision(revision);
            condition(compare::Target::Create as i32, union, result)
        };
        let compare = match expect {
            Expect::Absent => vec![created(0, equal)],
            Expect::Revision(revision) => {
                let union = compare::TargetUnion::ModRevision(signed(revision));
                let exists = created(0, compare::Result::Greater as i32);
                vec![exists, condition(compare::Target::Mod as i32, union, equal)]
            }
        };
        let now = Request::RequestRange(RangeRequest { key: key.clone(), ..RangeRequest::default() });
        let op = |request| vec![RequestOp { request: Some(request) }];
        let request = TxnRequest { compare, success: op(then), failure: op(now) };
        let answer = self.endpoints.write(|mut kv| async move { kv.txn(request).await }).await;
        let answer = answer.map_err(|status| failed(&status, 0, 0))?;
        if answer.succeeded {
            return revision_of(answer.header.as_ref());
        }
        Err(StoreError::Conflict(self.found(answer)?))
    }

    fn found(&self, answer: TxnResponse) -> StoreResult<Option<Entry>> {
        match answer.responses.into_iter().next().and_then(|op| op.response) {
            Some(Response::ResponseRange(range)) => {
                range.kvs.into_iter().next().map(|kv| self.keys.entry(kv)).transpose()
            }
            _ => Err(StoreError::Corrupt("etcd answered a transaction without its range".to_owned())),
        }
    }
}

fn check_size(key: &Bytes, value: &Bytes) -> StoreResult<()> {
    let max = REQUEST_BYTES_MAX - REQUEST_OVERHEAD_BYTES - 3 * key.len().min(REQUEST_BYTES_MAX / 8);
    if value.len() > max {
        return Err(StoreError::TooLarge { size: value.len(), max });
    }
    Ok(())
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &[u8]) -> StoreResult<(Option<Entry>, u64)> {
        let answer = self.range(RangeRequest { key: self.keys.full(key), ..RangeRequest::default() }).await?;
        let revision = revision_of(answer.header.as_ref())?;
        let entry = answer.kvs.into_iter().next().map(|kv| self.keys.entry(kv)).transpose()?;
        Ok((entry, revision))
    }

    async fn list(&self, range: Range, limit: usize, revision: Option<u64>) -> StoreResult<Page> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let range_end = self.keys.full(&range.end);
        let mut page = Page { entries: Vec::new(), revision: revision.unwrap_or(0), more: false };
        if range.start >= range.end {
            page.revision = match revision {
                Some(revision) => revision,
                None => self.revision().await?,
            };
            return Ok(page);
        }
        let mut key = self.keys.full(&range.start);
        loop {
            let ask = (limit - page.entries.len()).min(LIST_PAGE_ENTRIES_MAX);
            let limit_here = i64::try_from(ask).unwrap_or(i64::MAX);
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: limit_here,
                revision: signed(page.revision),
                count_only: false,
            };
            let answer = self.range(request).await?;
            if page.revision == 0 {
                page.revision = revision_of(answer.header.as_ref())?;
            }
            page.more = answer.more;
            if let Some(last) = answer.kvs.last() {
                // The smallest key after the last one.
                key = [&last.key[..], &[0]].concat().into();
            }
            for kv in answer.kvs {
                page.entries.push(self.keys.entry(kv)?);
            }
            if !page.more || page.entries.len() >= limit {
                return Ok(page);
            }
        }
    }

    async fn put(&self, key: Bytes, value: Bytes, expect: Expect) -> StoreResult<u64> {
        let key = self.keys.full(&key);
        check_size(&key, &value)?;
        self.txn(&key, expect, Request::RequestPut(PutRequest { key: key.clone(), value })).await
    }

    async fn delete(&self, key: Bytes, revision: u64) -> StoreResult<u64> {
        let key = self.keys.full(&key);
        let delete = Request::RequestDeleteRange(DeleteRangeRequest { key: key.clone() });
        self.txn(&key, Expect::Revision(revision), delete).await
    }

    async fn watch(&self, range: Range, after: u64) -> StoreResult<WatchStream> {
        watch::watch(&self.endpoints, self.keys.clone(), range, after).await
    }

    async fn revision(&self) -> StoreResult<u64> {
        let any = RangeRequest { key: self.keys.full(b"\0"), count_only: true, ..RangeRequest::default() };
        revision_of(self.range(any).await?.header.as_ref())
    }

    async fn compact(&self, revision: u64) -> StoreResult<()> {
        let revision = revision.min(self.revision().await?);
        let request = CompactionRequest { revision: signed(revision), physical: false };
        match self.endpoints.write(|mut kv| async move { kv.compact(request).await }).await {
            Err(status) if !codec::is_compacted(&status) => Err(failed(&status, revision, 0)),
            // Compacted now or before.
            _ => {
                self.compacted.fetch_max(revision, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}
