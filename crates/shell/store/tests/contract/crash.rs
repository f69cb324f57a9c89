//! A concurrent write load that is cut off by `kill -9`, and what must hold afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use store::{Expect, Range, Store};

pub const WRITERS: usize = 16;
const KEYS_PER_WRITER: u64 = 50;

/// An acknowledged write: the step is also what the value says.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub writer: usize,
    pub step: u64,
    pub revision: u64,
}

/// Every value repeats its step over its whole length, so that a torn one shows.
fn value(writer: usize, step: u64) -> Bytes {
    format!("{writer}:{step};").repeat(200).into()
}

fn key(writer: usize, step: u64) -> Bytes {
    format!("/crash/{writer:02}/{:02}", step % KEYS_PER_WRITER).into()
}

/// Writes until the store says no or goes away; reports each acknowledged write.
pub async fn load(store: Arc<dyn Store>, acked: impl Fn(Ack) + Send + Sync + 'static) {
    let acked = Arc::new(acked);
    let writers = (0..WRITERS).map(|writer| {
        let (store, acked) = (store.clone(), acked.clone());
        tokio::spawn(async move {
            let mut revisions = BTreeMap::new();
            for step in 0u64.. {
                let key = key(writer, step);
                let expect = revisions.get(&key).map_or(Expect::Absent, |revision| Expect::Revision(*revision));
                let Ok(revision) = store.put(key.clone(), value(writer, step), expect).await else { return };
                revisions.insert(key, revision);
                acked(Ack { writer, step, revision });
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// Nothing acknowledged is lost, nothing is torn, the revision goes on above everything seen.
pub async fn verify(store: &dyn Store, acks: &[Ack]) {
    let mut newest: BTreeMap<Bytes, Ack> = BTreeMap::new();
    let mut revisions: Vec<u64> = acks.iter().map(|ack| ack.revision).collect();
    for ack in acks {
        newest
            .entry(key(ack.writer, ack.step))
            .and_modify(|now| {
                if now.step < ack.step {
                    *now = *ack
                }
            })
            .or_insert(*ack);
    }
    revisions.sort_unstable();
    assert!(revisions.windows(2).all(|pair| pair[0] < pair[1]), "no revision was given twice");
    let page = store.list(Range::prefix("/crash/"), 0, None).await.unwrap();
    assert!(page.revision >= *revisions.last().unwrap());
    let found: BTreeMap<Bytes, _> = page.entries.iter().map(|entry| (entry.key.clone(), entry)).collect();
    for (key, ack) in newest {
        let entry = found.get(&key).unwrap_or_else(|| panic!("{ack:?} was lost"));
        assert!(entry.mod_revision >= ack.revision, "{ack:?} was undone");
        assert!(entry.mod_revision == ack.revision || entry.mod_revision <= page.revision);
    }
    for entry in page.entries {
        let text = std::str::from_utf8(&entry.value).unwrap();
        let (writer, step) = text.split(';').next().unwrap().split_once(':').unwrap();
        let (writer, step) = (writer.parse().unwrap(), step.parse().unwrap());
        assert_eq!((entry.key, entry.value), (key(writer, step), value(writer, step)), "a torn or misplaced value");
    }
    let next = store.put(Bytes::from_static(b"/after"), Bytes::new(), Expect::Absent).await.unwrap();
    assert!(next > page.revision);
    let entry = store.get(b"/after").await.unwrap().0.unwrap();
    store.delete(entry.key, entry.mod_revision).await.unwrap();
}
