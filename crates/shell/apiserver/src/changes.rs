//! Waits until something changed among the objects of a few resources: what a part of the server that keeps them settled
//! wakes up by.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::select_all;
use meta::GroupResource;

use crate::cache::{Cache, Filter, Opened, ResourceCache};

/// Between a failed write and the next attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub struct Changes {
    cache: Arc<Cache>,
    of: Vec<GroupResource>,
    opened: Vec<(Arc<ResourceCache>, Opened)>,
}

impl Changes {
    /// Whatever changes from now on is noticed.
    pub fn new(cache: &Arc<Cache>, of: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        let of = of.into_iter().map(|(group, plural)| GroupResource::new(group, plural)).collect();
        let mut changes = Self { cache: cache.clone(), of, opened: Vec::new() };
        changes.open();
        changes
    }

    fn open(&mut self) {
        self.close();
        for of in &self.of {
            let resource = self.cache.resource(of);
            let (_, opened) = resource.snapshot_and_watch(Filter::default(), self.cache.reached());
            self.opened.push((resource, opened));
        }
    }

    fn close(&mut self) {
        for (resource, opened) in self.opened.drain(..) {
            resource.close(&opened.id);
        }
    }

    /// Returns after a change, or after a pause where what was to be done is not.
    pub async fn next(&mut self, done: bool) {
        let change = select_all(self.opened.iter_mut().map(|(_, opened)| opened.receiver.recv().boxed()));
        let change = change.map(|(delivery, ..)| delivery.is_some());
        let goes_on = match done {
            true => change.await,
            false => tokio::time::timeout(RETRY_PAUSE, change).await.unwrap_or(true),
        };
        if !goes_on {
            // A watcher that was too slow is dropped: everything is looked at again.
            return self.open();
        }
        for (_, opened) in &mut self.opened {
            while opened.receiver.try_recv().is_ok() {}
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.close();
    }
}
