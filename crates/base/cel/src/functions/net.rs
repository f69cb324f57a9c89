//! Addresses, address blocks and URLs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{texts, unknown};
use crate::eval::{Evaluated, fail};
use crate::value::{Library, Url, Value};

/// An address as Kubernetes accepts one: no zone, no IPv4 within IPv6.
fn ip(text: &str) -> Option<IpAddr> {
    let found: IpAddr = text.parse().ok()?;
    let mapped = matches!(found, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!mapped).then_some(found)
}

fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address = ip(address)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix: u8 = prefix.parse().ok().filter(|prefix| digits && *prefix <= width)?;
    Some((address, prefix))
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

/// The network part of an address.
fn network(address: IpAddr, prefix: u8) -> u128 {
    let (number, width) = bits(address);
    let host = width - u32::from(prefix).min(width);
    number.checked_shr(host).map_or(0, |number| number.checked_shl(host).unwrap_or(0))
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let number = network(address, prefix);
    match address {
        #[allow(clippy::cast_possible_truncation)]
        IpAddr::V4(_) => IpAddr::V4((number as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

/// An absolute URL, or an absolute path.
pub fn url(text: &str) -> Option<Url> {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return None;
    }
    let before = text.split('#').next().unwrap_or_default();
    let (rest, query) = before.split_once('?').unwrap_or((before, ""));
    let (scheme, host, path) = match rest.split_once("://") {
        Some((scheme, rest)) => {
            let known = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
            if !known {
                return None;
            }
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            (scheme, authority.rsplit_once('@').map_or(authority, |(_, host)| host), path)
        }
        None if rest.starts_with('/') => ("", "", rest),
        None => return None,
    };
    if host.rsplit_once(':').is_some_and(|(name, port)| {
        (!name.contains(':') || name.ends_with(']')) && !port.bytes().all(|byte| byte.is_ascii_digit())
    }) {
        return None;
    }
    let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.entry(decoded(key)).or_default().push(decoded(value));
    }
    Some(Url {
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: pairs,
        text: text.to_owned(),
    })
}

/// Undoes percent signs and plus signs of a query.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (*first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn function<'a>(name: &str, text: &str) -> Evaluated<'a> {
    match name {
        "ip" => match ip(text) {
            Some(found) => Ok(Value::library(Library::Ip(found))),
            None => fail(format!(
                "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
            )),
        },
        "isIP" => Ok(Value::Bool(ip(text).is_some())),
        "ip.isCanonical" => match ip(text) {
            Some(found) => Ok(Value::Bool(found.to_string() == text)),
            None => fail(format!(
                "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
            )),
        },
        "cidr" => match cidr(text) {
            Some((address, prefix)) => Ok(Value::library(Library::Cidr(address, prefix))),
            None => fail(format!(
                "network address parse error during conversion from string: netip.ParsePrefix({text:?}): no '/'"
            )),
        },
        "isCIDR" => Ok(Value::Bool(cidr(text).is_some())),
        "url" => match url(text) {
            Some(found) => Ok(Value::library(Library::Url(found))),
            None => {
                fail(format!("URL parse error during conversion from string: parse {text:?}: invalid URI for request"))
            }
        },
        "isURL" => Ok(Value::Bool(url(text).is_some())),
        _ => unknown(),
    }
}

pub fn method<'a>(library: &Library<'a>, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    match library {
        Library::Ip(address) => ip_method(*address, name),
        Library::Cidr(address, prefix) => cidr_method(*address, *prefix, name, args),
        Library::Url(url) => url_method(url, name),
        _ => unknown(),
    }
}

fn ip_method<'a>(address: IpAddr, name: &str) -> Evaluated<'a> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let global =
        !(broadcast || address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local);
    Ok(match name {
        "family" => Value::Int(if address.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(address.is_unspecified()),
        "isLoopback" => Value::Bool(address.is_loopback()),
        "isLinkLocalMulticast" => Value::Bool(link_local_multicast),
        "isLinkLocalUnicast" => Value::Bool(link_local),
        "isGlobalUnicast" => Value::Bool(global),
        _ => return unknown(),
    })
}

fn cidr_method<'a>(address: IpAddr, prefix: u8, name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    let within = |other: IpAddr, width: u8| {
        other.is_ipv4() == address.is_ipv4() && width >= prefix && network(other, prefix) == network(address, prefix)
    };
    let given = match args {
        [Value::Library(other)] => match other.as_ref() {
            Library::Ip(other) => Some((*other, if other.is_ipv4() { 32 } else { 128 })),
            Library::Cidr(other, width) => Some((*other, *width)),
            _ => None,
        },
        [Value::String(text)] if name == "containsIP" => match ip(text) {
            Some(other) => Some((other, if other.is_ipv4() { 32 } else { 128 })),
            None => return function("ip", text),
        },
        [Value::String(text)] => match cidr(text) {
            Some(other) => Some(other),
            None => return function("cidr", text),
        },
        _ => None,
    };
    match (name, given) {
        ("containsIP" | "containsCIDR", Some((other, width))) => Ok(Value::Bool(within(other, width))),
        ("ip", None) => Ok(Value::library(Library::Ip(address))),
        ("masked", None) => Ok(Value::library(Library::Cidr(masked(address, prefix), prefix))),
        ("prefixLength", None) => Ok(Value::Int(i64::from(prefix))),
        _ => unknown(),
    }
}

fn url_method<'a>(url: &Url, name: &str) -> Evaluated<'a> {
    let (hostname, port) = match url.host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port),
        _ => (url.host.as_str(), ""),
    };
    Ok(match name {
        "getScheme" => Value::string(url.scheme.as_str()),
        "getHost" => Value::string(url.host.as_str()),
        "getHostname" => Value::string(hostname.trim_matches(['[', ']'])),
        "getPort" => Value::string(port),
        "getEscapedPath" => Value::string(url.path.as_str()),
        "getQuery" => texts(url.query.clone()),
        _ => return unknown(),
    })
}
