//! Flow control at run time: the levels, who runs and waits in each, and what levels lend each other.

mod follow;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use access::flow::{Arrival, Digest, FlowSchema, Level, PriorityLevel, Share, Waiter, shares};
use arc_swap::ArcSwap;
use meta::{ApiResult, Status};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::limits::{FLOW_WAIT_MAX, RETRY_AFTER_SECONDS, SEATS};

pub use follow::start;

/// The schemas in the order in which they are asked, each with its level.
#[derive(Debug, Default)]
struct Table {
    schemas: Vec<(FlowSchema, Arc<Running>)>,
    levels: Vec<Arc<Running>>,
}

/// A level with its requests.
#[derive(Debug)]
struct Running {
    level: PriorityLevel,
    share: Share,
    /// The same as the queues count, for others to read without a lock.
    running: Arc<AtomicUsize>,
    queues: Arc<Mutex<Level<Ticket>>>,
}

/// Somebody waits for this.
#[derive(Debug)]
struct Ticket(oneshot::Sender<()>);

impl Waiter for Ticket {
    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// What the server's requests are admitted by.
#[derive(Debug)]
pub struct Flow {
    table: ArcSwap<Table>,
}

impl Default for Flow {
    /// Starts with what every cluster has, before its objects are there.
    fn default() -> Self {
        let flow = Self { table: ArcSwap::default() };
        let (schemas, levels): (Vec<Value>, Vec<Value>) =
            access::flow::defaults::objects().into_iter().partition(|object| object["kind"] == "FlowSchema");
        flow.set(&schemas, &levels);
        flow
    }
}

/// Where a request belongs.
#[derive(Clone, Debug)]
pub struct Class {
    table: Arc<Table>,
    level: Arc<Running>,
    pub schema_uid: String,
    flow: u64,
}

/// A seat; given back when dropped.
#[derive(Debug)]
pub struct Permit(Option<Class>);

impl Flow {
    /// Takes new objects; levels that are as they were keep their requests.
    fn set(&self, schemas: &[Value], levels: &[Value]) {
        let before = self.table.load_full();
        let levels: Vec<PriorityLevel> = levels.iter().map(PriorityLevel::read).collect();
        let shares = shares(&levels, SEATS);
        let running = levels.into_iter().zip(shares).map(|(level, share)| {
            let known = before.levels.iter().find(|known| known.level == level);
            let queues = || Arc::new(Mutex::new(Level::new(level.queues, level.hand, level.queue_max)));
            Arc::new(Running {
                share,
                running: known.map(|known| known.running.clone()).unwrap_or_default(),
                queues: known.map_or_else(queues, |known| known.queues.clone()),
                level,
            })
        });
        let levels: Vec<Arc<Running>> = running.collect();
        let with_level = |schema: FlowSchema| {
            let level = levels.iter().find(|running| running.level.name == schema.level)?.clone();
            Some((schema, level))
        };
        let mut schemas: Vec<_> = schemas.iter().map(FlowSchema::read).filter_map(with_level).collect();
        schemas.sort_by(|(a, _), (b, _)| a.order().cmp(&b.order()));
        self.table.store(Arc::new(Table { schemas, levels }));
    }

    /// Where a request belongs; `None` where no schema is about it.
    pub fn classify(&self, request: &Digest<'_>) -> Option<Class> {
        let table = self.table.load_full();
        let (schema, level) = table.schemas.iter().find(|(schema, _)| schema.matches(request))?;
        let (level, schema_uid, flow) = (level.clone(), schema.uid.clone(), schema.flow(request));
        Some(Class { table, level, schema_uid, flow })
    }

    /// Each level's name with its own seats, those in use, and the requests that wait.
    pub fn counts(&self) -> Vec<(String, usize, usize, usize)> {
        let table = self.table.load();
        let count = |running: &Arc<Running>| {
            let in_use = running.running.load(Ordering::Relaxed);
            (running.level.name.clone(), running.nominal(), in_use, running.queues().waiting())
        };
        table.levels.iter().map(count).collect()
    }
}

impl Running {
    fn queues(&self) -> MutexGuard<'_, Level<Ticket>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A level that is limited has at least one seat: else who waits in it would wait forever.
    fn nominal(&self) -> usize {
        self.share.nominal.max(1)
    }
}

impl Table {
    /// The seats that a level may use now: its own, and those that others lend and nobody borrowed.
    fn limit(&self, of: &Running) -> usize {
        let nominal = of.nominal();
        if of.running.load(Ordering::Relaxed) < nominal {
            return nominal;
        }
        let others = self.levels.iter().filter(|level| level.level.name != of.level.name);
        let (mut lent, mut borrowed) = (0, 0);
        for level in others {
            let running = level.running.load(Ordering::Relaxed);
            lent += level.share.lendable.min(level.nominal().saturating_sub(running));
            borrowed += if level.level.exempt { 0 } else { running.saturating_sub(level.nominal()) };
        }
        nominal + of.share.borrowable.min(lent.saturating_sub(borrowed))
    }
}

impl Class {
    pub fn level_uid(&self) -> &str {
        &self.level.level.uid
    }

    pub fn level_name(&self) -> &str {
        &self.level.level.name
    }

    /// Waits for a seat.
    ///
    /// # Errors
    /// 429: the queues are full, or the wait was too long.
    pub async fn admit(self) -> ApiResult<Permit> {
        if self.level.level.exempt {
            return Ok(Permit(None));
        }
        let limit = self.table.limit(&self.level);
        let (sender, receiver) = oneshot::channel();
        let arrival = {
            let mut queues = self.level.queues();
            let arrival = queues.arrive(self.flow, limit, || Ticket(sender));
            self.level.running.store(queues.running(), Ordering::Relaxed);
            arrival
        };
        match arrival {
            Arrival::Runs => Ok(Permit(Some(self))),
            Arrival::Refused => Err(refusal()),
            Arrival::Waits => {
                let mut receiver = Waiting { receiver, class: Some(self) };
                match tokio::time::timeout(FLOW_WAIT_MAX, &mut receiver.receiver).await {
                    Ok(Ok(())) => Ok(Permit(receiver.class.take())),
                    _ => Err(refusal()),
                }
            }
        }
    }

    /// Gives a seat back and hands it on.
    fn leave(&self) {
        let mut queues = self.level.queues();
        queues.finish();
        loop {
            self.level.running.store(queues.running(), Ordering::Relaxed);
            let seated = queues.seat(self.table.limit(&self.level));
            if seated.is_empty() {
                break;
            }
            for ticket in seated {
                // Who left in this moment leaves the seat to the next.
                if ticket.0.send(()).is_err() {
                    queues.finish();
                }
            }
        }
    }
}

/// A place in a queue. Who stops to wait after the seat was given, but before it was taken, gives it back.
struct Waiting {
    receiver: oneshot::Receiver<()>,
    class: Option<Class>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.receiver.close();
        if let Some(class) = self.class.take().filter(|_| self.receiver.try_recv().is_ok()) {
            class.leave();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(class) = self.0.take() {
            class.leave();
        }
    }
}

fn refusal() -> Box<Status> {
    Status::too_many_requests("too many requests, please try again later", RETRY_AFTER_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use access::User;
    use serde_json::json;

    fn flow(shares: u32, response: &Value) -> Flow {
        let level = |name: &str, shares: u32, response: &Value| {
            json!({"metadata": {"name": name, "uid": name}, "spec": {"type": "Limited", "limited":
                {"nominalConcurrencyShares": shares, "lendablePercent": 0, "limitResponse": response}}})
        };
        let levels = [level("small", shares, response), level("rest", 600 - shares, &json!({"type": "Reject"}))];
        let rule = json!({"subjects": [{"kind": "User", "user": {"name": "*"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]});
        let schema = json!({"metadata": {"name": "s", "uid": "u"}, "spec": {"rules": [rule],
            "priorityLevelConfiguration": {"name": "small"}, "distinguisherMethod": {"type": "ByUser"}}});
        let flow = Flow { table: ArcSwap::default() };
        flow.set(&[schema], &levels);
        flow
    }

    fn class(flow: &Flow, name: &str) -> Class {
        let user = User { name: name.into(), ..User::default() };
        let digest = Digest {
            user: &user,
            is_resource: true,
            verb: "get",
            group: "",
            resource: "pods",
            subresource: "",
            namespace: "a",
            path: "",
        };
        flow.classify(&digest).unwrap()
    }

    fn queue() -> Value {
        json!({"type": "Queue", "queuing": {"queues": 4, "handSize": 1, "queueLengthLimit": 1}})
    }

    #[tokio::test]
    async fn a_seat_goes_to_who_waits() {
        let flow = flow(1, &queue());
        let first = class(&flow, "a").admit().await.unwrap();
        let second = tokio::spawn(class(&flow, "a").admit());
        while flow.counts()[0].3 == 0 {
            tokio::task::yield_now().await;
        }
        // The queue holds one; the next is refused at once.
        let refused = class(&flow, "a").admit().await.unwrap_err();
        assert_eq!((refused.code, refused.details.as_ref().unwrap().retry_after_seconds), (429, 1));
        drop(first);
        let second = second.await.unwrap().unwrap();
        assert_eq!(flow.counts()[0], ("small".to_owned(), 1, 1, 0));
        drop(second);
        assert_eq!(flow.counts()[0].2, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_or_leaves_is_forgotten() {
        let flow = flow(1, &queue());
        let first = class(&flow, "a").admit().await.unwrap();
        assert_eq!(class(&flow, "a").admit().await.unwrap_err().code, 429);
        let left = tokio::spawn(class(&flow, "a").admit());
        tokio::task::yield_now().await;
        left.abort();
        assert!(left.await.is_err());
        drop(first);
        assert_eq!(flow.counts()[0], ("small".to_owned(), 1, 0, 0));
        drop(class(&flow, "b").admit().await.unwrap());
    }

    #[tokio::test]
    async fn levels_keep_their_requests_when_others_change() {
        let flow = flow(1, &json!({"type": "Reject"}));
        let permit = class(&flow, "a").admit().await.unwrap();
        assert_eq!(class(&flow, "a").admit().await.unwrap_err().code, 429);
        let level = json!({"metadata": {"name": "small", "uid": "small"}, "spec": {"type": "Limited", "limited":
            {"nominalConcurrencyShares": 1, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}}});
        flow.set(&[], &[level]);
        assert_eq!(flow.counts(), [("small".to_owned(), 600, 1, 0)]);
        drop(permit);
        assert_eq!(flow.counts()[0].2, 0);
    }
}
