//! Which requests a webhook or an admission policy is about: its rules, and its selectors of namespaces and objects.

use meta::labels::Selector;
use serde_json::{Map, Value};

/// The coordinates of a write, as rules see them. Several versions of one resource may be tried.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'a str,
    /// Empty for what lives outside namespaces; a namespace itself is outside.
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Target<'_> {
    /// Whether the object is a namespace itself.
    pub fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.resource == "namespaces"
    }
}

/// One rule of a webhook or a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource; an absent subresource is empty.
    resources: Vec<(String, String)>,
    operations: Vec<String>,
    scope: String,
    /// Empty allows every name.
    names: Vec<String>,
}

fn words(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(words: &[String], word: &str) -> bool {
    words.iter().any(|known| known == "*" || known == word)
}

impl Rule {
    pub fn new(rule: &Value) -> Self {
        let split = |resource: String| match resource.split_once('/') {
            Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
            None => (resource, String::new()),
        };
        Self {
            groups: words(&rule["apiGroups"]),
            versions: words(&rule["apiVersions"]),
            resources: words(&rule["resources"]).into_iter().map(split).collect(),
            operations: words(&rule["operations"]),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
            names: words(&rule["resourceNames"]),
        }
    }

    /// The rules of a list.
    pub fn all(rules: &Value) -> Vec<Self> {
        rules.as_array().into_iter().flatten().map(Self::new).collect()
    }

    pub fn matches(&self, target: &Target<'_>) -> bool {
        has(&self.groups, target.group)
            && has(&self.versions, target.version)
            && has(&self.operations, target.operation)
            && self.in_scope(target)
            && self.resources.iter().any(|(resource, sub)| {
                (resource == "*" || resource == target.resource) && (sub == "*" || sub == target.subresource)
            })
            && (self.names.is_empty() || self.names.iter().any(|name| name == target.name))
    }

    fn in_scope(&self, target: &Target<'_>) -> bool {
        let outside = target.is_namespace() || target.namespace.is_empty();
        match self.scope.as_str() {
            "Namespaced" => !outside,
            "Cluster" => outside,
            _ => true,
        }
    }
}

/// Configurations of admission itself: what could lock its own repair out is never asked about them.
pub fn is_exempt(group: &str, resource: &str) -> bool {
    const EXEMPT: [&str; 6] = [
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ];
    group == "admissionregistration.k8s.io" && EXEMPT.contains(&resource)
}

/// A selector of labels; one that cannot be read selects nothing.
#[derive(Clone, Debug, Default)]
pub struct Labels(Option<Selector>);

impl Labels {
    /// An absent selector selects everything: both fields default to the empty selector.
    pub fn new(selector: &Value) -> Self {
        if selector.is_null() {
            return Self(Some(Selector::default()));
        }
        Self(Selector::from_label_selector(selector))
    }

    /// Whether everything is selected, so that no labels have to be looked up.
    pub fn is_everything(&self) -> bool {
        self.0.as_ref().is_some_and(Selector::is_empty)
    }

    pub fn matches(&self, labels: &Value) -> bool {
        self.0.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether the new or the old object has the labels; what has no metadata has none.
    pub fn matches_object(&self, object: Option<&Value>, old: Option<&Value>) -> bool {
        if self.is_everything() {
            return true;
        }
        let fits = |object: &Value| object["metadata"].is_object() && self.matches(labels(object));
        object.is_some_and(fits) || old.is_some_and(fits)
    }
}

/// The labels of an object; none read as an empty map.
pub fn labels(object: &Value) -> &Value {
    static NONE: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
    let labels = &object["metadata"]["labels"];
    if labels.is_object() { labels } else { NONE.get_or_init(|| Value::Object(Map::new())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target<'a>(resource: &'a str, sub: &'a str, operation: &'a str, namespace: &'a str) -> Target<'a> {
        Target { group: "", version: "v1", resource, subresource: sub, operation, namespace, name: "n" }
    }

    #[test]
    fn rules_match_as_upstreams_do() {
        let rule = |resources: &[&str], operations: &[&str], scope: &str| {
            Rule::new(&json!({"apiGroups": [""], "apiVersions": ["*"], "resources": resources,
                "operations": operations, "scope": scope}))
        };
        for (resources, operations, scope, target, expected) in [
            (["pods"].as_slice(), ["CREATE"].as_slice(), "*", target("pods", "", "CREATE", "a"), true),
            (&["pods"], &["CREATE"], "*", target("pods", "status", "CREATE", "a"), false),
            (&["pods/*"], &["*"], "*", target("pods", "attach", "CONNECT", "a"), true),
            (&["pods/*"], &["*"], "*", target("pods", "", "CREATE", "a"), true),
            (&["*"], &["*"], "*", target("pods", "exec", "CONNECT", "a"), false),
            (&["*/*"], &["*"], "*", target("pods", "exec", "CONNECT", "a"), true),
            (&["*/scale"], &["UPDATE"], "*", target("pods", "scale", "UPDATE", "a"), true),
            (&["*"], &["*"], "Cluster", target("pods", "", "CREATE", "a"), false),
            (&["*"], &["*"], "Cluster", target("namespaces", "", "CREATE", "a"), true),
            (&["*"], &["*"], "Namespaced", target("namespaces", "", "CREATE", "a"), false),
            (&["*"], &["DELETE"], "Namespaced", target("pods", "", "CREATE", "a"), false),
        ] {
            let found = rule(resources, operations, scope).matches(&target);
            assert_eq!(found, expected, "{resources:?} {operations:?} {scope} {target:?}");
        }
    }

    #[test]
    fn either_object_may_have_the_labels() {
        let selector = Labels::new(&json!({"matchLabels": {"a": "b"}}));
        let with = json!({"metadata": {"labels": {"a": "b"}}});
        let without = json!({"metadata": {}});
        assert!(selector.matches_object(Some(&without), Some(&with)));
        assert!(!selector.matches_object(Some(&without), None));
        assert!(Labels::new(&json!({})).matches_object(None, None));
        assert!(!Labels::new(&json!({"matchExpressions": [{"key": "a", "operator": "x"}]})).is_everything());
    }
}
