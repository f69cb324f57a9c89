//! What a part of a custom object was before a change, which decides whether an old fault is held against the writer.

use serde_json::Value;

use crate::model::{ListKind, Type};

/// A value's former self, where it can be told, and whether nothing changed at the nearest place where it can.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub old: Option<&'a Value>,
    pub unchanged: bool,
}

impl<'a> Before<'a> {
    /// Of a whole object; `old` is absent on create.
    pub fn of(new: &Value, old: Option<&'a Value>) -> Self {
        Self { old, unchanged: old == Some(new) }
    }

    /// The same for a part. A former self is known for fields; for elements, only where keys tell them apart.
    pub fn below(self, old: Option<&'a Value>, new: &Value, known: bool) -> Self {
        if known && self.old.is_some() {
            return Self { old, unchanged: old == Some(new) };
        }
        Self { old: None, unchanged: self.unchanged }
    }

    /// The same for an entry of an object or map.
    pub fn entry(self, key: &str, new: &Value, atomic: bool) -> Self {
        self.below(self.old.and_then(|old| old.get(key)), new, !atomic)
    }

    /// The same for an element of a list.
    pub fn element(self, new: &Value, kind: &ListKind, item: &Type) -> Self {
        let old = self.old.and_then(|old| former(old, new, kind, item));
        self.below(old, new, matches!(kind, ListKind::Map(_)))
    }
}

/// The element of the old list with the same keys.
fn former<'a>(old: &'a Value, new: &Value, kind: &ListKind, item: &Type) -> Option<&'a Value> {
    let ListKind::Map(keys) = kind else { return None };
    let key = |value: &Value, key: &str| {
        let default = || item.field(key).and_then(|field| field.default.clone());
        value.get(key).cloned().or_else(default)
    };
    old.as_array()?.iter().find(|one| keys.iter().all(|name| key(one, name) == key(new, name)))
}
