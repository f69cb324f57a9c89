//! The named formats of strings that a custom resource's schema may ask for.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// Formats that are checked; others are accepted with a warning and mean nothing.
pub(super) const KNOWN: [&str; 25] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8s-short-name",
];

macro_rules! patterns {
    ($($name:ident $pattern:literal)*) => {
        $(static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($pattern).ok());)*
    };
}

patterns! {
    BSON r"^[0-9a-f]{24}$"
    URI r"^([A-Za-z][A-Za-z0-9+.-]*:|/)\S*$"
    EMAIL r"^[^@\s]+@[^@\s]+$"
    HOSTNAME r"^[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62})(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62}))*\.?$"
    MAC r"^([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2}[:-]){0,14}[0-9a-fA-F]{2}$|^([0-9a-fA-F]{4}\.){2,9}[0-9a-fA-F]{4}$"
    UUID r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"
    UUID3 r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"
    UUID4 r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"
    UUID5 r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"
    CARD r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$"
    SSN r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"
    HEX_COLOR r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"
    RGB_COLOR r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$"
    DURATION r"^[+-]?((\d+(\.\d*)?|\.\d+)\s*(ns|nanosecond|nanoseconds|us|µs|μs|micro|micros|microsecond|microseconds|ms|milli|millis|millisecond|milliseconds|s|sec|secs|second|seconds|m|min|mins|minute|minutes|h|hr|hour|hours|d|day|days|w|wk|week|weeks)\s*)+$|^0$"
    DATE r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"
}

fn fits(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
}

/// The format's name as it is looked up: dashes do not count.
pub(super) fn normalized(format: &str) -> String {
    if format.starts_with("k8s-") { format.to_owned() } else { format.replace('-', "") }
}

/// Whether a text has a format; every text has one that is not known.
pub(super) fn matches(format: &str, text: &str) -> bool {
    match normalized(format).as_str() {
        "bsonobjectid" => fits(&BSON, text),
        "uri" => fits(&URI, text),
        "email" => fits(&EMAIL, text),
        "hostname" => text.len() <= 255 && fits(&HOSTNAME, text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => fits(&MAC, text),
        "uuid" => fits(&UUID, text),
        "uuid3" => fits(&UUID3, text),
        "uuid4" => fits(&UUID4, text),
        "uuid5" => fits(&UUID5, text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_card(text),
        "ssn" => fits(&SSN, text),
        "hexcolor" => fits(&HEX_COLOR, text),
        "rgbcolor" => fits(&RGB_COLOR, text),
        "byte" => is_base64(text),
        "date" => fits(&DATE, text),
        "duration" => fits(&DURATION, text),
        "datetime" => meta::time::parse_micros(text).is_some(),
        "k8s-short-name" => meta::names::dns_label(text).is_empty(),
        "k8s-long-name" => meta::names::dns_subdomain(text).is_empty(),
        _ => true,
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let bits = bits.parse::<u8>().unwrap_or(u8::MAX);
    address.parse::<Ipv4Addr>().is_ok() && bits <= 32 || address.parse::<Ipv6Addr>().is_ok() && bits <= 128
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_digit(10).unwrap_or(10)).collect()
}

fn is_isbn10(text: &str) -> bool {
    let compact: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let [head @ .., last] = compact.as_slice() else { return false };
    let sum: Option<u32> = head.iter().zip(1..).map(|(c, at)| c.to_digit(10).map(|digit| digit * at)).sum();
    let last = if *last == 'X' { Some(10) } else { last.to_digit(10) };
    head.len() == 9 && sum.zip(last).is_some_and(|(sum, last)| (sum + last * 10).is_multiple_of(11))
}

fn is_isbn13(text: &str) -> bool {
    let digits = digits(text);
    let sum: u32 = digits.iter().enumerate().map(|(at, digit)| digit * if at % 2 == 0 { 1 } else { 3 }).sum();
    digits.len() == 13 && digits.iter().all(|digit| *digit < 10) && sum.is_multiple_of(10)
}

/// A card number by its issuer's form and its check digit.
fn is_card(text: &str) -> bool {
    let compact: String = text.chars().filter(char::is_ascii_digit).collect();
    let doubled = |(at, digit): (usize, u32)| match (at % 2, digit * 2) {
        (0, _) => digit,
        (_, twice) if twice > 9 => twice - 9,
        (_, twice) => twice,
    };
    let sum: u32 = compact.chars().rev().filter_map(|c| c.to_digit(10)).enumerate().map(doubled).sum();
    fits(&CARD, &compact) && sum.is_multiple_of(10)
}
