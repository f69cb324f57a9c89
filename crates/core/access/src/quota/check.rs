//! One write against the quotas of its namespace, and the count of what a quota's namespace uses.

use serde_json::{Value, json};

use super::amounts::{self, Amounts};
use super::evaluator::Evaluator;
use crate::admission::json::text;

/// A quota as the controller last confirmed it: only what its status states is enforced.
#[derive(Clone, Debug)]
pub struct Quota {
    pub name: String,
    pub spec: Value,
    pub hard: Amounts,
    pub used: Amounts,
}

impl Quota {
    pub fn read(quota: &Value) -> Self {
        let status = &quota["status"];
        Self {
            name: text(&quota["metadata"], "name").to_owned(),
            spec: quota["spec"].clone(),
            hard: amounts::read(&status["hard"]),
            used: amounts::read(&status["used"]),
        }
    }
}

/// A create or update that quotas may count.
pub struct Change<'a> {
    pub evaluator: &'a Evaluator,
    pub subresource: &'a str,
    pub object: &'a Value,
    /// None on create.
    pub old: Option<&'a Value>,
    /// Seconds since the epoch.
    pub now: i64,
}

/// The new `used` of each quota that is charged, by its place in the list.
///
/// # Errors
/// Why the write is refused, in upstream's words; nothing may be charged then.
pub fn check(quotas: &[Quota], change: &Change<'_>) -> Result<Vec<(usize, Amounts)>, String> {
    let (evaluator, object) = (change.evaluator, change.object);
    let mut counting = Vec::new();
    for (i, quota) in quotas.iter().enumerate() {
        let counted = evaluator.counted(&quota.hard);
        if counted.is_empty() || !evaluator.in_scope(&quota.spec, object) {
            continue;
        }
        if let Some(missing) = evaluator.missing(&counted, object) {
            return Err(format!("failed quota: {}: {missing}", quota.name));
        }
        if counted.iter().any(|name| !quota.used.contains_key(*name)) {
            let names: Vec<&str> = counted.iter().map(|name| name.as_str()).collect();
            return Err(format!("status unknown for quota: {}, resources: {}", quota.name, names.join(",")));
        }
        counting.push((i, quota));
    }
    let usage = evaluator.usage(object, change.now);
    let negative: Vec<&str> =
        usage.iter().filter(|(_, amount)| amount.is_negative()).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    let mut charged = Vec::new();
    for (i, quota) in counting {
        let counted_before = change.old.filter(|old| evaluator.in_scope(&quota.spec, old));
        let before = counted_before.map(|old| evaluator.usage(old, change.now)).unwrap_or_default();
        let requested = amounts::only(&amounts::growth(&usage, &before), quota.hard.keys());
        if requested.is_empty() {
            continue;
        }
        charged.push((i, charge(quota, &requested, change.subresource == "status")?));
    }
    Ok(charged)
}

fn charge(quota: &Quota, requested: &Amounts, is_status: bool) -> Result<Amounts, String> {
    let mut used = quota.used.clone();
    amounts::add(&mut used, requested);
    let over = |name: &&String| used.get(*name).zip(quota.hard.get(*name)).is_some_and(|(used, hard)| used > hard);
    let exceeded: Vec<&String> = requested.keys().filter(over).collect();
    // What a status reports has happened: it is counted, not refused.
    if exceeded.is_empty() || is_status {
        return Ok(used);
    }
    let part = |amounts: &Amounts| amounts::text(&amounts::only(amounts, exceeded.iter().copied()));
    Err(format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        quota.name,
        part(requested),
        part(&quota.used),
        part(&quota.hard)
    ))
}

/// What the quota's status should say: its limits, and what `objects` of each counted resource use of them.
/// A limit that nothing counts keeps the use that it had.
pub fn recount<'a, O>(quota: &Value, counted: impl IntoIterator<Item = (Evaluator, O)>, now: i64) -> (Amounts, Amounts)
where
    O: IntoIterator<Item = &'a Value>,
{
    let hard = amounts::read(&quota["spec"]["hard"]);
    let mut used = amounts::only(&amounts::read(&quota["status"]["used"]), hard.keys());
    let mut fresh = Amounts::new();
    for (evaluator, objects) in counted {
        let names = evaluator.counted(&hard);
        fresh.extend(names.iter().map(|name| ((*name).clone(), amounts::count(0))));
        for object in objects.into_iter().filter(|object| evaluator.in_scope(&quota["spec"], object)) {
            amounts::add(&mut fresh, &amounts::only(&evaluator.usage(object, now), names.iter().copied()));
        }
    }
    used.extend(fresh);
    (hard, used)
}

/// The status to write for a recount; `None` when the quota states it already.
pub fn correction(quota: &Value, hard: &Amounts, used: &Amounts) -> Option<Value> {
    let status = &quota["status"];
    let known = status["hard"].is_object() && status["used"].is_object();
    let same = known && amounts::read(&status["hard"]) == *hard && amounts::read(&status["used"]) == *used;
    (!same).then(|| json!({ "hard": quota["spec"]["hard"], "used": amounts::write(used) }))
}

/// Whether a recount found less than the quota states. That is believed only of caches that are newer than the last
/// charge: others may not show yet what was charged.
pub fn gives_back(quota: &Value, used: &Amounts) -> bool {
    let stated = amounts::read(&quota["status"]["used"]);
    used.iter().any(|(name, amount)| stated.get(name).is_some_and(|stated| amount < stated))
}
