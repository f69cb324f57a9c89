//! One change of one object, encoded at most once however many watchers read it.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use super::Object;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A committed change: `new` without `old` is a creation, `old` without `new` a deletion.
#[derive(Debug)]
pub struct Event {
    pub revision: u64,
    pub key: Arc<str>,
    pub new: Option<Arc<Object>>,
    pub old: Option<Arc<Object>>,
    gone: OnceLock<Arc<Object>>,
    lines: [OnceLock<Bytes>; 3],
    /// The same as frames of protobuf, written when somebody asks.
    frames: [OnceLock<Bytes>; 3],
}

impl Event {
    pub fn new(revision: u64, key: Arc<str>, new: Option<Arc<Object>>, old: Option<Arc<Object>>) -> Self {
        Self { revision, key, new, old, gone: OnceLock::new(), lines: Default::default(), frames: Default::default() }
    }

    /// The object that an event of this type shows: for a deletion the last state at the event's revision.
    pub fn object(&self, kind: EventType) -> Option<Arc<Object>> {
        match kind {
            EventType::Added | EventType::Modified => self.new.clone(),
            EventType::Deleted => {
                let old = self.old.as_ref()?;
                Some(self.gone.get_or_init(|| Arc::new(old.at_revision(self.revision))).clone())
            }
        }
    }

    /// The line of a watch in the stored version.
    pub fn line(&self, kind: EventType) -> Bytes {
        let line = || self.object(kind).map(|object| line(kind.as_str(), &object.bytes)).unwrap_or_default();
        self.lines[kind as usize].get_or_init(line).clone()
    }

    /// The frame of a watch in protobuf, made by `write` from the object's JSON.
    pub fn frame(&self, kind: EventType, write: impl FnOnce(&str, &Bytes) -> Bytes) -> Bytes {
        let frame = || self.object(kind).map(|object| write(kind.as_str(), &object.bytes)).unwrap_or_default();
        self.frames[kind as usize].get_or_init(frame).clone()
    }

    /// Bytes that the event keeps alive, for the ring's limit.
    pub fn weight(&self) -> usize {
        self.new.as_ref().or(self.old.as_ref()).map_or(0, |object| object.bytes.len()) + 200
    }
}

/// `{"type":"ADDED","object":{...}}` and a newline.
pub fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.freeze()
}
