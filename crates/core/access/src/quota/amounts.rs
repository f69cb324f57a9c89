//! Lists of resources with exact amounts: what a pod asks for, what a quota allows.

use std::collections::BTreeMap;

use meta::quantity::{Format, Quantity};
use serde_json::{Map, Value};

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a resource list; what is no quantity is left out.
pub fn read(list: &Value) -> Amounts {
    let fields = list.as_object().into_iter().flatten();
    fields.filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
}

/// The list as it is written to an object.
pub fn write(amounts: &Amounts) -> Value {
    let fields: Map<String, Value> =
        amounts.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    Value::Object(fields)
}

/// A count of objects.
pub fn count(number: usize) -> Quantity {
    Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX), Format::DecimalSi)
}

pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let total = sum.get(name).map_or(*amount, |known| *known + *amount);
        sum.insert(name.clone(), total);
    }
}

/// Keeps the larger of both for every resource.
pub fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if most.get(name).is_none_or(|known| known < amount) {
            most.insert(name.clone(), *amount);
        }
    }
}

/// What `new` has more than `old`; nothing becomes negative.
pub fn growth(new: &Amounts, old: &Amounts) -> Amounts {
    let more = |(name, amount): (&String, &Quantity)| {
        let rest = old.get(name).map_or(*amount, |before| *amount - *before);
        (!rest.is_negative() && !rest.is_zero()).then(|| (name.clone(), rest))
    };
    new.iter().filter_map(more).collect()
}

/// The part of a list that names these resources.
pub fn only<'a>(amounts: &Amounts, names: impl IntoIterator<Item = &'a String>) -> Amounts {
    names.into_iter().filter_map(|name| Some((name.clone(), *amounts.get(name)?))).collect()
}

/// `cpu=1,memory=1Gi`, as upstream's refusals print it.
pub fn text(amounts: &Amounts) -> String {
    let parts: Vec<String> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    parts.join(",")
}
