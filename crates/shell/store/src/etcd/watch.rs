//! Watches on etcd: one gRPC stream each; etcd buffers for slow ones and cancels those that fall behind compaction.

use futures::{StreamExt, stream};
use tonic::{Status, Streaming};

use super::codec::{Keys, failed, signed, unsigned};
use super::endpoints::{ANSWER_BYTES_MAX, CALL_TIMEOUT, Endpoints, is_away};
use super::proto::event::EventType;
use super::proto::watch_client::WatchClient;
use super::proto::watch_request::RequestUnion;
use super::proto::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::contract::{Event, EventKind, Range, StoreError, StoreResult, WatchStream};

struct Running {
    answers: Streaming<WatchResponse>,
    keys: Keys,
    after: u64,
    ended: bool,
}

pub async fn watch(endpoints: &Endpoints, keys: Keys, range: Range, after: u64) -> StoreResult<WatchStream> {
    let create = WatchCreateRequest {
        key: keys.full(&range.start),
        range_end: keys.full(&range.end),
        start_revision: signed(after + 1),
        // A quiet watch still hears from etcd, so that a dead connection shows.
        progress_notify: true,
    };
    let mut answer = open(endpoints, create.clone()).await;
    for _ in 1..endpoints.count() {
        match &answer {
            Err(status) if is_away(status) => answer = open(endpoints, create.clone()).await,
            _ => break,
        }
    }
    let answers = answer.map_err(|status| failed(&status, after, 0))?;
    let running = Running { answers, keys, after, ended: false };
    Ok(Box::pin(stream::unfold(running, |mut running| async move {
        let item = running.next().await?;
        running.ended = item.is_err();
        Some((item, running))
    })))
}

/// Opens a stream and waits until etcd has made the watch.
async fn open(endpoints: &Endpoints, create: WatchCreateRequest) -> Result<Streaming<WatchResponse>, Status> {
    let (number, channel) = endpoints.current();
    let opened = async {
        let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The request side stays open as long as the watch runs.
        let requests = stream::once(async { request }).chain(stream::pending());
        let mut answers = client.watch(requests).await?.into_inner();
        match answers.message().await? {
            Some(first) if first.created && !first.canceled => Ok(answers),
            Some(first) => Err(Status::unavailable(first.cancel_reason)),
            None => Err(Status::unavailable("the watch ended before it began")),
        }
    };
    let late = |_| Err(Status::deadline_exceeded("no watch in time"));
    let answer = tokio::time::timeout(CALL_TIMEOUT, opened).await.unwrap_or_else(late);
    if answer.as_ref().is_err_and(is_away) {
        endpoints.failed(number);
    }
    answer
}

impl Running {
    async fn next(&mut self) -> Option<StoreResult<Vec<Event>>> {
        if self.ended {
            return None;
        }
        loop {
            let answer = match self.answers.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return Some(Err(StoreError::Unavailable("etcd: the watch ended".to_owned()))),
                Err(status) => return Some(Err(failed(&status, self.after, 0))),
            };
            if answer.compact_revision > 0 {
                let oldest = unsigned(answer.compact_revision);
                return Some(Err(StoreError::Compacted { asked: self.after, oldest }));
            }
            if answer.canceled {
                return Some(Err(StoreError::Unavailable(format!("etcd: {}", answer.cancel_reason))));
            }
            if !answer.events.is_empty() {
                return Some(self.events(answer));
            }
        }
    }

    fn events(&mut self, answer: WatchResponse) -> StoreResult<Vec<Event>> {
        let mut events = Vec::with_capacity(answer.events.len());
        for event in answer.events {
            let gone = event.r#type() == EventType::Delete;
            let kv = event.kv.ok_or_else(|| StoreError::Corrupt("etcd sent an event without a key".to_owned()))?;
            let entry = self.keys.entry(kv)?;
            self.after = entry.mod_revision;
            events.push(Event {
                kind: if gone { EventKind::Delete } else { EventKind::Put },
                revision: entry.mod_revision,
                key: entry.key,
                value: entry.value,
                create_revision: entry.create_revision,
            });
        }
        Ok(events)
    }
}
