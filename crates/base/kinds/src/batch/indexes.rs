//! The text form of completion indexes (`1,3-5`), as validation checks it.

/// How many indexes the text names.
///
/// # Errors
/// What is wrong with it: no number, not rising, or not below `completions`.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval_of(interval, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both texts name; intervals that cannot be read are left out.
pub fn overlap(one: &str, other: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|interval| interval_of(interval, completions).ok()).collect()
    };
    let (one, other) = (read(one), read(other));
    let (mut a, mut b) = (0, 0);
    while let (Some(x), Some(y)) = (one.get(a), other.get(b)) {
        if x.0 <= y.1 && y.0 <= x.1 {
            return Some(x.0.max(y.0));
        }
        if x.0 <= y.0 {
            a += 1;
        } else {
            b += 1;
        }
    }
    None
}

fn interval_of(interval: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = interval.split('-').collect();
    if parts.len() > 2 {
        let why = "violates the requirement that an index interval can have at most two parts separated by '-'";
        return Err(format!("the fragment {interval:?} {why}"));
    }
    let first = index(parts[0], completions)?;
    let Some(last) = parts.get(1) else { return Ok((first, first)) };
    let last = index(last, completions)?;
    if first >= last {
        return Err(format!("non-increasing order, previous: {first}, current: {last}"));
    }
    Ok((first, last))
}

fn index(text: &str, completions: i64) -> Result<i64, String> {
    let index = text.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
    if index >= completions { Err(format!("too large index: {text:?}")) } else { Ok(index) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_counted_or_refused() {
        assert_eq!([count("", 5), count("0,2-4", 5)], [Ok(0), Ok(4)]);
        for (text, why) in [
            ("a", "cannot convert string to integer for index: \"a\""),
            (
                "1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
            ("5", "too large index: \"5\""),
            ("3-1", "non-increasing order, previous: 3, current: 1"),
            ("1,1", "non-increasing order, previous: 1, current: 1"),
            ("1,", "cannot convert string to integer for index: \"\""),
        ] {
            assert_eq!(count(text, 5), Err(why.to_owned()));
        }
        assert_eq!([overlap("0,2-4", "3", 9), overlap("0,2-4", "1,5", 9), overlap("", "1", 9)], [Some(3), None, None]);
    }
}
