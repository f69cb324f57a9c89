//! v1 LimitRange: default, least and most resources per container, pod or claim of a namespace.

use std::collections::{BTreeMap, BTreeSet};

use meta::quantity::Quantity;
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use super::pod_defaults::default_resource_list;
use super::{V1, resource_rules};
use crate::columns;
use crate::json::{child, ensure, fill, has, items, list, map, text};
use crate::kind::{Column, Kind, texts};
use crate::rules;

pub fn kind() -> Kind {
    Kind {
        short_names: texts(&["limits"]),
        columns: vec![
            columns::name(),
            Column::new("Created At", "date", "When it was made.", |o, _| o["metadata"]["creationTimestamp"].clone()),
        ]
        .into(),
        default,
        validate,
        ..Kind::namespaced(V1, "LimitRange", "limitranges")
    }
}

/// A container's default limit is the maximum, its default request the default limit or the minimum.
fn default(range: &mut Value) {
    let Some(spec) = child(range, "spec") else { return };
    for item in items(spec, "limits") {
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            default_resource_list(item, list);
        }
        if item["type"] == "Container" {
            inherit(item, "default", "max");
            inherit(item, "defaultRequest", "default");
            inherit(item, "defaultRequest", "min");
        }
    }
}

fn inherit(item: &mut Value, to: &str, from: &str) {
    let amounts = map(item, from).cloned().unwrap_or_default();
    let Some(target) = (!amounts.is_empty()).then(|| ensure(item, to)).flatten() else { return };
    for (name, amount) in amounts {
        fill(target, &name, amount);
    }
}

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
/// Amounts beyond this are compared in whole units, as their thousandths do not fit.
const MILLI_VALUE_MAX: i64 = i64::MAX / 1000;

fn validate(range: &Value) -> FieldErrors {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (i, item) in list(range, "spec.limits").iter().enumerate() {
        let path = FieldPath::new("spec").child("limits").index(i);
        let kind = text(item, "type");
        type_name(&mut errors, kind, &path.child("type"));
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(&path.child("type"), kind));
        }
        Bounds::read(&mut errors, item, &path).check(&mut errors, &path);
        let stores = |list: &str| has(item, &format!("{list}.storage"));
        if kind == "PersistentVolumeClaim" && !stores("min") && !stores("max") {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(&path.child("limits"), why));
        }
    }
    errors
}

fn type_name(errors: &mut FieldErrors, kind: &str, path: &FieldPath) {
    let before = errors.len();
    rules::name(errors, path, kind, names::qualified_name);
    if errors.len() == before && !kind.contains('/') && !TYPES.contains(&kind) {
        errors.push(FieldError::invalid(path, kind, "must be a standard limit type or fully qualified"));
    }
}

/// The lists of one item, by the resources they name.
#[derive(Default)]
struct Bounds {
    lists: BTreeMap<&'static str, BTreeMap<String, Quantity>>,
}

impl Bounds {
    fn read(errors: &mut FieldErrors, item: &Value, path: &FieldPath) -> Self {
        let mut bounds = Self::default();
        let kind = text(item, "type");
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            let Some(amounts) = map(item, list).filter(|amounts| !amounts.is_empty()) else { continue };
            if kind == "Pod" && list.starts_with("default") {
                errors.push(FieldError::forbidden(&path.child(list), "may not be specified when `type` is 'Pod'"));
                continue;
            }
            for (name, amount) in amounts {
                let at = path.child(list).key(name);
                if kind == "Pod" || kind == "Container" {
                    resource_rules::container_name(errors, name, &at);
                } else {
                    resource_rules::name(errors, name, &at);
                }
                if let Ok(amount) = Quantity::from_value(amount) {
                    bounds.lists.entry(list).or_default().insert(name.clone(), amount);
                }
            }
        }
        bounds
    }

    fn get(&self, list: &str, name: &str) -> Option<Quantity> {
        self.lists.get(list)?.get(name).copied()
    }

    fn check(&self, errors: &mut FieldErrors, path: &FieldPath) {
        let names: BTreeSet<&String> = self.lists.values().flat_map(BTreeMap::keys).collect();
        for name in names {
            self.check_order(errors, name, path);
            self.check_ratio(errors, name, path);
            let (limit, request) = (self.get("default", name), self.get("defaultRequest", name));
            if let Some((limit, request)) = limit.zip(request).filter(|(limit, request)| limit != request)
                && !resource_rules::overcommits(name)
            {
                let why = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
                errors.push(FieldError::invalid(&path.child("defaultRequest").key(name), request.to_string(), why));
            }
        }
    }

    /// The smaller one of each pair may not be larger.
    fn check_order(&self, errors: &mut FieldErrors, name: &str, path: &FieldPath) {
        // Smaller, larger, their words, where it is reported, and whether the smaller value is shown.
        for (low, high, low_word, high_word, at, shows_low) in [
            ("min", "max", "min", "max", "min", true),
            ("min", "defaultRequest", "min", "default request", "defaultRequest", false),
            ("defaultRequest", "max", "default request", "max", "defaultRequest", true),
            ("defaultRequest", "default", "default request", "default limit", "defaultRequest", true),
            ("min", "default", "min", "default", "default", true),
            ("default", "max", "default", "max", "default", false),
        ] {
            let pair = self.get(low, name).zip(self.get(high, name));
            if let Some((less, more)) = pair.filter(|(less, more)| less > more) {
                let shown = if shows_low { less } else { more };
                let why = format!("{low_word} value {less} is greater than {high_word} value {more}");
                errors.push(FieldError::invalid(&path.child(at).key(name), shown.to_string(), why));
            }
        }
    }

    fn check_ratio(&self, errors: &mut FieldErrors, name: &str, path: &FieldPath) {
        let Some(ratio) = self.get("maxLimitRequestRatio", name) else { return };
        let at = path.child("maxLimitRequestRatio").key(name);
        if ratio.milli_value() < 1000 {
            errors.push(FieldError::invalid(&at, ratio.to_string(), format!("ratio {ratio} is less than 1")));
        }
        let Some((min, max)) = self.get("min", name).zip(self.get("max", name)) else { return };
        let fits = [ratio, min, max].iter().all(|amount| amount.value() < MILLI_VALUE_MAX);
        let value = |amount: Quantity| if fits { amount.milli_value() } else { amount.value() } as f64;
        let most = value(max) / value(min);
        let own = if fits { ratio.milli_value() as f64 / 1000.0 } else { ratio.value() as f64 };
        if own > most {
            let why = format!("ratio {ratio} is greater than max/min = {most:.6}");
            errors.push(FieldError::invalid(&at, ratio.to_string(), why));
        }
    }
}
