//! Times as the API writes them (RFC 3339 in seconds or microseconds) and ages as kubectl shows them.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// Seconds since the epoch as `2026-11-21T14:00:00Z`, the form of `metav1.Time`. Out of range answers the epoch.
///
/// ```
/// assert_eq!(meta::time::format_seconds(0), "1970-01-01T00:00:00Z");
/// ```
pub fn format_seconds(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Microseconds since the epoch as `2026-11-21T14:00:00.000000Z`, the form of `metav1.MicroTime`.
pub fn format_micros(micros: i64) -> String {
    Timestamp::from_microsecond(micros).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Seconds since the epoch of an RFC 3339 time, a fraction cut off; `None` where it is none.
pub fn parse_seconds(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(|t| t.as_second())
}

/// Microseconds since the epoch of an RFC 3339 time.
pub fn parse_micros(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(|t| t.as_microsecond())
}

fn two(value: i64, unit: &str, rest: i64, rest_unit: &str) -> String {
    if rest == 0 { format!("{value}{unit}") } else { format!("{value}{unit}{rest}{rest_unit}") }
}

/// A duration in two or three significant figures, as kubectl's AGE columns write it.
///
/// ```
/// use meta::time::human_duration;
/// assert_eq!([human_duration(119), human_duration(125), human_duration(200_000)], ["119s", "2m5s", "2d7h"]);
/// ```
pub fn human_duration(seconds: i64) -> String {
    match seconds {
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}
