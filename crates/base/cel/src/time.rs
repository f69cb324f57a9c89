//! Timestamps and durations as texts, and the parts of a timestamp.

use jiff::tz::{Offset, TimeZone};

const NANOS: i64 = 1_000_000_000;
/// Units of a duration and their nanoseconds, longer names first.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS),
    ("m", 60 * NANOS),
    ("h", 3600 * NANOS),
];

/// RFC 3339.
pub fn timestamp(text: &str) -> Option<jiff::Timestamp> {
    let has_zone = text.ends_with(['Z', 'z']) || text.get(10..)?.contains(['+', '-']);
    (has_zone && text.len() >= 20).then(|| text.parse().ok()).flatten()
}

/// A day, as schemas have them, at its start.
pub fn date(text: &str) -> Option<jiff::Timestamp> {
    let day: jiff::civil::Date = (text.len() == 10).then(|| text.parse().ok()).flatten()?;
    day.to_zoned(TimeZone::UTC).ok().map(|start| start.timestamp())
}

pub fn show_timestamp(at: jiff::Timestamp) -> String {
    at.to_string()
}

/// As Go reads one: `1h30m`, `1.5s`.
pub fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == &after[..unit_end])?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total += whole.checked_mul(i128::from(*nanos))?;
        let mut scale = i128::from(*nanos);
        for digit in part.chars() {
            scale /= 10;
            total += scale * i128::from(digit.to_digit(10)?);
        }
        rest = &after[unit_end..];
    }
    i64::try_from(total * sign).ok()
}

/// Seconds, as protobuf writes durations.
pub fn show_duration(nanos: i64) -> String {
    let (seconds, part) = (nanos / NANOS, (nanos % NANOS).abs());
    let sign = if nanos < 0 && seconds == 0 { "-" } else { "" };
    if part == 0 {
        return format!("{seconds}s");
    }
    let part = format!("{part:09}");
    format!("{sign}{seconds}.{}s", part.trim_end_matches('0'))
}

/// A part of a timestamp in a time zone: a name, or an offset such as `-07:00`.
pub fn part(at: jiff::Timestamp, zone: &str, what: &str) -> Option<i64> {
    let local = at.to_zoned(zone_of(zone)?);
    Some(match what {
        "getFullYear" => i64::from(local.year()),
        "getMonth" => i64::from(local.month()) - 1,
        "getDayOfYear" => i64::from(local.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(local.day()) - 1,
        "getDate" => i64::from(local.day()),
        "getDayOfWeek" => i64::from(local.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(local.hour()),
        "getMinutes" => i64::from(local.minute()),
        "getSeconds" => i64::from(local.second()),
        _ => i64::from(local.millisecond()),
    })
}

fn zone_of(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (sign, digits) = match name.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, name.strip_prefix('+').unwrap_or(name)),
    };
    match digits.split_once(':') {
        Some((hours, minutes)) => {
            let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
            let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
            Some(TimeZone::fixed(offset))
        }
        None => TimeZone::get(name).ok(),
    }
}
