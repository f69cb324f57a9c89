//! The table of kinds as text: what discovery will say of each row. `REWRITE=1` writes the golden file anew.

// The golden text lies in a file.
#![allow(clippy::disallowed_methods)]
// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use kinds::Kind;

fn describe(row: &Kind) -> String {
    let mut text = format!("{}/{} {}", if row.group.is_empty() { "core" } else { &row.group }, row.version, row.kind);
    let scope = if row.is_namespaced() { "namespaced" } else { "cluster" };
    write!(text, ": {} {} {scope} verbs={}", row.plural, row.singular, row.verbs.list().join(",")).unwrap();
    for (what, words) in [("short", &row.short_names), ("categories", &row.categories)] {
        if !words.is_empty() {
            write!(text, " {what}={}", words.join(",")).unwrap();
        }
    }
    if row.has_generation {
        text.push_str(" generation");
    }
    if let Some(stored) = &row.stored_as {
        write!(text, " stored-as={}", stored.gvk).unwrap();
    }
    text.push('\n');
    if row.has_status {
        text.push_str("  /status get,patch,update\n");
    }
    for sub in row.subresources.iter() {
        let speaks = sub.speaks.as_ref().map(|gvk| format!(" speaks {gvk}")).unwrap_or_default();
        writeln!(text, "  /{} {}{speaks}", sub.name, sub.verbs.join(",")).unwrap();
    }
    let fields: Vec<&str> = row.selectable_fields.iter().map(|field| field.path.as_ref()).collect();
    if !fields.is_empty() {
        writeln!(text, "  fields: {}", fields.join(" ")).unwrap();
    }
    let column = |c: &kinds::Column| format!("{}{}", c.name, if c.priority > 0 { "*" } else { "" });
    let columns: Vec<String> = row.columns.iter().map(column).collect();
    writeln!(text, "  columns: {}", columns.join(" | ")).unwrap();
    text
}

#[test]
fn the_table_says_what_discovery_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/table.txt");
    let actual: String = kinds::builtin().iter().map(describe).collect();
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(path, &actual).unwrap();
    }
    assert_eq!(actual, std::fs::read_to_string(path).unwrap());
}
