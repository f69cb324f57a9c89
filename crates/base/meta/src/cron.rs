//! Cron schedules: five fields or a macro, read and refused in the words of upstream's parser.

/// When something is due: bits of the values that each field allows, or a fixed interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Fields(Fields),
    /// `@every`: whole seconds, at least one.
    Every(u64),
}

/// Bit N is set where N is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub minutes: u64,
    pub hours: u64,
    pub days: u64,
    pub months: u64,
    /// 0 is Sunday.
    pub weekdays: u64,
    /// The field is `*` or `?`: the other one alone decides. Where both name days, either is enough.
    pub any_day: bool,
    pub any_weekday: bool,
}

struct Bounds {
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

const MACROS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Takes a leading `TZ=ZONE` or `CRON_TZ=ZONE` off a schedule. Objects may have it from before `spec.timeZone`.
pub fn split_zone(text: &str) -> (Option<&str>, &str) {
    let rest = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
    match rest.and_then(|rest| rest.split_once(' ')) {
        Some((zone, schedule)) => (Some(zone), schedule.trim()),
        None => (None, text),
    }
}

impl Schedule {
    /// Reads a schedule without a zone.
    ///
    /// ```
    /// use meta::cron::Schedule;
    /// assert_eq!(Schedule::parse("@hourly"), Schedule::parse("0 * * * *"));
    /// let error = Schedule::parse("60 * * * *").unwrap_err();
    /// assert_eq!(error, "end of range (60) above maximum (59): 60");
    /// ```
    ///
    /// # Errors
    /// What is wrong with it, as a validation error says it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".to_owned());
        }
        if text.starts_with('@') {
            return Self::parse_macro(text);
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = words[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", words.len(), words.join(" ")));
        };
        let (minutes, _) = field(minutes, &MINUTES)?;
        let (hours, _) = field(hours, &HOURS)?;
        let (days, any_day) = field(days, &DAYS)?;
        let (months, _) = field(months, &MONTHS)?;
        let (weekdays, any_weekday) = field(weekdays, &WEEKDAYS)?;
        Ok(Self::Fields(Fields { minutes, hours, days, months, weekdays, any_day, any_weekday }))
    }

    fn parse_macro(text: &str) -> Result<Self, String> {
        if let Some((_, fields)) = MACROS.iter().find(|(name, _)| *name == text) {
            return Self::parse(fields);
        }
        let Some(duration) = text.strip_prefix("@every ") else {
            return Err(format!("unrecognized descriptor: {text}"));
        };
        match go_duration(duration) {
            Ok(nanos) => Ok(Self::Every(u64::try_from(nanos / 1_000_000_000).unwrap_or(0).max(1))),
            Err(why) => Err(format!("failed to parse duration {text}: {why}")),
        }
    }
}

/// The bits of a field and whether it allows everything by a star.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut star) = (0, false);
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (more, any) = range_bits(range, bounds)?;
        bits |= more;
        star |= any;
    }
    Ok((bits, star))
}

/// `*`, `N`, `N-M`, each with `/STEP`.
fn range_bits(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let star = ends[0] == "*" || ends[0] == "?";
    let (start, mut end) = if star {
        (bounds.min, bounds.max)
    } else {
        let start = value(ends[0], bounds)?;
        match ends[..] {
            [_] => (start, start),
            [_, end] => (start, value(end, bounds)?),
            _ => return Err(format!("too many hyphens: {text}")),
        }
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            if ends.len() == 1 {
                end = bounds.max;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let stride = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (start..=end).step_by(stride).fold(0, |bits, value| bits | 1 << value);
    Ok((bits, star && step == 1))
}

fn value(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let named = bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    match named.and_then(|position| u64::try_from(position).ok()) {
        Some(position) => Ok(position + bounds.min),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"));
    }
    let Ok(number) = text.parse::<i64>() else {
        return Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: value out of range"));
    };
    u64::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

/// Nanoseconds of a duration as Go writes it: `1h30m`, `-1.5s`.
pub fn go_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        let amount: f64 = digits.parse().map_err(|_| invalid())?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += amount * scale;
        rest = after;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    let nanos = if total < i64::MAX as f64 { total as i64 } else { return Err(invalid()) };
    Ok(if negative { -nanos } else { nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(text: &str, bounds: &Bounds) -> Vec<u64> {
        let (bits, _) = field(text, bounds).unwrap();
        (0..64).filter(|bit| bits & (1 << bit) != 0).collect()
    }

    #[test]
    fn fields_allow_what_they_say() {
        assert_eq!(bits("*/15", &MINUTES), [0, 15, 30, 45]);
        assert_eq!(bits("5", &MINUTES), [5]);
        assert_eq!(bits("50/4", &MINUTES), [50, 54, 58]);
        assert_eq!(bits("1-5,22-23", &HOURS), [1, 2, 3, 4, 5, 22, 23]);
        assert_eq!(bits("MON-fri/2", &WEEKDAYS), [1, 3, 5]);
        assert_eq!(bits("jan,DEC", &MONTHS), [1, 12]);
        assert_eq!(bits("?", &WEEKDAYS).len(), 7);
        assert_eq!(Schedule::parse("@every 1h30m"), Ok(Schedule::Every(5400)));
        assert_eq!(Schedule::parse("@every 10ms"), Ok(Schedule::Every(1)));
        assert_eq!(Schedule::parse("@weekly"), Schedule::parse("0 0 * * SUN"));
    }

    #[test]
    fn refusals_are_upstreams() {
        for (text, why) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("error", "expected exactly 5 fields, found 1: [error]"),
            ("@often", "unrecognized descriptor: @often"),
            ("* 24 * * *", "end of range (24) above maximum (23): 24"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("* * * * sunday", "failed to parse int from sunday: strconv.Atoi: parsing \"sunday\": invalid syntax"),
            ("@every 1x", "failed to parse duration @every 1x: time: unknown unit \"x\" in duration \"1x\""),
            ("@every ", "failed to parse duration @every : time: invalid duration \"\""),
        ] {
            assert_eq!(Schedule::parse(text), Err(why.to_owned()));
        }
    }
}
