//! Nobody grants what they do not hold: the check behind writes of roles and bindings.

use std::collections::{BTreeMap, BTreeSet};

use crate::attributes::User;
use crate::go::quoted_list;
use crate::rbac::Rbac;
use crate::rule::Rule;

/// The broken-down parts of `wanted` that none of `held` covers.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(Rule::break_down);
    parts.filter(|part| !held.iter().any(|rule| rule.covers(part))).collect()
}

/// Whether a user holds every right of `wanted` in a namespace (empty: cluster-wide); the error is the sentence that
/// follows `... is forbidden: `.
pub fn confirm_no_escalation(rbac: &Rbac, user: &User, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
    let (held, errors) = rbac.rules_for(user, namespace);
    let missing = missing(&held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let texts: BTreeSet<String> = compact(missing).iter().map(Rule::compact_text).collect();
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted_list(&user.groups),
        texts.into_iter().collect::<Vec<_>>().join("\n")
    );
    if !errors.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", crate::go::aggregate(&errors)));
    }
    Err(message)
}

/// What aggregation demands of who sets it: everything.
pub const AGGREGATION_DENIED: &str = "must have cluster-admin privileges to use the aggregationRule";

/// Joins rules that differ only in their verb; they come from `break_down`, so each has one verb.
fn compact(parts: Vec<Rule>) -> Vec<Rule> {
    let mut joined: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    let mut others = Vec::new();
    for mut part in parts {
        if part.non_resource_urls.is_empty() {
            let verbs = std::mem::take(&mut part.verbs);
            joined.entry(part).or_default().extend(verbs);
        } else {
            others.push(part);
        }
    }
    others.extend(joined.into_iter().map(|(rule, verbs)| Rule { verbs, ..rule }));
    others
}
