//! Validation rules that many kinds share, in upstream's words.

use std::net::IpAddr;

use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use crate::json::is_empty;

pub const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const LOOPBACK: &str = "may not be in the loopback range (127.0.0.0/8, ::1/128)";

/// Each sentence of a name check, as an error about the field.
pub fn name(errors: &mut FieldErrors, path: &FieldPath, value: &str, check: fn(&str) -> Vec<String>) {
    errors.extend(check(value).into_iter().map(|why| FieldError::invalid(path, value, why)));
}

/// The same for a name that must be there.
pub fn required_name(errors: &mut FieldErrors, path: &FieldPath, value: &str, check: fn(&str) -> Vec<String>) {
    if value.is_empty() { errors.push(FieldError::required(path, "")) } else { name(errors, path, value, check) }
}

pub fn required(errors: &mut FieldErrors, parent: &Value, path: &FieldPath, key: &str) {
    if is_empty(&parent[key]) {
        errors.push(FieldError::required(&path.child(key), ""));
    }
}

pub fn not_negative(errors: &mut FieldErrors, parent: &Value, path: &FieldPath, key: &str) {
    if let Some(number) = parent[key].as_i64().filter(|number| *number < 0) {
        errors.push(FieldError::invalid(&path.child(key), number, NOT_NEGATIVE));
    }
}

/// A field that must be one of a few words; absent is fine.
pub fn one_of(errors: &mut FieldErrors, parent: &Value, path: &FieldPath, key: &str, words: &[&str]) {
    match parent[key].as_str() {
        Some(word) if !words.contains(&word) => {
            errors.push(FieldError::not_supported(&path.child(key), word, words));
        }
        _ => {}
    }
}

/// A port as a number, or by name.
pub fn port_or_name(errors: &mut FieldErrors, path: &FieldPath, value: &Value) {
    match value {
        Value::String(port) => name(errors, path, port, names::port_name),
        port => number_port(errors, path, port.as_i64().unwrap_or_default()),
    }
}

pub fn number_port(errors: &mut FieldErrors, path: &FieldPath, port: i64) {
    errors.extend(names::port_number(port).into_iter().map(|why| FieldError::invalid(path, port, why)));
}

pub fn ip(errors: &mut FieldErrors, path: &FieldPath, value: &str) -> Option<IpAddr> {
    let parsed = value.parse().ok();
    if parsed.is_none() {
        errors.push(FieldError::invalid(path, value, IP));
    }
    parsed
}

/// An address that other machines can reach: neither unspecified, loopback, link-local nor multicast.
pub fn endpoint_ip(errors: &mut FieldErrors, path: &FieldPath, value: &str) {
    let Some(ip) = ip(errors, path, value) else { return };
    let mut refuse = |why: &str| errors.push(FieldError::invalid(path, value, why));
    if ip.is_unspecified() {
        refuse(&format!("may not be unspecified ({value})"));
    }
    if ip.is_loopback() {
        refuse(LOOPBACK);
    }
    match ip {
        IpAddr::V4(ip) if ip.is_link_local() => {
            refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
        }
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
        }
        ip if ip.is_multicast() => refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        _ => {}
    }
}

/// A field that may not change: the whole new value is shown.
pub fn immutable(errors: &mut FieldErrors, new: &Value, old: &Value, path: &FieldPath) {
    if new != old {
        errors.push(FieldError::invalid(path, new.clone(), "field is immutable"));
    }
}

/// Whether a text is an address block: `10.0.0.0/8`.
pub fn is_cidr(value: &str) -> bool {
    cidr(value).is_some()
}

/// Address and prefix length of an address block.
pub fn cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = value.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let prefix = prefix.parse().ok().filter(|prefix| u32::from(*prefix) <= width(ip))?;
    Some((ip, prefix))
}

fn width(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Whether `inner` lies in `outer` and is smaller.
pub fn is_strict_subset(inner: (IpAddr, u8), outer: (IpAddr, u8)) -> bool {
    let network = |ip: IpAddr| {
        let bits = match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        bits.checked_shr(width(ip) - u32::from(outer.1)).unwrap_or(0)
    };
    inner.0.is_ipv4() == outer.0.is_ipv4() && inner.1 > outer.1 && network(inner.0) == network(outer.0)
}
