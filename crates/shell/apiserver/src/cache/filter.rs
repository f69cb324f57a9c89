//! Which objects a list or watch asks for, and what a change means to somebody who sees only those.

use std::sync::Arc;

use meta::fields::FieldSelector;
use meta::labels::Selector;

use super::{Event, EventType, Object};
use crate::registry::FieldReader;

/// What a list or watch selects. Cheap tests come first; labels and other fields need a parsed object.
#[derive(Clone, Default)]
pub struct Filter {
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub labels: Selector,
    pub fields: FieldSelector,
    /// Terms that only objects in the version of the request can answer; whoever converts them asks `convert::passes`.
    pub converted: FieldSelector,
}

/// The namespace (empty for cluster-wide kinds) and the name of a cache key.
pub fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

impl Filter {
    /// Whether only the key decides.
    pub fn is_by_key(&self) -> bool {
        self.labels.is_empty()
            && self.converted.is_empty()
            && self.fields.terms.iter().all(|term| term.field.starts_with("metadata."))
    }

    pub fn matches_key(&self, key: &str) -> bool {
        let (namespace, name) = split_key(key);
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
            && self.name.as_deref().is_none_or(|wanted| wanted == name)
    }

    pub fn matches(&self, key: &str, object: &Object, readers: &[FieldReader]) -> bool {
        self.matches_key(key) && self.matches_content(key, object, readers)
    }

    fn matches_content(&self, key: &str, object: &Object, readers: &[FieldReader]) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return true;
        }
        let (namespace, name) = split_key(key);
        let field = |path: &str| match path {
            "metadata.name" => name.to_owned(),
            "metadata.namespace" => namespace.to_owned(),
            path => {
                let at = readers.iter().position(|reader| reader.path == path);
                at.and_then(|at| object.selectable(readers).fields.get(at).cloned()).unwrap_or_default()
            }
        };
        let labelled = self.labels.is_empty() || self.labels.matches(&object.selectable(readers).labels);
        labelled && self.fields.matches(field)
    }

    /// An object that starts to match is ADDED and one that stops to match is DELETED, whatever happened to it.
    pub fn classify(&self, event: &Event, readers: &[FieldReader]) -> Option<EventType> {
        if !self.matches_key(&event.key) {
            return None;
        }
        let seen = |object: &Option<Arc<Object>>| {
            object.as_ref().is_some_and(|object| self.matches_content(&event.key, object, readers))
        };
        match (seen(&event.old), seen(&event.new)) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// The node that pods must be bound to, where that is asked for: watches by it are indexed.
    pub fn node(&self) -> Option<&str> {
        self.fields.exact("spec.nodeName").filter(|node| !node.is_empty())
    }
}
