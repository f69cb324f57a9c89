//! A table as text, for tests and for people.

use std::fmt::Write;

use crate::filter::Filters;
use crate::path::PathMatch;
use crate::table::{Action, Hosts, Route, Table, TextMatch};

/// The whole table, in a stable order.
pub fn render(table: &Table) -> String {
    let mut text = String::new();
    for (number, port) in &table.ports {
        let _ = writeln!(text, "port {number}{}", if port.tls { " tls" } else { "" });
        for (host, secret) in port.certificates.sorted() {
            let _ =
                writeln!(text, "  certificate {host} {}", secret.as_ref().map_or("none".into(), ToString::to_string));
        }
        for (host, listener) in port.gateways.sorted() {
            let _ = writeln!(text, "  listener {host}");
            hosts(&mut text, &listener.hosts, "    ");
        }
        if let Some(ingress) = &port.ingress {
            hosts(&mut text, &ingress.rules, "  ");
            for (host, routes) in ingress.defaults.sorted() {
                for route in routes {
                    let _ = writeln!(text, "  default {host} -> {}", action(&route.action));
                }
            }
        }
    }
    text
}

fn hosts(text: &mut String, hosts: &Hosts, indent: &str) {
    for (host, routes) in hosts.sorted() {
        let _ = writeln!(text, "{indent}host {host}");
        for route in routes {
            let _ = writeln!(text, "{indent}  {} -> {}", condition(route), action(&route.action));
        }
    }
}

fn condition(route: &Route) -> String {
    let condition = &route.condition;
    let mut text = match &condition.path {
        PathMatch::Exact(path) => format!("exact {path}"),
        PathMatch::Prefix(path) => format!("prefix {path}/"),
        PathMatch::Regex(expression) => format!("regex {}", expression.as_str()),
    };
    let value = |wanted: &TextMatch| match wanted {
        TextMatch::Exact(value) => format!("={value}"),
        TextMatch::Regex(expression) => format!("~{}", expression.as_str()),
    };
    if let Some(method) = &condition.method {
        let _ = write!(text, " method {method}");
    }
    for (name, wanted) in &condition.headers {
        let _ = write!(text, " header {name}{}", value(wanted));
    }
    for (name, wanted) in &condition.query {
        let _ = write!(text, " query {name}{}", value(wanted));
    }
    text
}

/// One action on one line.
pub fn action(action: &Action) -> String {
    let mut parts = Vec::new();
    if action.ssl_redirect {
        parts.push("https".to_owned());
    }
    parts.extend(filters(&action.filters));
    for weighted in &action.backends {
        let backend = &weighted.backend;
        let mut text = backend.name.to_string();
        if action.backends.len() > 1 || weighted.weight != 1 {
            let _ = write!(text, " weight {}", weighted.weight);
        }
        match backend.unusable {
            Some(why) => {
                let _ = write!(text, " ({})", why.message());
            }
            None => {
                let addresses: Vec<String> = backend.addresses.iter().map(ToString::to_string).collect();
                let protocol = if backend.protocol == crate::view::Protocol::Http2 { " h2c" } else { "" };
                let _ = write!(text, "{protocol} [{}]", addresses.join(" "));
            }
        }
        parts.push(text);
        parts.extend(filters(&weighted.filters));
    }
    parts.join(", ")
}

fn filters(filters: &Filters) -> Vec<String> {
    let mut parts = Vec::new();
    for (side, edit) in [("request", &filters.request), ("response", &filters.response)] {
        let lines = |verb: &str, lines: &[(http::HeaderName, http::HeaderValue)]| {
            let line = |(name, value): &(http::HeaderName, http::HeaderValue)| {
                format!("{side} {verb} {name}={}", String::from_utf8_lossy(value.as_bytes()))
            };
            lines.iter().map(line).collect::<Vec<_>>()
        };
        parts.extend(lines("set", &edit.set));
        parts.extend(lines("add", &edit.add));
        parts.extend(edit.remove.iter().map(|name| format!("{side} remove {name}")));
    }
    if let Some(redirect) = &filters.redirect {
        parts.push(format!("redirect {redirect:?}"));
    }
    if let Some(rewrite) = &filters.rewrite {
        parts.push(format!("rewrite {rewrite:?}"));
    }
    parts
}
