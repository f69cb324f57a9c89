//! One policy rule: what it allows, and whether it covers another.

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::go::quoted_list;

/// `rbac.authorization.k8s.io/v1 PolicyRule`. A missing list and an empty one are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "null_is_empty")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(input)?.unwrap_or_default())
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

fn has_or_star(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

/// A URL of a rule matches itself, and with a `*` at its end everything that starts as it does.
fn url_covers(rule: &str, wanted: &str) -> bool {
    rule == wanted || (rule.ends_with('*') && wanted.starts_with(rule.trim_end_matches('*')))
}

impl Rule {
    /// Everything, everywhere; and every path.
    pub fn full_authority() -> [Self; 2] {
        let star = || vec!["*".to_owned()];
        [
            Self { verbs: star(), api_groups: star(), resources: star(), ..Self::default() },
            Self { verbs: star(), non_resource_urls: star(), ..Self::default() },
        ]
    }

    pub fn allows(&self, asked: &Attributes) -> bool {
        if !has_or_star(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.is_resource_request() {
            return self.non_resource_urls.iter().any(|url| url_covers(url, &asked.path));
        }
        has_or_star(&self.api_groups, &asked.group)
            && self.names_resource(&asked.resource, &asked.subresource)
            && (self.resource_names.is_empty() || has(&self.resource_names, &asked.name))
    }

    /// `pods`, `pods/log`, `*`, and `*/scale` for a subresource of anything. `pods/*` is not a pattern.
    fn names_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|named| match named.split_once('/') {
            None => named == "*" || (subresource.is_empty() && named == resource),
            Some((parent, child)) => {
                !subresource.is_empty() && child == subresource && (parent == "*" || parent == resource)
            }
        })
    }

    /// Rules with at most one verb, group, resource and name each, that together mean the same.
    pub fn break_down(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut parts = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part =
                        Self { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Self::default() };
                    if self.resource_names.is_empty() {
                        parts.push(part);
                        continue;
                    }
                    let named = |name| Self { resource_names: one(name), ..part.clone() };
                    parts.extend(self.resource_names.iter().map(named));
                }
            }
        }
        for url in &self.non_resource_urls {
            let of = |verb| Self { verbs: one(verb), non_resource_urls: one(url), ..Self::default() };
            parts.extend(self.verbs.iter().map(of));
        }
        parts
    }

    /// Whether this rule alone gives everything that a broken-down rule gives.
    pub fn covers(&self, part: &Self) -> bool {
        let all = |own: &[String], wanted: &[String]| has(own, "*") || wanted.iter().all(|w| has(own, w));
        let resource = |wanted: &String| {
            let of_anything = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            has_or_star(&self.resources, wanted) || of_anything.is_some_and(|star| has(&self.resources, &star))
        };
        let names = if part.resource_names.is_empty() {
            self.resource_names.is_empty()
        } else {
            self.resource_names.is_empty() || part.resource_names.iter().all(|n| has(&self.resource_names, n))
        };
        all(&self.verbs, &part.verbs)
            && all(&self.api_groups, &part.api_groups)
            && part.resources.iter().all(resource)
            && names
            && part.non_resource_urls.iter().all(|url| self.non_resource_urls.iter().any(|own| url_covers(own, url)))
    }

    /// As messages show a rule: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
    pub fn compact_text(&self) -> String {
        let lists = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let filled = lists.iter().filter(|(_, list)| !list.is_empty());
        let texts: Vec<String> = filled.map(|(name, list)| format!("{name}:{}", quoted_list(list))).collect();
        format!("{{{}}}", texts.join(", "))
    }
}
