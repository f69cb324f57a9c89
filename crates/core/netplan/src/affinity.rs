//! Client affinity when slots change: what the kernel remembers is carried over or forgotten.

use crate::elements::Frontend;
use crate::view::Protocol;
use serde_json::Value;
use std::fmt::Write;

/// Slot `from` of a frontend now has another meaning: its clients follow their endpoint to slot `to`, or are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub frontend: Frontend,
    pub from: u32,
    pub to: Option<u32>,
}

/// From `nft -j list map ip TABLE affinity` to the commands that apply `moves`; empty when no client is concerned.
pub fn rewrite(table: &str, listing: &Value, moves: &[Move]) -> String {
    let (mut deleted, mut added) = (vec![], vec![]);
    let maps = listing["nftables"].as_array().into_iter().flatten().filter_map(|item| item["map"]["elem"].as_array());
    for element in maps.flatten().filter_map(parse) {
        let concerns = |m: &&Move| {
            m.from == element.slot
                && m.frontend.protocol.as_str() == element.protocol
                && u64::from(m.frontend.port) == element.port
                && m.frontend.ip.is_none_or(|ip| ip.to_string() == element.destination)
        };
        let Some(change) = moves.iter().find(concerns) else { continue };
        let key = format!("{} . {} . {} . {}", element.source, element.destination, element.protocol, element.port);
        if let Some(slot) = change.to {
            added.push(format!("{key} timeout {}s expires {}s : {slot}", element.timeout, element.expires.max(1)));
        }
        deleted.push(key);
    }
    let mut script = String::new();
    for (verb, elements) in [("delete", deleted), ("add", added)] {
        if !elements.is_empty() {
            let _ = writeln!(script, "{verb} element ip {table} affinity {{ {} }}", elements.join(", "));
        }
    }
    script
}

struct Remembered<'a> {
    source: &'a str,
    destination: &'a str,
    protocol: &'a str,
    port: u64,
    timeout: u64,
    expires: u64,
    slot: u32,
}

fn parse(element: &Value) -> Option<Remembered<'_>> {
    let (key, slot) = (element.get(0)?, element.get(1)?);
    // With a timeout the key is wrapped; without one it stands alone.
    let wrapped = key.get("elem");
    let concat = wrapped.map_or(key, |inner| &inner["val"])["concat"].as_array()?;
    let [source, destination, protocol, port] = concat.as_slice() else { return None };
    let seconds = |name: &str| wrapped.and_then(|inner| inner[name].as_u64());
    Some(Remembered {
        source: source.as_str()?,
        destination: destination.as_str()?,
        protocol: Protocol::parse(Some(protocol.as_str()?.to_ascii_uppercase().as_str())).map(Protocol::as_str)?,
        port: port.as_u64()?,
        timeout: seconds("timeout").unwrap_or(10_800),
        expires: seconds("expires").unwrap_or(1),
        slot: u32::try_from(slot.as_u64()?).ok()?,
    })
}
