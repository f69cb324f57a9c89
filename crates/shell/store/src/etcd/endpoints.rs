//! The members of an etcd cluster: one is used until it fails, then the next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::proto::kv_client::KvClient;
use crate::contract::{StoreError, StoreResult};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Answers larger than this are refused: a page of the largest values fits.
pub const ANSWER_BYTES_MAX: usize = 768 * 1024 * 1024;

pub struct Endpoints {
    channels: Vec<Channel>,
    current: AtomicUsize,
}

impl Endpoints {
    pub fn new(urls: &[String]) -> StoreResult<Self> {
        let channels: Result<Vec<_>, _> = urls.iter().map(|url| connect_lazily(url)).collect();
        let channels = channels?;
        if channels.is_empty() {
            return Err(StoreError::Unavailable("no etcd endpoint was given".to_owned()));
        }
        Ok(Self { channels, current: AtomicUsize::new(0) })
    }

    pub fn count(&self) -> usize {
        self.channels.len()
    }

    /// The endpoint in use, with its number for `failed`.
    pub fn current(&self) -> (usize, Channel) {
        let number = self.current.load(Ordering::Relaxed) % self.channels.len();
        (number, self.channels[number].clone())
    }

    /// Moves on from this endpoint, unless someone has already.
    pub fn failed(&self, number: usize) {
        let next = (number + 1) % self.channels.len();
        let _ = self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// One call, which may or may not have happened when it fails.
    pub async fn write<T, F>(&self, call: impl FnOnce(KvClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (number, channel) = self.current();
        let kv = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let late = |_| Err(Status::deadline_exceeded("no answer in time"));
        let answer = tokio::time::timeout(CALL_TIMEOUT, call(kv)).await.unwrap_or_else(late);
        if let Err(status) = &answer
            && is_away(status)
        {
            self.failed(number);
        }
        answer.map(Response::into_inner)
    }

    /// The call at each endpoint in turn until one is there.
    pub async fn read<T, F>(&self, call: impl Fn(KvClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut answer = self.write(&call).await;
        for _ in 1..self.channels.len() {
            match &answer {
                Err(status) if is_away(status) => answer = self.write(&call).await,
                _ => break,
            }
        }
        answer
    }
}

pub fn is_away(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

fn connect_lazily(url: &str) -> StoreResult<Channel> {
    let wrong = |why: String| StoreError::Unavailable(format!("etcd endpoint {url}: {why}"));
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| wrong(e.to_string()))?;
    if endpoint.uri().scheme_str() != Some("http") {
        return Err(wrong("only http:// endpoints are served by this program".to_owned()));
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(CALL_TIMEOUT)
        .tcp_nodelay(true)
        .connect_lazy())
}
