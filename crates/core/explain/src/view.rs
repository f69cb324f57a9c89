//! Reading objects and events that are plain JSON.

use serde_json::Value;

/// Longest text that is shown of one event, condition or log line, in characters.
const SHOWN_MAX: usize = 400;

/// The text at a path, or nothing.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn number(value: &Value, path: &str) -> Option<i64> {
    value.pointer(path).and_then(Value::as_i64)
}

pub fn flag(value: &Value, path: &str) -> bool {
    value.pointer(path).and_then(Value::as_bool).unwrap_or(false)
}

pub fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub fn texts(value: &Value, path: &str) -> Vec<String> {
    list(value, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `key=value` of each entry of a map.
pub fn pairs(value: &Value, path: &str) -> Vec<String> {
    let map = value.pointer(path).and_then(Value::as_object);
    map.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect()
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub fn is_being_deleted(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Seconds since the time at a path; negative when it is still to come.
pub fn since(object: &Value, path: &str, now: i64) -> Option<i64> {
    meta::time::parse_seconds(text(object, path)).map(|then| now - then)
}

pub fn duration(seconds: i64) -> String {
    meta::time::human_duration(seconds.max(0))
}

/// The condition of this type, whatever its status.
pub fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == type_)
}

/// The condition of this type when it has this status.
pub fn condition_is<'a>(object: &'a Value, type_: &str, status: &str) -> Option<&'a Value> {
    condition(object, type_).filter(|condition| text(condition, "/status") == status)
}

/// `condition Ready=False (KubeletNotReady): message`.
pub fn condition_line(condition: &Value) -> String {
    let (reason, message) = (text(condition, "/reason"), short(text(condition, "/message")));
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("condition {}={}{reason}{message}", text(condition, "/type"), text(condition, "/status"))
}

/// When an event was last seen, as text that sorts.
fn last_seen(event: &Value) -> &str {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/firstTimestamp", "/metadata/creationTimestamp"]
        .into_iter()
        .map(|path| text(event, path))
        .find(|time| !time.is_empty())
        .unwrap_or_default()
}

/// The newest event of this reason.
pub fn event<'a>(events: &'a [Value], reason: &str) -> Option<&'a Value> {
    event_where(events, reason, |_| true)
}

pub fn event_where<'a>(events: &'a [Value], reason: &str, wanted: impl Fn(&str) -> bool) -> Option<&'a Value> {
    let of_reason = events.iter().filter(|event| text(event, "/reason") == reason);
    of_reason.filter(|event| wanted(text(event, "/message"))).max_by_key(|event| last_seen(event))
}

/// `event BackOff (x5): message`.
pub fn event_line(event: &Value) -> String {
    let count = number(event, "/series/count").or_else(|| number(event, "/count")).unwrap_or(1);
    let times = if count > 1 { format!(" (x{count})") } else { String::new() };
    format!("event {}{times}: {}", text(event, "/reason"), short(text(event, "/message")))
}

/// One line, not longer than is read at a glance.
pub fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN_MAX {
        return line;
    }
    line.chars().take(SHOWN_MAX).chain("...".chars()).collect()
}

/// What `kubectl` calls the object that a pod is changed through: its Deployment rather than its ReplicaSet.
pub fn changed_through(pod: &Value) -> Option<String> {
    let owner = list(pod, "/metadata/ownerReferences").iter().find(|owner| flag(owner, "/controller"))?;
    let (kind, name) = (text(owner, "/kind"), text(owner, "/name"));
    let hash = text(pod, "/metadata/labels/pod-template-hash");
    match name.strip_suffix(hash).and_then(|name| name.strip_suffix('-')) {
        Some(deployment) if kind == "ReplicaSet" && !hash.is_empty() => Some(format!("deployment/{deployment}")),
        _ => Some(format!("{}/{name}", kind.to_lowercase())),
    }
}

/// An amount as people write it: CPU comes in thousandths, all else in units.
pub fn amount(resource: &str, value: i64) -> String {
    use meta::quantity::{Format, Quantity};
    if resource == "cpu" {
        return Quantity::from_milli(value, Format::DecimalSi).to_string();
    }
    let bytes = resource == "memory" || resource.contains("storage") || resource.starts_with("hugepages-");
    if !bytes {
        return value.to_string();
    }
    for (unit, suffix) in [(1i64 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")] {
        if value >= unit {
            // One digit behind the point, cut and not rounded: what is free is never overstated.
            let tenths = i128::from(value) * 10 / i128::from(unit);
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if tenth == 0 { format!("{whole}{suffix}") } else { format!("{whole}.{tenth}{suffix}") };
        }
    }
    value.to_string()
}
