//! What every engine must do, each case on keys of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::{Entry, Event, EventKind, Expect, Range, Store, StoreError, WatchStream};

const DEADLINE: Duration = Duration::from_secs(30);

/// Runs all cases one after the other against one store.
pub async fn all(store: Arc<dyn Store>) {
    writes_compare_and_swap(&*store).await;
    lists_page_at_one_revision(&*store).await;
    lists_at_old_revisions(&*store).await;
    watches_tell_everything_in_order(&store).await;
    concurrent_writers_of_one_key_lose_nothing(&store).await;
    a_thousand_watchers(&store).await;
    oversized_values_are_refused(&*store).await;
    compaction_ends_old_lists_and_watches(&*store).await;
}

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.key).unwrap()).collect()
}

async fn writes_compare_and_swap(store: &dyn Store) {
    let key = b("/cas/a");
    let before = store.revision().await.unwrap();
    assert!(before >= 1, "an empty store has a revision a client may watch from");
    let created = store.put(key.clone(), b("1"), Expect::Absent).await.unwrap();
    assert!(created > before);
    let entry = Entry { key: key.clone(), value: b("1"), create_revision: created, mod_revision: created };
    match store.put(key.clone(), b("2"), Expect::Absent).await {
        Err(StoreError::Conflict(Some(now))) => assert_eq!(now, entry),
        other => panic!("{other:?}"),
    }
    let changed = store.put(key.clone(), b("2"), Expect::Revision(created)).await.unwrap();
    let entry = Entry { value: b("2"), mod_revision: changed, ..entry };
    match store.delete(key.clone(), created).await {
        Err(StoreError::Conflict(Some(now))) => assert_eq!(now, entry),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get(&key).await.unwrap(), (Some(entry), changed));
    let deleted = store.delete(key.clone(), changed).await.unwrap();
    assert!(created < changed && changed < deleted);
    assert_eq!(store.get(&key).await.unwrap(), (None, deleted));
    assert_eq!(store.revision().await.unwrap(), deleted, "refused writes take no revision");
    for refused in [store.put(key.clone(), b("3"), Expect::Revision(changed)).await, store.delete(key, changed).await] {
        assert!(matches!(refused, Err(StoreError::Conflict(None))), "{refused:?}");
    }
}

async fn lists_page_at_one_revision(store: &dyn Store) {
    for name in ["a", "b", "c", "d", "e"] {
        store.put(b(&format!("/page/{name}")), b(name), Expect::Absent).await.unwrap();
    }
    store.put(b("/page0"), b("outside"), Expect::Absent).await.unwrap();
    let first = store.list(Range::prefix("/page/"), 2, None).await.unwrap();
    assert_eq!((keys(&first.entries), first.more), (vec!["/page/a", "/page/b"], true));
    store.put(b("/page/bb"), b(""), Expect::Absent).await.unwrap();
    let d = store.get(b"/page/d").await.unwrap().0.unwrap();
    store.delete(d.key, d.mod_revision).await.unwrap();
    let rest = Range { start: b("/page/b\0"), end: Range::prefix("/page/").end };
    let second = store.list(rest.clone(), 0, Some(first.revision)).await.unwrap();
    assert_eq!((keys(&second.entries), second.more), (vec!["/page/c", "/page/d", "/page/e"], false));
    assert_eq!(second.revision, first.revision);
    let exact = store.list(rest, 3, Some(first.revision)).await.unwrap();
    assert!(!exact.more, "a page that takes the last key says so");
    let now = store.list(Range::prefix("/page/"), 0, None).await.unwrap();
    assert_eq!(keys(&now.entries), ["/page/a", "/page/b", "/page/bb", "/page/c", "/page/e"]);
    let none = store.list(Range::prefix("/nothing/"), 0, None).await.unwrap();
    assert!(none.entries.is_empty() && !none.more);
}

/// Every revision of a small random history can be read back.
async fn lists_at_old_revisions(store: &dyn Store) {
    let mut model: BTreeMap<Bytes, Entry> = BTreeMap::new();
    let mut past = Vec::new();
    for step in 0u64..60 {
        let key = b(&format!("/old/{}", (step * 7 + step / 5) % 9));
        let revision = match model.get(&key).cloned() {
            Some(entry) if step % 3 == 0 => {
                model.remove(&key);
                store.delete(key, entry.mod_revision).await.unwrap()
            }
            now => {
                let value = b(&step.to_string());
                let expect = now.as_ref().map_or(Expect::Absent, |entry| Expect::Revision(entry.mod_revision));
                let mod_revision = store.put(key.clone(), value.clone(), expect).await.unwrap();
                let create_revision = now.map_or(mod_revision, |entry| entry.create_revision);
                model.insert(key.clone(), Entry { key, value, create_revision, mod_revision });
                mod_revision
            }
        };
        past.push((revision, model.values().cloned().collect::<Vec<_>>()));
    }
    for (revision, expected) in past {
        let page = store.list(Range::prefix("/old/"), 0, Some(revision)).await.unwrap();
        assert_eq!((page.entries, page.revision, page.more), (expected, revision, false));
    }
}

/// Takes events until the one of `last` arrived.
async fn events_until(stream: &mut WatchStream, last: u64) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| event.revision < last) {
        let batch = tokio::time::timeout(DEADLINE, stream.next()).await.expect("events in time");
        events.extend(batch.expect("the watch goes on").unwrap());
    }
    events
}

async fn watches_tell_everything_in_order(store: &Arc<dyn Store>) {
    let range = Range::prefix("/watch/");
    let start = store.revision().await.unwrap();
    let mut early = store.watch(range.clone(), start).await.unwrap();
    let mut expected = Vec::new();
    let mut last = 0;
    for step in 0..50 {
        let (key, value) = (b(&format!("/watch/{step}")), b(&format!("v{step}")));
        let put = store.put(key.clone(), value.clone(), Expect::Absent).await.unwrap();
        expected.push(Event { kind: EventKind::Put, revision: put, key: key.clone(), value, create_revision: put });
        store.put(b(&format!("/watching/{step}")), b("x"), Expect::Absent).await.unwrap();
        last = store.delete(key.clone(), put).await.unwrap();
        let gone = Event { kind: EventKind::Delete, revision: last, key, value: Bytes::new(), create_revision: 0 };
        expected.push(gone);
    }
    assert_eq!(events_until(&mut early, last).await, expected);
    let mut late = store.watch(range.clone(), start).await.unwrap();
    assert_eq!(events_until(&mut late, last).await, expected, "the past is told again");
    let middle = expected[40].revision;
    let mut after = store.watch(range, middle).await.unwrap();
    assert_eq!(events_until(&mut after, last).await, expected[41..]);
}

async fn concurrent_writers_of_one_key_lose_nothing(store: &Arc<dyn Store>) {
    const WRITERS: u64 = 16;
    const EACH: u64 = 20;
    store.put(b("/count"), b("0"), Expect::Absent).await.unwrap();
    let tasks = (0..WRITERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while done < EACH {
                let entry = store.get(b"/count").await.unwrap().0.unwrap();
                let count: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let next = b(&(count + 1).to_string());
                match store.put(entry.key, next, Expect::Revision(entry.mod_revision)).await {
                    Ok(_) => done += 1,
                    Err(StoreError::Conflict(Some(_))) => {}
                    other => panic!("{other:?}"),
                }
            }
        })
    });
    futures::future::try_join_all(tasks).await.unwrap();
    let entry = store.get(b"/count").await.unwrap().0.unwrap();
    assert_eq!(entry.value, b(&(WRITERS * EACH).to_string()));
}

async fn a_thousand_watchers(store: &Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut watches = Vec::new();
    for watcher in 0..1000 {
        watches
            .push((watcher % 10, store.watch(Range::prefix(format!("/many/{}/", watcher % 10)), start).await.unwrap()));
    }
    let mut written: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for step in 0..100 {
        let key = b(&format!("/many/{}/{step}", step % 10));
        written.entry(step % 10).or_default().push(store.put(key, b("x"), Expect::Absent).await.unwrap());
    }
    let readers = watches.into_iter().map(|(group, mut stream)| {
        let expected = written[&group].clone();
        async move {
            let events = events_until(&mut stream, *expected.last().unwrap()).await;
            assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), expected);
        }
    });
    futures::future::join_all(readers).await;
}

async fn oversized_values_are_refused(store: &dyn Store) {
    let value = Bytes::from(vec![b'x'; 4 * 1024 * 1024]);
    let refused = store.put(b("/big"), value, Expect::Absent).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    let value = Bytes::from(vec![b'x'; 1024 * 1024]);
    store.put(b("/big"), value, Expect::Absent).await.unwrap();
}

async fn compaction_ends_old_lists_and_watches(store: &dyn Store) {
    let range = Range::prefix("/compact/");
    let first = store.put(b("/compact/a"), b("1"), Expect::Absent).await.unwrap();
    let second = store.put(b("/compact/a"), b("2"), Expect::Revision(first)).await.unwrap();
    let third = store.put(b("/compact/b"), b("3"), Expect::Absent).await.unwrap();
    store.compact(second).await.unwrap();
    let page = store.list(range.clone(), 0, Some(second)).await.unwrap();
    assert_eq!(keys(&page.entries), ["/compact/a"], "the compacted revision itself is kept");
    let old = store.list(range.clone(), 0, Some(first)).await;
    assert!(matches!(old, Err(StoreError::Compacted { asked, .. }) if asked == first), "{old:?}");
    let mut watch = store.watch(range.clone(), second).await.unwrap();
    assert_eq!(events_until(&mut watch, third).await.len(), 1);
    let answer = match store.watch(range, first - 1).await {
        Ok(mut stream) => tokio::time::timeout(DEADLINE, stream.next()).await.unwrap().unwrap().map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(answer, Err(StoreError::Compacted { .. })), "{answer:?}");
    store.compact(second).await.unwrap();
    let now = store.list(Range::prefix("/compact/"), 0, None).await.unwrap();
    assert_eq!(now.entries.len(), 2);
}
