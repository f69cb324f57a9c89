//! The kinds that are served now, by where requests and stored keys find them; custom kinds come and go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kinds::{Kind, Scope, SelectableField};
use meta::{GroupResource, Gvk};
use serde_json::Value;

use crate::custom::CustomType;

/// One kind in one version with where its objects are stored.
#[derive(Clone)]
pub struct Served {
    pub kind: Arc<Kind>,
    /// Group, version and kind under which objects are stored; other versions are converted on the way.
    pub storage: Gvk,
    /// Where objects are stored; `events.events.k8s.io` shares the place of core events.
    pub stored_as: GroupResource,
    /// Set for kinds that a CustomResourceDefinition made.
    pub custom: Option<Arc<CustomType>>,
}

impl Served {
    pub fn resource(&self) -> GroupResource {
        self.kind.group_resource()
    }

    pub fn is_namespaced(&self) -> bool {
        self.kind.scope == Scope::Namespaced
    }

    /// Whether objects of this version are made from stored ones by their author's webhook.
    pub fn is_converted(&self) -> bool {
        !self.is_storage_version() && self.custom.as_ref().is_some_and(|custom| custom.converter.is_some())
    }

    /// Whether requests speak the stored version, so that stored bytes are sent as they are.
    pub fn is_storage_version(&self) -> bool {
        self.storage.group == self.kind.group && self.storage.version == self.kind.version
    }

    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => custom.list_kind.clone(),
            None => format!("{}List", self.kind.kind),
        }
    }

    pub fn api_version(&self) -> String {
        self.kind.group_version().to_string()
    }

    /// The name inside the resource: `namespace/name` or `name`.
    pub fn local_key(&self, namespace: &str, name: &str) -> String {
        if self.is_namespaced() { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    pub fn store_key(&self, namespace: &str, name: &str) -> String {
        format!("{}{}", store_prefix(&self.stored_as), self.local_key(namespace, name))
    }

    pub fn field_reader(&self, path: &str) -> Option<FieldReader> {
        if let Some(field) = self.kind.selectable_fields.iter().find(|field| field.path == path) {
            return Some(FieldReader::from(field));
        }
        let custom = self.custom.as_ref()?;
        custom.selectable.iter().find(|known| known.as_str() == path).map(|path| FieldReader::at(path))
    }

    pub fn subresource(&self, name: &str) -> Option<&kinds::Subresource> {
        self.kind.subresources.iter().find(|sub| sub.name == name)
    }

    pub fn serves_subresource(&self, name: &str) -> bool {
        (name == "status" && self.kind.has_status) || self.subresource(name).is_some()
    }
}

/// How a selectable field is read from an object.
#[derive(Clone)]
pub struct FieldReader {
    pub path: String,
    function: Option<fn(&Value) -> String>,
    /// Set where the field is one of a view: the object is turned into the view's shape first.
    from_stored: Option<fn(&mut Value)>,
}

impl From<&SelectableField> for FieldReader {
    fn from(field: &SelectableField) -> Self {
        Self { path: field.path.to_string(), function: Some(field.read), from_stored: None }
    }
}

impl FieldReader {
    pub fn at(path: &str) -> Self {
        Self { path: path.trim_start_matches('.').to_owned(), function: None, from_stored: None }
    }

    /// The fields of a row that is a view of objects stored as another kind.
    pub fn of_view(kind: &Kind) -> Vec<Self> {
        let from_stored = kind.stored_as.as_ref().map(|stored| stored.from_stored);
        kind.selectable_fields.iter().map(|field| Self { from_stored, ..Self::from(field) }).collect()
    }

    pub fn read(&self, object: &Value) -> String {
        let Some(from_stored) = self.from_stored else { return self.read_shaped(object) };
        let mut view = object.clone();
        from_stored(&mut view);
        self.read_shaped(&view)
    }

    fn read_shaped(&self, object: &Value) -> String {
        if let Some(function) = self.function {
            return function(object);
        }
        let found = self.path.split('.').try_fold(object, |value, part| value.get(part));
        match found {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        }
    }
}

/// All keys start with this; nothing else is written to the store.
pub const STORE_ROOT: &str = "/registry/";

/// The part of a store key that all objects of a resource share.
pub fn store_prefix(resource: &GroupResource) -> String {
    let group = if resource.group.is_empty() { "core" } else { &resource.group };
    format!("{STORE_ROOT}{group}/{}/", resource.resource)
}

/// An immutable table; a change makes a new one.
#[derive(Clone, Default)]
pub struct Registry {
    /// By group, version, plural.
    rows: BTreeMap<(String, String, String), Arc<Served>>,
    /// Versions of a group in order of preference.
    versions: BTreeMap<String, Vec<String>>,
    /// Rows by group, version, kind.
    kinds: HashMap<(String, String, String), Arc<Served>>,
}

/// Groups in the order upstream's discovery lists them; others follow by name.
const GROUP_ORDER: [&str; 20] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

impl Registry {
    pub fn new(kinds: Vec<Kind>) -> Self {
        let mut registry = Self::default();
        let plural = |gvk: &Gvk| {
            let row = kinds.iter().find(|row| row.gvk() == *gvk);
            row.map(Kind::group_resource)
        };
        let places: Vec<_> = kinds.iter().map(|kind| plural(&kind.stored_gvk())).collect();
        for (kind, place) in kinds.into_iter().zip(places) {
            let storage = kind.stored_gvk();
            let stored_as = place.unwrap_or_else(|| kind.group_resource());
            registry.insert(Served { kind: Arc::new(kind), storage, stored_as, custom: None });
        }
        registry
    }

    pub fn insert(&mut self, served: Served) {
        let kind = &served.kind;
        let (group, version) = (kind.group.to_string(), kind.version.to_string());
        let versions = self.versions.entry(group.clone()).or_default();
        if !versions.contains(&version) {
            versions.push(version.clone());
            versions.sort_by(|a, b| version_order(b, a));
        }
        let served = Arc::new(served);
        let kind = served.kind.clone();
        self.kinds.insert((group.clone(), version.clone(), kind.kind.to_string()), served.clone());
        self.rows.insert((group, version, kind.plural.to_string()), served);
    }

    /// Removes every version of a resource.
    pub fn remove(&mut self, resource: &GroupResource) {
        let gone = |served: &Served| served.kind.group == resource.group && served.kind.plural == resource.resource;
        self.rows.retain(|_, served| !gone(served));
        self.kinds.retain(|_, served| !gone(served));
        let rows = &self.rows;
        for (group, versions) in &mut self.versions {
            versions.retain(|version| rows.keys().any(|(g, v, _)| g == group && v == version));
        }
        self.versions.retain(|_, versions| !versions.is_empty());
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.rows.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Served>> {
        self.kinds.get(&(group.to_owned(), version.to_owned(), kind.to_owned()))
    }

    /// A resource in its group's preferred version.
    pub fn find_resource(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        self.versions.get(group)?.iter().find_map(|version| self.find(group, version, plural))
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.rows.values()
    }

    pub fn in_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Served>> {
        self.rows.iter().filter(move |((g, v, _), _)| g == group && v == version).map(|(_, served)| served)
    }

    /// Groups with their versions, most preferred first.
    pub fn groups(&self) -> Vec<(&str, &[String])> {
        let place = |group: &str| GROUP_ORDER.iter().position(|known| *known == group).unwrap_or(GROUP_ORDER.len());
        let mut groups: Vec<_> = self.versions.iter().map(|(g, v)| (g.as_str(), v.as_slice())).collect();
        groups.sort_by_key(|(group, _)| (place(group), group.to_owned()));
        groups
    }

    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.versions.get(group).is_some_and(|versions| versions.iter().any(|known| known == version))
    }
}

/// `v2` above `v1` above `v1beta2` above `v1alpha1`, as Kubernetes ranks version names.
fn version_order(a: &str, b: &str) -> std::cmp::Ordering {
    fn rank(version: &str) -> Option<(u32, u32, u32)> {
        let digits = version.strip_prefix('v')?;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let major = digits[..end].parse().ok()?;
        let rest = &digits[end..];
        if rest.is_empty() {
            return Some((3, major, 0));
        }
        let (stability, number) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(number), _) => (2, number),
            (_, Some(number)) => (1, number),
            _ => return None,
        };
        Some((stability, major, number.parse().ok()?))
    }
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => std::cmp::Ordering::Greater,
        (None, Some(_)) => std::cmp::Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// The rows of every built-in kind.
pub fn builtin_kinds() -> Vec<Kind> {
    kinds::builtin().to_vec()
}
