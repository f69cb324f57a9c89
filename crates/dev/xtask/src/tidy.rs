//! What the compiler does not check: layers, file headers, and sizes worth a second look.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::run;

/// Layers from the bottom; an arrow points down only, or sideways where the layer allows it.
const LAYERS: [&str; 5] = ["base", "core", "shell", "app", "dev"];
/// Crates of these layers may depend on each other; core crates may not.
const SIDEWAYS: [&str; 4] = ["base", "shell", "app", "dev"];
const LISTED: usize = 8;

/// Fails on an upward arrow and on a file without a header; lists the longest files and functions.
///
/// # Errors
/// Every complaint, one a line.
pub fn run() -> Result<()> {
    let mut complaints = arrows()?;
    let mut files = Vec::new();
    sources(&run::top().join("crates"), &mut files)?;
    let mut lengths = Vec::new();
    let mut functions = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(run::top()).unwrap_or(path).display().to_string();
        if !text.starts_with("//! ") {
            complaints.push(format!("{name}: opens without a `//!` sentence that says what lives here"));
        }
        lengths.push((text.lines().count(), name.clone()));
        functions.extend(
            function_lengths(&text).into_iter().map(|(lines, function)| (lines, format!("{name}: {function}"))),
        );
    }
    println!("{} files, {} lines", lengths.len(), lengths.iter().map(|(lines, _)| lines).sum::<usize>());
    longest("files", lengths);
    longest("functions", functions);
    if complaints.is_empty() { Ok(()) } else { bail!("tidy found:\n{}", complaints.join("\n")) }
}

fn layer(manifest: &str) -> Option<usize> {
    let mut parts = Path::new(manifest).components().rev().skip(2);
    let name = parts.next()?.as_os_str().to_str()?.to_owned();
    LAYERS.iter().position(|layer| *layer == name)
}

fn arrows() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().current_dir(run::top()).no_deps().exec().context("cargo metadata failed")?;
    let mut complaints = Vec::new();
    let place =
        |name: &str| metadata.packages.iter().find(|p| p.name == name).and_then(|p| layer(p.manifest_path.as_str()));
    for package in &metadata.packages {
        let Some(from) = layer(package.manifest_path.as_str()) else {
            complaints.push(format!("{}: lies in no layer's folder", package.name));
            continue;
        };
        // Tests may reach up to the test kit; what ships may not.
        for dependency in
            package.dependencies.iter().filter(|d| d.path.is_some() && d.kind != DependencyKind::Development)
        {
            let Some(to) = place(&dependency.name) else { continue };
            if to > from || (to == from && !SIDEWAYS.contains(&LAYERS[from])) {
                complaints.push(format!(
                    "{} ({}) may not depend on {} ({})",
                    package.name, LAYERS[from], dependency.name, LAYERS[to]
                ));
            }
        }
    }
    Ok(complaints)
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Lines from each `fn` to the brace that closes it, by indentation, as rustfmt leaves it.
fn function_lengths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let head = code.split_once("fn ").filter(|(before, _)| {
            before.split_whitespace().all(|word| {
                word.starts_with("pub") || matches!(word, "async" | "const" | "unsafe" | "extern" | "\"C\"")
            })
        });
        let Some((_, rest)) = head else { continue };
        let closing = format!("{}}}", " ".repeat(line.len() - code.len()));
        if let Some(length) = lines[start..].iter().position(|line| *line == closing) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push((length + 1, name));
        }
    }
    found
}

fn longest(what: &str, mut entries: Vec<(usize, String)>) {
    entries.sort_by(|a, b| b.cmp(a));
    println!("longest {what}:");
    for (lines, name) in entries.iter().take(LISTED) {
        println!("  {lines:5} {name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_to_their_closing_brace() {
        let text = "fn a() {\n    b();\n}\nimpl X {\n    pub async fn c(&self) {\n    }\n}\n";
        assert_eq!(function_lengths(text), [(3, "a".to_owned()), (2, "c".to_owned())]);
    }

    #[test]
    fn the_folder_is_the_layer() {
        assert_eq!(layer("/p/crates/core/access/Cargo.toml"), Some(1));
        assert_eq!(layer("/p/crates/other/access/Cargo.toml"), None);
    }
}
