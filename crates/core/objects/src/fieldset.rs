//! Sets of fields as `managedFields` writes them (FieldsV1), computed from objects by their type.

use std::collections::BTreeMap;

use schema::{ListKind, Omit, Shape, Type};
use serde_json::{Map, Value};

/// A set of field paths: a tree of path elements (`f:name`, `k:{...}`, `v:...`) whose nodes may be members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    pub member: bool,
    pub below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub fn parse(fields: &Value) -> Self {
        let mut set = Self::default();
        for (key, value) in fields.as_object().into_iter().flatten() {
            if key == "." {
                set.member = true;
                continue;
            }
            let mut child = Self::parse(value);
            child.member |= child.below.is_empty();
            set.below.insert(key.clone(), child);
        }
        set
    }

    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, child) in &self.below {
            let mut value = child.to_value();
            if child.member && !child.below.is_empty() {
                value["."] = Value::Object(Map::new());
            }
            map.insert(key.clone(), value);
        }
        Value::Object(map)
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.below.values().all(Self::is_empty)
    }

    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.member |= other.member;
        for (key, theirs) in &other.below {
            let mine = self.below.remove(key).unwrap_or_default();
            self.below.insert(key.clone(), mine.union(theirs));
        }
        self
    }

    /// The members of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.filtered(Some(other), |mine, theirs| mine && theirs)
    }

    /// The members that the other set does not have.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.filtered(Some(other), |mine, theirs| mine && !theirs)
    }

    fn filtered(&self, other: Option<&Self>, keep: fn(bool, bool) -> bool) -> Self {
        let below = self
            .below
            .iter()
            .map(|(key, mine)| (key.clone(), mine.filtered(other.and_then(|other| other.below.get(key)), keep)));
        Self {
            member: keep(self.member, other.is_some_and(|other| other.member)),
            below: below.filter(|(_, child)| !child.is_empty()).collect(),
        }
    }

    /// Every member as upstream prints a path: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, at: &str, out: &mut Vec<String>) {
        // Members of one level come before what lies deeper, as upstream lists them.
        let steps: Vec<(String, &Self)> =
            self.below.iter().map(|(key, child)| (format!("{at}{}", step(key)), child)).collect();
        out.extend(steps.iter().filter(|(_, child)| child.member).map(|(path, _)| path.clone()));
        for (path, child) in steps {
            child.collect(&path, out);
        }
    }

    /// The fields that an apply configuration names: leaves, atomic values, empty maps and list elements.
    pub fn of_config(ty: &Type, value: &Value) -> Self {
        let mut set = Self::default();
        for (key, child_type, child) in children(ty, value) {
            let mut below = child_type.map(|ty| Self::of_config(ty, child)).unwrap_or_default();
            below.member |= below.below.is_empty() || !key.starts_with("f:");
            set.below.insert(key, below);
        }
        set
    }

    /// The fields that `new` has and `old` lacks or holds differently.
    pub fn changed(ty: &Type, old: Option<&Value>, new: &Value) -> Self {
        let mut set = Self::default();
        let before: BTreeMap<String, &Value> =
            old.map(|old| children(ty, old).map(|(key, _, value)| (key, value)).collect()).unwrap_or_default();
        for (key, child_type, child) in children(ty, new) {
            let was = before.get(&key).copied();
            if was == Some(child) {
                continue;
            }
            let mut below = child_type.map(|ty| Self::changed(ty, was, child)).unwrap_or_default();
            let granular = child_type.is_some_and(|ty| children(ty, child).next().is_some());
            // Fields that upstream's encoder always writes exist before anybody sets them.
            let always = key.strip_prefix("f:").and_then(|name| ty.field(name)).is_some_and(|f| f.omit == Omit::Never);
            below.member |= if granular { was.is_none() && !always } else { true };
            if !below.is_empty() {
                set.below.insert(key, below);
            }
        }
        set
    }
}

/// One path element as upstream prints it.
pub(crate) fn step(key: &str) -> String {
    match key.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[{key}]"),
    }
}

/// The parts of a value that apply tracks one by one: path element, type and value; none for what is atomic.
pub(crate) fn children<'a>(
    ty: &'a Type,
    value: &'a Value,
) -> Box<dyn Iterator<Item = (String, Option<&'a Type>, &'a Value)> + 'a> {
    match (&ty.shape, value) {
        (Shape::Struct { .. } | Shape::Map { .. } | Shape::Deduced, Value::Object(map)) if !ty.is_atomic() => {
            Box::new(map.iter().map(|(key, child)| (format!("f:{key}"), ty.child(key).map(|ty| &**ty), child)))
        }
        (Shape::List { kind: kind @ (ListKind::Set | ListKind::Map(_)), item }, Value::Array(list)) => {
            Box::new(list.iter().map(move |child| (element(kind, item, child), Some(&**item), child)))
        }
        _ => Box::new(std::iter::empty()),
    }
}

/// The path element of a list element: its keys, absent ones with their schema default, or its value.
pub(crate) fn element(kind: &ListKind, item: &Type, value: &Value) -> String {
    let ListKind::Map(keys) = kind else { return format!("v:{value}") };
    let mut named = BTreeMap::new();
    for key in keys {
        let default = || item.field(key).and_then(|field| field.default.clone());
        if let Some(value) = value.get(&**key).cloned().or_else(default) {
            named.insert(&**key, value);
        }
    }
    format!("k:{}", serde_json::to_string(&named).unwrap_or_default())
}
