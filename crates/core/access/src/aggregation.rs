//! Cluster roles that gather the rules of others by label.

use std::collections::BTreeMap;

use crate::rule::Rule;

/// One selector of `aggregationRule.clusterRoleSelectors`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub match_labels: BTreeMap<String, String>,
    /// Key, operator (`In`, `NotIn`, `Exists`, `DoesNotExist`), values.
    pub match_expressions: Vec<(String, String, Vec<String>)>,
}

/// A cluster role as aggregation sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// None where the role gathers nothing.
    pub selectors: Option<Vec<Selector>>,
    pub rules: Vec<Rule>,
}

impl Selector {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let expression = |(key, operator, values): &(String, String, Vec<String>)| {
            let value = labels.get(key);
            match operator.as_str() {
                "In" => value.is_some_and(|value| values.contains(value)),
                "NotIn" => value.is_none_or(|value| !values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(expression)
    }
}

/// The rules that a role should have, where it gathers and has others: those of the roles that each selector finds, by
/// name, each rule once.
pub fn gather(role: &Role, all: &[Role]) -> Option<Vec<Rule>> {
    let selectors = role.selectors.as_ref()?;
    let mut sorted: Vec<&Role> = all.iter().filter(|other| other.name != role.name).collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rules: Vec<Rule> = Vec::new();
    for selector in selectors {
        for rule in sorted.iter().filter(|other| selector.matches(&other.labels)).flat_map(|other| &other.rules) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    let same = rules.len() == role.rules.len() && rules.iter().all(|rule| role.rules.contains(rule));
    (!same).then_some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_gathered_once_and_settle() {
        let rule = |verb: &str| Rule { verbs: vec![verb.to_owned()], ..Rule::default() };
        let labels = BTreeMap::from([("to".to_owned(), "true".to_owned())]);
        let part = |name: &str, verbs: &[&str]| Role {
            name: name.to_owned(),
            labels: labels.clone(),
            rules: verbs.iter().map(|verb| rule(verb)).collect(),
            ..Role::default()
        };
        let selector = Selector { match_labels: labels.clone(), ..Selector::default() };
        let mut whole = Role { name: "whole".to_owned(), selectors: Some(vec![selector]), ..Role::default() };
        let mut all = vec![part("b", &["list", "get"]), part("a", &["get"]), Role::default(), whole.clone()];
        whole.rules = gather(&whole, &all).unwrap();
        assert_eq!(whole.rules, [rule("get"), rule("list")]);
        assert_eq!(gather(&whole, &all), None);
        all.truncate(1);
        all[0].rules.clear();
        assert_eq!(gather(&whole, &all), Some(Vec::new()));
        assert_eq!(gather(&part("a", &[]), &all), None);
    }
}
