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
    /// All but deletecollection: Namespace, whose deletion is a process of its own.
    AllButDeleteCollection,
    /// create only: reviews, bindings; nothing is stored.
    CreateOnly,
    /// get and list only.
    ReadOnly,
}

impl Verbs {
    /// The verbs as discovery lists them.
    pub fn list(self) -> &'static [&'static str] {
        match self {
            Self::All => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            Self::AllButDeleteCollection => &["create", "delete", "get", "list", "patch", "update", "watch"],
            Self::CreateOnly => &["create"],
            Self::ReadOnly => &["get", "list"],
        }
    }

    pub fn allows(self, verb: &str) -> bool {
        self.list().contains(&verb)
    }
}

/// A kind that is another view of objects stored as a different kind: `events.k8s.io/v1 Event` shows the stored
/// `v1 Event`. Both are served, watched and written; storage knows one. The functions rewrite the fields that
/// differ; `apiVersion` and `kind` are set by the engine.
#[derive(Clone, Debug)]
pub struct StoredAs {
    pub gvk: Gvk,
    /// From this row's shape to the stored one.
    pub to_stored: fn(&mut Value),
    /// From the stored shape to this row's.
    pub from_stored: fn(&mut Value),
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

/// One column of the Table that `kubectl get` shows. The row lists all of them, Name included, in their order.
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
    /// Set where objects of this kind are kept as another kind; `None` means stored as they are.
    pub stored_as: Option<StoredAs>,
    pub verbs: Verbs,
    /// Has a `status` that only `/status` writes: the engine clears it on create and keeps the old one on update,
    /// and keeps everything but the status (and the metadata that status writers may touch) on a status write.
    pub has_status: bool,
    /// `metadata.generation` starts at 1 and rises when anything outside metadata and status changes.
    pub has_generation: bool,
    /// Deletion waits `deletionGracePeriodSeconds` for a node to confirm: Pods only. The function gives the default
    /// seconds for an object where DeleteOptions name none.
    pub graceful_delete: Option<fn(&Value) -> u64>,
    /// A deletion that says nothing of dependents leaves them behind: Jobs, for compatibility.
    pub orphans_dependents: bool,
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
    /// The OpenAPI schema of a kind that is not in the table of built-in types.
    pub schema: Option<fn() -> Value>,
}

/// Words of a row: short names, categories.
pub(crate) fn texts(words: &'static [&'static str]) -> Cow<'static, [Text]> {
    words.iter().map(|word| Cow::Borrowed(*word)).collect()
}

fn keep(_: &mut Value) {}
fn keep_update(_: &mut Value, _: &Value) {}
fn accept(_: &Value) -> FieldErrors {
    Vec::new()
}
fn accept_change(_: &Value, _: &Value) -> FieldErrors {
    Vec::new()
}
fn no_warnings(_: &Value) -> Vec<String> {
    Vec::new()
}

impl Column {
    /// A column that is always shown; `-o wide` columns say [`Column::wide`].
    pub fn new(
        name: &'static str,
        kind: &'static str,
        description: &'static str,
        read: fn(&Value, i64) -> Value,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            kind: Cow::Borrowed(kind),
            format: Cow::Borrowed(""),
            description: Cow::Borrowed(description),
            priority: 0,
            read,
        }
    }

    /// The same column, shown only with `-o wide`.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    #[must_use]
    pub fn format(mut self, format: &'static str) -> Self {
        self.format = Cow::Borrowed(format);
        self
    }
}

impl Subresource {
    /// A subresource whose body is the parent's own kind.
    pub fn new(name: &'static str, verbs: &'static [&'static str]) -> Self {
        Self { name: Cow::Borrowed(name), speaks: None, verbs }
    }

    /// A subresource with a body of its own kind.
    pub fn speaking(name: &'static str, speaks: Gvk, verbs: &'static [&'static str]) -> Self {
        Self { name: Cow::Borrowed(name), speaks: Some(speaks), verbs }
    }
}

impl Kind {
    /// A namespaced kind with no rules of its own: the base that rows fill in by struct update.
    pub fn namespaced(gv: (&'static str, &'static str), kind: &'static str, plural: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(gv.0),
            version: Cow::Borrowed(gv.1),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            singular: Cow::Owned(kind.to_ascii_lowercase()),
            short_names: Cow::Borrowed(&[]),
            categories: Cow::Borrowed(&[]),
            scope: Scope::Namespaced,
            stored_as: None,
            verbs: Verbs::All,
            has_status: false,
            has_generation: false,
            graceful_delete: None,
            orphans_dependents: false,
            subresources: Cow::Borrowed(&[]),
            selectable_fields: Cow::Borrowed(&[]),
            columns: Cow::Owned(crate::columns::generic()),
            default: keep,
            prepare_create: keep,
            prepare_update: keep_update,
            validate: accept,
            validate_update: accept_change,
            validate_status: accept_change,
            validate_name: meta::names::dns_subdomain,
            warnings: no_warnings,
            schema: None,
        }
    }

    /// The same for a kind whose objects live outside namespaces.
    pub fn cluster(gv: (&'static str, &'static str), kind: &'static str, plural: &'static str) -> Self {
        Self { scope: Scope::Cluster, ..Self::namespaced(gv, kind, plural) }
    }

    /// The kind whose bytes storage holds: this one, or the one it is a view of.
    pub fn stored_gvk(&self) -> Gvk {
        self.stored_as.as_ref().map_or_else(|| self.gvk(), |stored| stored.gvk.clone())
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

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
