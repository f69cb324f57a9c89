//! Tests' kernel: reads the scripts as `nft` does and judges packets by the rules, as far as our rules use the language.

use crate::view::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

#[derive(Default, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub sets: BTreeMap<String, BTreeSet<String>>,
    pub chains: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Copy)]
pub struct Packet {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: Protocol,
    pub source_port: u16,
    pub port: u16,
    pub reply: bool,
}

enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
}

/// Splits `text` at the first balanced `{ }`: what stands before, inside and after.
fn braces(text: &str) -> Option<(&str, &str, &str)> {
    let open = text.find('{')?;
    let mut depth = 0;
    for (at, c) in text[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((text[..open].trim(), text[open + 1..open + at].trim(), &text[open + at + 1..]));
        }
    }
    panic!("unbalanced: {text}")
}

impl Kernel {
    pub fn run(&mut self, script: &str) {
        let mut rest = script.trim_start();
        while !rest.is_empty() {
            if rest.starts_with("table ") {
                let (head, body, after) = braces(rest).unwrap();
                if head.starts_with("table ip ") {
                    self.block(body);
                }
                rest = after.trim_start();
                continue;
            }
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            self.command(line);
            rest = after.trim_start();
        }
    }

    fn block(&mut self, mut body: &str) {
        while let Some((head, inside, after)) = braces(body) {
            let (kind, name) = head.split_once(' ').unwrap();
            match kind {
                "chain" => {
                    // An anonymous set inside a rule holds no semicolon, and neither does anything else.
                    let rules = inside.split([';', '\n']).map(str::trim).filter(|rule| !rule.is_empty());
                    let rules = rules.filter(|rule| !rule.starts_with("type ") && !rule.starts_with("policy "));
                    let old = self.chains.insert(name.to_owned(), rules.map(str::to_owned).collect());
                    assert_eq!(old, None, "chain {name} made twice");
                }
                _ => {
                    let elements = inside
                        .split_once("elements = {")
                        .map_or("", |(_, list)| list.trim_end_matches(['}', ';', ' ']));
                    let elements = elements.split(',').map(str::trim).filter(|e| !e.is_empty()).map(str::to_owned);
                    assert_eq!(self.sets.insert(name.to_owned(), elements.collect()), None, "set {name} made twice");
                }
            }
            body = after;
        }
    }

    fn references(&self, name: &str) -> bool {
        let named = |text: &str| text.split(' ').any(|word| word == name || word.strip_prefix('@') == Some(name));
        self.chains.values().flatten().any(|rule| named(rule)) || self.sets.values().flatten().any(|e| named(e))
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["add", "table", ..] | ["delete", "table", "ip6", _] => {}
            ["delete", "table", "ip", _] => *self = Self::default(),
            ["flush", "chain", "ip", _, name] => self.chains.get_mut(*name).unwrap().clear(),
            ["delete", "chain", "ip", _, name] => {
                assert_eq!(self.chains.remove(*name), Some(vec![]), "{line}");
                assert!(!self.references(name), "{line}: in use");
            }
            ["delete", "set", "ip", _, name] => {
                assert!(self.sets.remove(*name).is_some(), "{line}");
                assert!(!self.references(name), "{line}: in use");
            }
            [verb, "element", "ip", _, name, ..] => {
                let (_, list, _) = braces(line).unwrap();
                let set = self.sets.get_mut(*name).unwrap_or_else(|| panic!("{line}: no set"));
                for element in list.split(", ") {
                    let key = element.split(" : ").next().unwrap();
                    let known = set.iter().find(|e| e.split(" : ").next() == Some(key)).cloned();
                    if *verb == "add" {
                        assert_eq!(known, None, "{line}: there already");
                        set.insert(element.to_owned());
                    } else {
                        set.remove(&known.unwrap_or_else(|| panic!("{line}: not there")));
                    }
                }
            }
            _ => panic!("unknown command {line}"),
        }
    }

    /// Whether a forwarded packet passes.
    pub fn passes(&self, packet: Packet) -> bool {
        self.chain("forward", packet).unwrap_or(true)
    }

    fn chain(&self, name: &str, packet: Packet) -> Option<bool> {
        for rule in self.chains.get(name)? {
            match self.rule(rule, packet) {
                Some(Verdict::Accept) => return Some(true),
                Some(Verdict::Drop) => return Some(false),
                Some(Verdict::Goto(chain)) => return self.chain(&chain, packet),
                Some(Verdict::Jump(chain)) => {
                    if let Some(verdict) = self.chain(&chain, packet) {
                        return Some(verdict);
                    }
                }
                None => {}
            }
        }
        None
    }

    fn rule(&self, rule: &str, packet: Packet) -> Option<Verdict> {
        let words: Vec<&str> = rule.split(' ').collect();
        let mut at = 0;
        loop {
            match &words[at..] {
                ["accept"] => return Some(Verdict::Accept),
                ["drop"] => return Some(Verdict::Drop),
                ["jump", chain] => return Some(Verdict::Jump((*chain).to_owned())),
                ["goto", chain] => return Some(Verdict::Goto((*chain).to_owned())),
                ["ct", "direction", "reply", ..] if packet.reply => at += 3,
                ["ct", "state" | "direction", _, ..] => return None,
                _ => {
                    let (mut key, mut next) = (vec![], at);
                    loop {
                        let (value, length) = field(&words[next..], packet);
                        key.push(value);
                        next += length;
                        if words.get(next) != Some(&".") {
                            break;
                        }
                        next += 1;
                    }
                    if words[next] == "vmap" {
                        let set = &self.sets[&words[next + 1][1..]];
                        let found =
                            set.iter().find_map(|e| e.split_once(" : ").filter(|(k, _)| *k == key.join(" . ")))?;
                        return Some(Verdict::Goto(found.1.strip_prefix("goto ").unwrap().to_owned()));
                    }
                    let holds = match words[next].strip_prefix('@') {
                        Some(set) => self.sets[set].iter().any(|element| within(element, &key)),
                        None => within(words[next], &key),
                    };
                    if !holds {
                        return None;
                    }
                    at = next + 1;
                }
            }
        }
    }
}

/// The value of a packet's field and how many words name it.
fn field(words: &[&str], packet: Packet) -> (String, usize) {
    match words {
        ["ip", "saddr", ..] => (packet.source.to_string(), 2),
        ["ip", "daddr", ..] => (packet.destination.to_string(), 2),
        ["th", "sport", ..] => (packet.source_port.to_string(), 2),
        ["th", "dport", ..] => (packet.port.to_string(), 2),
        ["meta", "l4proto", ..] => (packet.protocol.as_str().to_owned(), 2),
        other => panic!("unknown field {other:?}"),
    }
}

fn within(element: &str, key: &[String]) -> bool {
    let parts: Vec<&str> = element.split(" . ").collect();
    assert_eq!(parts.len(), key.len(), "{element} against {key:?}");
    parts.iter().zip(key).all(|(part, value)| {
        match (part.split_once('-'), value.parse::<Ipv4Addr>(), value.parse::<u16>()) {
            (Some((first, last)), Ok(ip), _) => {
                (first.parse::<Ipv4Addr>().unwrap()..=last.parse().unwrap()).contains(&ip)
            }
            (Some((first, last)), _, Ok(port)) => {
                (first.parse::<u16>().unwrap()..=last.parse().unwrap()).contains(&port)
            }
            _ => part == value,
        }
    })
}
