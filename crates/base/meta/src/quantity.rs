//! Resource quantities: exact to a billionth, parsed and printed as Kubernetes does, never through a float.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

const NANOS: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;
/// Larger amounts are cut to this one, as upstream does.
const NANOS_MAX: i128 = i64::MAX as i128 * NANOS;
/// Mantissa digits that are kept exactly; more than an amount can have within [`NANOS_MAX`].
const DIGITS_MAX: usize = 20;
/// Powers of ten beyond this one overflow any mantissa.
const POWER_MAX: i64 = 38;
/// A quantity's text is never longer; longer input is refused before it is looked at.
pub const TEXT_BYTES_MAX: usize = 1024;

const DECIMAL_SUFFIXES: [(&str, i64); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Which family of suffixes a quantity is printed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `m`, none, `k`, `M`, ...
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, ...
    BinarySi,
    /// `e3`, `e6`, ...
    DecimalExponent,
}

/// Why a text is no quantity; the message is the one clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount of a resource. Two are equal when the amounts are, whatever they are printed as.
///
/// ```
/// use meta::quantity::Quantity;
/// let half: Quantity = "0.5".parse().unwrap();
/// assert_eq!(half.to_string(), "500m");
/// assert_eq!(half, "500m".parse().unwrap());
/// assert_eq!("1.5Gi".parse::<Quantity>().unwrap().to_string(), "1536Mi");
/// assert_eq!("100m".parse::<Quantity>().unwrap().value(), 1);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The parts of a quantity's text.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: Exponent,
}

enum Exponent {
    Ten(i64, Format),
    Two(u32),
}

impl Exponent {
    fn parse(suffix: &str) -> Result<Self, QuantityError> {
        if let Some((_, power)) = DECIMAL_SUFFIXES.iter().find(|(text, _)| *text == suffix) {
            return Ok(Self::Ten(*power, Format::DecimalSi));
        }
        if let Some((_, power)) = BINARY_SUFFIXES.iter().find(|(text, _)| *text == suffix) {
            return Ok(Self::Two(*power));
        }
        let power = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
        let power: i32 = power.parse().map_err(|_| QuantityError::Suffix)?;
        Ok(Self::Ten(i64::from(power), Format::DecimalExponent))
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(QuantityError::Format);
    }
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = split_digits(unsigned);
    let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(QuantityError::Format);
    }
    let letters = suffix.find(|c| !"eEinumkKMGTP".contains(c)).unwrap_or(suffix.len());
    let power = &suffix[letters..];
    let digits = power.strip_prefix(['-', '+']).unwrap_or(power);
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, whole, fraction, exponent: Exponent::parse(suffix)? })
}

/// `mantissa * 10^ten * 2^two` in nanos, rounded up, cut to the largest amount.
fn scale(mantissa: i128, ten: i64, two: u32, inexact: bool) -> i128 {
    if mantissa == 0 {
        return i128::from(inexact);
    }
    let power = ten.saturating_add(9);
    // 20 digits and 60 bits fit: 10^20 * 2^60 < 2^127.
    let shifted = mantissa << two;
    if power >= 0 {
        let factor = u32::try_from(power.min(POWER_MAX)).ok().and_then(|p| 10_i128.checked_pow(p));
        return factor.and_then(|f| shifted.checked_mul(f)).unwrap_or(NANOS_MAX).min(NANOS_MAX);
    }
    let divisor = u32::try_from(-power).ok().and_then(|p| 10_i128.checked_pow(p));
    let Some(divisor) = divisor else { return 1 };
    let up = i128::from(shifted % divisor != 0 || inexact);
    (shifted / divisor + up).min(NANOS_MAX)
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parts = split(text)?;
        let digits = parts.whole.bytes().chain(parts.fraction.bytes()).skip_while(|&b| b == b'0');
        let (mut mantissa, mut dropped, mut inexact) = (0_i128, 0_i64, false);
        for (i, digit) in digits.enumerate() {
            if i < DIGITS_MAX {
                mantissa = mantissa * 10 + i128::from(digit - b'0');
            } else {
                dropped += 1;
                inexact |= digit != b'0';
            }
        }
        let fraction = i64::try_from(parts.fraction.len()).map_err(|_| QuantityError::Numeric)?;
        let (ten, two, format) = match parts.exponent {
            Exponent::Ten(power, format) => (power, 0, format),
            Exponent::Two(power) => (0, power, Format::BinarySi),
        };
        let nanos = scale(mantissa, ten + dropped - fraction, two, inexact);
        Ok(Self { nanos: if parts.negative { -nanos } else { nanos }, format })
    }
}

fn ceil_away(nanos: i128, unit: i128) -> i64 {
    let up = i128::from(nanos % unit != 0) * nanos.signum();
    i64::try_from(nanos / unit + up).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

impl Quantity {
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANOS, format }
    }

    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self { nanos: i128::from(milli) * NANOS_PER_MILLI, format }
    }

    /// Reads a JSON field: a text, or a bare number as YAML authors write it.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Format),
        }
    }

    /// Rounded up to thousandths, the finest that resource lists keep.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        Self::from_milli(self.milli_value(), self.format)
    }

    /// Whole units, rounded away from zero.
    pub fn value(self) -> i64 {
        ceil_away(self.nanos, NANOS)
    }

    /// Thousandths, rounded away from zero and cut to what 64 bits hold.
    pub fn milli_value(self) -> i64 {
        ceil_away(self.nanos, NANOS_PER_MILLI)
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    pub fn format(self) -> Format {
        self.format
    }

    fn clamp(nanos: i128, format: Format) -> Self {
        Self { nanos: nanos.clamp(-NANOS_MAX, NANOS_MAX), format }
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    /// The sum, printed as the left side is; a zero left side takes the right side's format.
    fn add(self, other: Self) -> Self {
        Self::clamp(self.nanos + other.nanos, if self.is_zero() { other.format } else { self.format })
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self::clamp(self.nanos - other.nanos, if self.is_zero() { other.format } else { self.format })
    }
}

impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.nanos / NANOS;
        if self.format == Format::BinarySi && self.is_whole() && units.abs() >= 1024 {
            return display_binary(units, f);
        }
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let (mut mantissa, mut power) = (self.nanos, -9);
        while mantissa % 1000 == 0 && power < 18 {
            mantissa /= 1000;
            power += 3;
        }
        match (self.format, power) {
            (_, 0) => write!(f, "{mantissa}"),
            (Format::DecimalExponent, power) => write!(f, "{mantissa}e{power}"),
            (_, power) => {
                let suffix = DECIMAL_SUFFIXES.iter().find(|(_, p)| *p == power).map_or("", |(suffix, _)| suffix);
                write!(f, "{mantissa}{suffix}")
            }
        }
    }
}

fn display_binary(mut units: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut suffix = "";
    for (next, _) in BINARY_SUFFIXES {
        if units % 1024 != 0 {
            break;
        }
        units /= 1024;
        suffix = next;
    }
    write!(f, "{units}{suffix}")
}

/// The form in which a quantity is stored. A text that upstream's decoder takes for canonical stays as it was
/// written (`1.500`, `1E3`); any other is printed anew.
///
/// ```
/// use meta::quantity::canonical;
/// assert_eq!(["1.5", "1.500", "1024Ki", "0.5Gi"].map(|q| canonical(q).unwrap()), ["1500m", "1.500", "1Mi", "512Mi"]);
/// ```
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    let parts = split(text)?;
    let quantity: Quantity = text.parse()?;
    let whole = parts.whole.trim_start_matches('0');
    let digits = format!("{}{}", if whole.is_empty() { "0" } else { whole }, parts.fraction);
    let fraction = i64::try_from(parts.fraction.len()).map_err(|_| QuantityError::Numeric)?;
    let kept = match parts.exponent {
        Exponent::Two(power) => {
            let room = 15 - digits.len() as i64 - i64::from(power * 3 / 10) - 1;
            parts.fraction.is_empty() && room >= 0 && digits.parse::<i64>().is_ok_and(|value| value & 7 != 0)
        }
        Exponent::Ten(power, _) => {
            let scale = power - fraction;
            digits.len() <= 18 && scale >= -9 && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
        }
    };
    Ok(if kept { text.to_owned() } else { quantity.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(table: &[(&str, &str)]) {
        for (text, expected) in table {
            let actual = canonical(text).unwrap_or_else(|e| format!("error: {e}"));
            assert_eq!(&actual, expected, "{text}");
        }
    }

    #[test]
    fn canonical_forms_are_upstreams() {
        check(&[
            ("0", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            (".5", "500m"),
            ("2.", "2."),
            ("01", "01"),
            ("+1", "+1"),
            ("0.100", "100m"),
            ("1.000", "1"),
            ("1000Ki", "1000Ki"),
            ("1e3", "1e3"),
            ("1E3", "1E3"),
            ("1000e3", "1e6"),
            ("1E", "1E"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1Ki", "1Ki"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1.1Ki", "1126400m"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("123Mi", "123Mi"),
            ("-100m", "-100m"),
            ("0.0000000001", "1n"),
            ("10000000000000000000000", "9223372036854775807"),
        ]);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        let wrong = format!("error: {}", QuantityError::Format);
        let suffix = format!("error: {}", QuantityError::Suffix);
        for text in ["", "a", "1.1.1", "1 ", " 1", "1+", "--1", "1e", "0x1"] {
            let actual = canonical(text).unwrap_or_else(|e| format!("error: {e}"));
            assert!(actual == wrong || actual == suffix, "{text}: {actual}");
        }
        check(&[("1mi", &suffix), ("1K", &suffix), ("1Kim", &suffix)]);
        assert_eq!(canonical(&"9".repeat(TEXT_BYTES_MAX + 1)), Err(QuantityError::Format));
        assert_eq!(canonical(&"9".repeat(TEXT_BYTES_MAX)), Ok(i64::MAX.to_string()));
    }

    #[test]
    fn arithmetic_is_exact_and_keeps_the_format() {
        let q = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!((q("0.1") + q("0.2")).to_string(), "300m");
        assert_eq!((q("1Gi") - q("1Mi")).to_string(), "1023Mi");
        assert_eq!((q("0") + q("1Ki")).to_string(), "1Ki");
        assert!(q("1000m") == q("1") && q("1Ki") > q("1k"));
        assert_eq!((q("1500m").value(), q("1u").milli_value(), q("-1500m").value()), (2, 1, -2));
    }
}
