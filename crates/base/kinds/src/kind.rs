//! What a row of the kind table holds; built-in kinds are constants, custom kinds are made at run time.

use std::borrow::Cow;

use meta::{FieldErrors, GroupResource, GroupVersion, Gvk};
use serde_json::Value;

type Text = Cow<'static, str>;

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// Which generic verbs a kind serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbs {
    /// get, list, watch, create, update, patch, delete, deletecollection.
    All,
    /// create only: reviews, bindings; nothing is stored.
    CreateOnly,
    /// get and list only.
    ReadOnly,
}

/// A subresource by name and the kind that its requests and answers speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `binding`, `eviction`, `log`, `exec`, ...
    pub name: Text,
    /// The kind of its body where it differs from the parent's: `autoscaling/v1 Scale`, `v1 Binding`.
    pub speaks: Option<Gvk>,
    /// Verbs as discovery lists them.
    pub verbs: &'static [&'static str],
}

/// A field that `fieldSelector` may name, with how to read it from an object.
#[derive(Clone, Debug)]
pub struct SelectableField {
    /// `spec.nodeName`; `metadata.name` and `metadata.namespace` are selectable for every kind and not listed.
    pub path: Text,
    pub read: fn(&Value) -> String,
}

/// One column of the Table that `kubectl get` shows. The Name column is generic and comes first.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: Text,
    /// OpenAPI type: `string`, `integer`, `date`, ...
    pub kind: Text,
    pub format: Text,
    pub description: Text,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
    /// Reads the cell; `now` is seconds since the epoch, for ages.
    pub read: fn(&Value, i64) -> Value,
}

/// One kind: everything the generic engine needs to serve it. Routes, discovery, OpenAPI, tables, RBAC verbs,
/// garbage collection and CLI names are computed from this row and from the kind's schema; nothing else knows the kind.
#[derive(Clone, Debug)]
pub struct Kind {
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub plural: Text,
    pub singular: Text,
    pub short_names: Cow<'static, [Text]>,
    /// `all`, `api-extensions`: the groups that `kubectl get all` expands.
    pub categories: Cow<'static, [Text]>,
    pub scope: Scope,
    pub verbs: Verbs,
    /// Has a `status` that only `/status` writes: the engine clears it on create and keeps the old one on update,
    /// and keeps everything but the status (and the metadata that status writers may touch) on a status write.
    pub has_status: bool,
    /// `metadata.generation` starts at 1 and rises when anything outside metadata and status changes.
    pub has_generation: bool,
    /// Deletion waits `deletionGracePeriodSeconds` for a node to confirm: Pods only. The function gives the default
    /// seconds for an object where DeleteOptions name none.
    pub graceful_delete: Option<fn(&Value) -> u64>,
    /// Subresources beyond `status`, which `has_status` implies.
    pub subresources: Cow<'static, [Subresource]>,
    pub selectable_fields: Cow<'static, [SelectableField]>,
    pub columns: Cow<'static, [Column]>,
    /// Fills what the author left out. Runs after decoding, before admission, on reads of old objects too; idempotent.
    pub default: fn(&mut Value),
    /// Runs on create after the generic metadata rules; clears or sets fields that clients may not choose.
    pub prepare_create: fn(&mut Value),
    /// The same for update: new, old.
    pub prepare_update: fn(&mut Value, &Value),
    /// Rules for any object of this kind; generic metadata rules (names, labels, annotations, owners) are the engine's.
    pub validate: fn(&Value) -> FieldErrors,
    /// Rules that need the object as it was (immutable fields): new, old.
    pub validate_update: fn(&Value, &Value) -> FieldErrors,
    /// Rules for a write through `/status`: new, old.
    pub validate_status: fn(&Value, &Value) -> FieldErrors,
    /// Which names are allowed: `meta::names` has the checks. Answers one sentence per broken rule.
    pub validate_name: fn(&str) -> Vec<String>,
    /// Warnings to send with the answer of a write (`Warning: 299 - "..."`).
    pub warnings: fn(&Value) -> Vec<String>,
}

impl Kind {
    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.plural.clone() }
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
}
