//! Server-side apply: who owns which field, what an apply changes, and which changes others object to.

use meta::{Cause, Reason, Status, StatusDetails};
use schema::{ListKind, Shape, Type};
use serde_json::{Map, Value, json};

use crate::fieldset::{FieldSet, children, element};

/// Who writes: the key of an entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager<'a> {
    pub name: &'a str,
    pub api_version: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
}

/// A field that an apply would change and another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"kubectl" using apps/v1`, with the subresource where there is one; an applier is named without version.
    pub with: String,
    pub path: String,
}

/// The 409 for conflicts, in upstream's words.
pub fn conflict_status(conflicts: &[Conflict]) -> Box<Status> {
    let count = conflicts.len();
    let mut managers: Vec<&str> = conflicts.iter().map(|conflict| &*conflict.with).collect();
    managers.dedup();
    let describe = |manager: &&str| {
        let paths: Vec<&str> = conflicts.iter().filter(|c| c.with == **manager).map(|c| &*c.path).collect();
        match paths.as_slice() {
            [one] => format!("conflict with {manager}: {one}"),
            many => format!("conflicts with {manager}:\n- {}", many.join("\n- ")),
        }
    };
    let text = managers.iter().map(describe).collect::<Vec<_>>().join("\n");
    let plural = if count == 1 { "conflict" } else { "conflicts" };
    let mut status = Status::failure(Reason::Conflict, format!("Apply failed with {count} {plural}: {text}"));
    let cause = |conflict: &Conflict| Cause {
        reason: "FieldManagerConflict".into(),
        message: format!("conflict with {}", conflict.with),
        field: conflict.path.clone(),
    };
    status.details = Some(StatusDetails { causes: conflicts.iter().map(cause).collect(), ..StatusDetails::default() });
    status
}

/// One entry of `managedFields`.
struct Entry {
    head: Map<String, Value>,
    set: FieldSet,
}

impl Entry {
    fn text(&self, key: &str) -> &str {
        self.head.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn is(&self, manager: &Manager<'_>, operation: &str) -> bool {
        self.text("manager") == manager.name
            && self.text("operation") == operation
            && self.text("subresource") == manager.subresource
            && self.text("apiVersion") == manager.api_version
    }

    fn describe(&self) -> String {
        let subresource = match self.text("subresource") {
            "" => String::new(),
            name => format!(" with subresource {name:?}"),
        };
        match self.text("operation") {
            "Apply" => format!("{:?}{subresource}", self.text("manager")),
            _ => format!("{:?}{subresource} using {}", self.text("manager"), self.text("apiVersion")),
        }
    }
}

fn read(object: &Value) -> Vec<Entry> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .map(|entry| {
            let mut head = entry.clone();
            let set = head.remove("fieldsV1").map(|fields| FieldSet::parse(&fields)).unwrap_or_default();
            Entry { head, set }
        })
        .collect()
}

/// Writes the entries in upstream's order: applies first, then by time and name.
fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| {
            ["operation", "time", "manager", "apiVersion", "subresource"].map(|k| entry.text(k).to_owned())
        };
        key(a).cmp(&key(b))
    });
    let list: Vec<Value> = entries
        .into_iter()
        .filter(|entry| !entry.set.is_empty())
        .map(|mut entry| {
            entry.head.insert("fieldsType".into(), "FieldsV1".into());
            entry.head.insert("fieldsV1".into(), entry.set.to_value());
            Value::Object(entry.head)
        })
        .collect();
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match list.is_empty() {
        true => meta.remove("managedFields"),
        false => meta.insert("managedFields".into(), Value::Array(list)),
    };
}

fn own(entries: &mut Vec<Entry>, manager: &Manager<'_>, operation: &str, now: &str, set: FieldSet) {
    entries.retain(|entry| !entry.is(manager, operation));
    let mut head = Map::new();
    let fields = [("manager", manager.name), ("operation", operation), ("apiVersion", manager.api_version)];
    for (key, value) in fields.into_iter().chain([("time", now), ("subresource", manager.subresource)]) {
        if !value.is_empty() {
            head.insert(key.into(), value.into());
        }
    }
    entries.push(Entry { head, set });
}

/// Fields of the machinery, which nobody owns.
fn strip(mut set: FieldSet, manager: &Manager<'_>) -> FieldSet {
    for name in ["f:apiVersion", "f:kind"] {
        set.below.remove(name);
    }
    if manager.subresource.is_empty() {
        set.below.remove("f:status");
    }
    if let Some(meta) = set.below.get_mut("f:metadata") {
        const MACHINE: [&str; 9] = [
            "f:name",
            "f:namespace",
            "f:creationTimestamp",
            "f:selfLink",
            "f:uid",
            "f:generation",
            "f:managedFields",
            "f:resourceVersion",
            "f:generateName",
        ];
        meta.member = false;
        meta.below.retain(|name, _| name == "f:generateName" || !MACHINE.contains(&name.as_str()));
    }
    set.below.retain(|_, child| !child.is_empty());
    set
}

/// Records an update (not an apply): what changed between `old` and `new` becomes the manager's, and what is gone is
/// nobody's. `now` is the time as Kubernetes writes it. Changes only `metadata.managedFields` of `new`.
pub fn track_update(ty: &Type, old: Option<&Value>, new: &mut Value, manager: &Manager<'_>, now: &str) {
    let mut entries = read(old.unwrap_or(new));
    let changed = strip(FieldSet::changed(ty, old, new), manager);
    let present = FieldSet::changed_from_nothing(ty, new);
    for entry in &mut entries {
        entry.set = entry.set.intersection(&present);
        if !entry.is(manager, "Update") {
            entry.set = entry.set.difference(&changed);
        }
    }
    let had = entries.iter().find(|entry| entry.is(manager, "Update")).map(|entry| entry.set.clone());
    if !changed.is_empty() {
        own(&mut entries, manager, "Update", now, had.unwrap_or_default().union(&changed));
    }
    write(new, entries);
}

/// Applies a configuration to the live object (`None` creates it). Answers the object to store with its
/// `managedFields`, or the conflicts with other managers, which `force` overrides by taking their fields.
pub fn apply(
    ty: &Type,
    live: Option<&Value>,
    config: &Value,
    manager: &Manager<'_>,
    now: &str,
    force: bool,
) -> Result<Value, Vec<Conflict>> {
    let empty = json!({"metadata": {}});
    let base = live.unwrap_or(&empty);
    let mut entries = read(base);
    let set = strip(FieldSet::of_config(ty, config), manager);
    let mut merged = merge(ty, base, config);
    let changed = FieldSet::changed(ty, Some(base), &merged);
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !entry.is(manager, "Apply")) {
        let taken = entry.set.intersection(&set).intersection(&changed);
        let with = entry.describe();
        conflicts.extend(taken.paths().into_iter().map(|path| Conflict { with: with.clone(), path }));
        entry.set = entry.set.difference(&taken);
    }
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    if let Some(before) = entries.iter().find(|entry| entry.is(manager, "Apply")) {
        let others = entries.iter().filter(|entry| !entry.is(manager, "Apply"));
        let kept = others.fold(set.clone(), |all, entry| all.union(&entry.set));
        remove(ty, &mut merged, &before.set.difference(&set), &kept);
    }
    // An apply that owns what it owned and changes nothing keeps its time, so that it writes nothing.
    let same = entries.iter().find(|entry| entry.is(manager, "Apply") && entry.set == set);
    let now = same.map_or(now, |entry| entry.text("time")).to_owned();
    own(&mut entries, manager, "Apply", &now, set);
    write(&mut merged, entries);
    Ok(merged)
}

/// Merges by the schema: maps by key, keyed lists by their keys, sets as unions; everything else is replaced.
fn merge(ty: &Type, live: &Value, config: &Value) -> Value {
    match (&ty.shape, live, config) {
        (Shape::Struct { .. } | Shape::Map { .. } | Shape::Deduced, Value::Object(live), Value::Object(config))
            if !ty.is_atomic() =>
        {
            let mut out = live.clone();
            for (key, value) in config {
                let merged = match (out.get(key), ty.child(key)) {
                    (Some(have), Some(child)) => merge(child, have, value),
                    _ => value.clone(),
                };
                out.insert(key.clone(), merged);
            }
            Value::Object(out)
        }
        (
            Shape::List { kind: kind @ (ListKind::Set | ListKind::Map(_)), item },
            Value::Array(live),
            Value::Array(config),
        ) => {
            let mut out = live.clone();
            for value in config {
                let name = element(kind, item, value);
                match out.iter_mut().find(|have| element(kind, item, have) == name) {
                    Some(have) => *have = merge(item, have, value),
                    None => out.push(value.clone()),
                }
            }
            Value::Array(out)
        }
        _ => config.clone(),
    }
}

/// Removes the fields that the manager no longer names, except where somebody owns them or something below them.
fn remove(ty: &Type, value: &mut Value, gone: &FieldSet, kept: &FieldSet) {
    let nobody = FieldSet::default();
    let verdict = |key: &str| {
        let kept = kept.below.get(key).unwrap_or(&nobody).clone();
        gone.below.get(key).map(|gone| (gone.clone(), kept))
    };
    let drop = |gone: &FieldSet, kept: &FieldSet| gone.member && kept.is_empty();
    match value {
        Value::Object(map) => map.retain(|key, child| match verdict(&format!("f:{key}")) {
            None => true,
            Some((gone, kept)) if drop(&gone, &kept) => false,
            Some((gone, kept)) => {
                let had = is_container_with_content(child);
                if let Some(ty) = ty.child(key) {
                    remove(ty, child, &gone, &kept);
                }
                // A map or list that the apply emptied goes with its last part, unless it is owned itself.
                !(had && !is_container_with_content(child) && kept.is_empty())
            }
        }),
        Value::Array(list) => {
            let Shape::List { kind, item } = &ty.shape else { return };
            list.retain_mut(|child| match verdict(&element(kind, item, child)) {
                None => true,
                Some((gone, kept)) if drop(&gone, &kept) => false,
                Some((gone, kept)) => {
                    remove(item, child, &gone, &kept);
                    true
                }
            });
        }
        _ => {}
    }
}

fn is_container_with_content(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|list| !list.is_empty())
}

impl FieldSet {
    /// Every field that an object has, containers included.
    fn changed_from_nothing(ty: &Type, value: &Value) -> Self {
        let below = children(ty, value).map(|(key, ty, child)| {
            let mut set = ty.map(|ty| Self::changed_from_nothing(ty, child)).unwrap_or_default();
            set.member = true;
            (key, set)
        });
        Self { member: false, below: below.collect() }
    }
}
