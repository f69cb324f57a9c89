//! networking.k8s.io/v1 ServiceCIDR: a range that service addresses come from.

use meta::{FieldError, FieldErrors, FieldPath};
use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{list, set};
use crate::kind::{Column, Kind};
use crate::rules;

pub fn kind() -> Kind {
    Kind {
        has_status: true,
        columns: vec![columns::name(), Column::new("CIDRs", "string", "The ranges.", |o, _| ranges(o)), columns::age()]
            .into(),
        prepare_create: |o| set(o, "status", json!({})),
        validate,
        validate_update,
        ..Kind::cluster(V1, "ServiceCIDR", "servicecidrs")
    }
}

fn ranges(object: &Value) -> Value {
    list(object, "spec.cidrs").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",").into()
}

fn validate(cidr: &Value) -> FieldErrors {
    let (ranges, path) = (list(cidr, "spec.cidrs"), FieldPath::new("spec").child("cidrs"));
    let family = |range: &Value| range.as_str().filter(|text| rules::is_cidr(text)).map(|text| text.contains(':'));
    match ranges {
        [] => return vec![FieldError::required(&path, "at least one CIDR required")],
        [_, _, _, ..] => return vec![FieldError::invalid(&path, ranges, "may only hold up to 2 values")],
        _ => {}
    }
    let wrong = ranges.iter().enumerate().filter(|(_, range)| family(range).is_none());
    let mut errors: FieldErrors =
        wrong.map(|(at, range)| FieldError::invalid(&path.index(at), range.clone(), rules::CIDR)).collect();
    if let [first, second] = ranges
        && family(first).is_some()
        && family(first) == family(second)
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(&path, ranges, why));
    }
    errors
}

/// A range stays; a second one, of the other family, may join it.
fn validate_update(new: &Value, old: &Value) -> FieldErrors {
    let (new, old) = (list(new, "spec.cidrs"), list(old, "spec.cidrs"));
    let path = FieldPath::new("spec").child("cidrs");
    let mut errors = Vec::new();
    if new.len() == old.len() || (old.len() == 1 && new.len() == 2) {
        for (at, (new, old)) in new.iter().zip(old).enumerate() {
            rules::immutable(&mut errors, new, old, &path.index(at));
        }
    } else {
        rules::immutable(&mut errors, &json!(new), &json!(old), &path);
    }
    errors
}
