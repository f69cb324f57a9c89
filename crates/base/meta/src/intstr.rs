//! Fields that hold a number or a percentage: `maxUnavailable: 25%`.

use serde_json::Value;

/// The number, or the percentage of `total` rounded up or down; `None` where the value is neither.
///
/// ```
/// use serde_json::json;
/// assert_eq!(meta::intstr::scaled(&json!("25%"), 10, true), Some(3));
/// assert_eq!(meta::intstr::scaled(&json!("25%"), 10, false), Some(2));
/// assert_eq!(meta::intstr::scaled(&json!(4), 10, false), Some(4));
/// ```
pub fn scaled(value: &Value, total: i64, round_up: bool) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(_) => {
            let product = percent(value)?.checked_mul(total)?;
            Some(if round_up {
                product.div_euclid(100) + i64::from(product.rem_euclid(100) != 0)
            } else {
                product.div_euclid(100)
            })
        }
        _ => None,
    }
}

/// The percentage that a value states, without the sign: `25` of `25%`.
pub fn percent(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}
