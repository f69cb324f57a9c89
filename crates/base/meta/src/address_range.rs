//! A block of addresses in CIDR notation: what it holds and how its addresses are counted.

use std::net::IpAddr;

use thiserror::Error;

/// A block of addresses, `10.96.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub network: IpAddr,
    pub prefix: u8,
}

impl Range {
    fn bits(self) -> u32 {
        let width: u32 = if self.network.is_ipv4() { 32 } else { 128 };
        width.saturating_sub(u32::from(self.prefix))
    }

    fn number(ip: IpAddr) -> u128 {
        match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        }
    }

    /// Addresses that may be given out: without the network's own and, for IPv4, the broadcast address.
    pub fn size(self) -> u64 {
        let all = 1_u64.checked_shl(self.bits()).filter(|_| self.bits() < 63).unwrap_or(u64::MAX / 2);
        all.saturating_sub(if self.network.is_ipv4() { 2 } else { 1 })
    }

    /// The address at a place, counted from 1.
    pub fn at(self, place: u64) -> IpAddr {
        let first = u128::MAX.checked_shl(self.bits()).unwrap_or(0) & Self::number(self.network);
        let number = first + u128::from(place);
        match self.network {
            IpAddr::V4(_) => IpAddr::from(u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes()),
            IpAddr::V6(_) => IpAddr::from(number.to_be_bytes()),
        }
    }

    pub fn contains(self, ip: IpAddr) -> bool {
        let first = Self::number(self.at(1));
        let place = Self::number(ip).wrapping_sub(first);
        ip.is_ipv4() == self.network.is_ipv4() && place < u128::from(self.size())
    }

    /// `IPv4` or `IPv6`.
    pub fn family(self) -> &'static str {
        family(self.network)
    }
}

impl std::str::FromStr for Range {
    type Err = RangeError;

    /// Reads `10.96.0.0/16`.
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = || RangeError(text.to_owned());
        let (network, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let (network, prefix): (IpAddr, u8) =
            (network.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
        let width = if network.is_ipv4() { 32 } else { 128 };
        if prefix > width { Err(wrong()) } else { Ok(Self { network, prefix }) }
    }
}

/// The text is no network in CIDR notation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no network such as 10.96.0.0/16")]
pub struct RangeError(String);

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// `IPv4` or `IPv6`, as Services name them.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_networks() {
        for (text, expected) in [
            ("10.96.0.0/16", Some(("10.96.0.1", 65_534))),
            ("10.96.3.7/24", Some(("10.96.3.1", 254))),
            ("fd00::/112", Some(("fd00::1", 65_535))),
            ("0.0.0.0/0", Some(("0.0.0.1", u64::from(u32::MAX) - 1))),
            ("10.0.0.1/32", Some(("10.0.0.2", 0))),
            ("::/0", Some(("::1", u64::MAX / 2 - 1))),
            ("10.96.0.0", None),
            ("10.96.0.0/33", None),
            ("x/8", None),
        ] {
            let range = text.parse::<Range>().ok().map(|range| (range.at(1).to_string(), range.size()));
            assert_eq!(range, expected.map(|(first, size)| (first.to_owned(), size)), "{text}");
        }
    }
}
