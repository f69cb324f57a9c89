//! Running other programs with their output shown, from the top of the project.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The top of the project.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).map(Path::to_path_buf).unwrap_or_default()
}

/// Where cargo puts what it builds in this profile.
pub fn target(profile: &str) -> PathBuf {
    let dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), PathBuf::from);
    dir.join(profile)
}

pub fn cargo(args: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    program(&cargo, args)
}

/// Runs a program and shows what it prints.
///
/// # Errors
/// It could not be started, or ended with another code than 0.
pub fn program(program: impl AsRef<OsStr>, args: &[&str]) -> Result<()> {
    let name = program.as_ref().to_string_lossy().into_owned();
    eprintln!("+ {} {}", short(&name), args.join(" "));
    let status = Command::new(&program)
        .args(args)
        .current_dir(top())
        .status()
        .with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("`{} {}` failed ({status})", short(&name), args.join(" "));
    }
    Ok(())
}

/// Runs a program and answers what it printed on its standard output.
///
/// # Errors
/// As `program`; the error holds what it said on its error output.
pub fn output(program: impl AsRef<OsStr>, args: &[&str]) -> Result<String> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let output = Command::new(&program)
        .args(args)
        .current_dir(top())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("`{} {}` failed: {}", short(&name), args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn short(name: &str) -> &str {
    Path::new(name).file_name().and_then(OsStr::to_str).unwrap_or(name)
}
