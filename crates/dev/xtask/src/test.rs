//! Every check in one run, ending with a line that counts.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{packages, run, tidy};

#[derive(clap::Args)]
pub struct Options {
    /// Leave out the end-to-end tests, which need root.
    #[arg(long)]
    no_end_to_end: bool,
}

#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// # Errors
/// The first check that failed; tests run to their end first.
pub fn run(options: &Options) -> Result<()> {
    packages::for_testing()?;
    run::cargo(&["fmt", "--all", "--check"]).context("run `cargo fmt`")?;
    run::cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    tidy::run()?;
    let mut count = Count::default();
    // The end-to-end tests run the program of this build: a release build would take as long as all else together. One
    // choice of packages for both, because another choice means other features, and with them most of the build again.
    let which: &[&str] = if options.no_end_to_end { &["--workspace", "--exclude", "e2e"] } else { &["--workspace"] };
    run::cargo(&[&["build", "--bins", "--tests"], which].concat())?;
    let sound = tests(&[which, &["--no-fail-fast"]].concat(), &mut count)?;
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.ignored);
    if !sound || count.failed > 0 {
        bail!("some tests failed");
    }
    Ok(())
}

/// Runs `cargo test` with these arguments, shows what it prints and adds up its results.
fn tests(args: &[&str], count: &mut Count) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("+ cargo test {}", args.join(" "));
    let mut child = Command::new(cargo)
        .arg("test")
        .args(args)
        .env("TUG", run::target("debug").join("tug"))
        .current_dir(run::top())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(result) = line.strip_prefix("test result: ") {
            count.add(result);
        }
        println!("{line}");
    }
    Ok(child.wait()?.success())
}

impl Count {
    fn add(&mut self, result: &str) {
        let number = |word: &str| {
            let part = result.split([';', '.']).map(str::trim).find(|part| part.ends_with(word));
            part.and_then(|part| part.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.passed += number(" passed");
        self.failed += number(" failed");
        self.ignored += number(" ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut count = Count::default();
        count.add("ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        count.add("FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        assert_eq!((count.passed, count.failed, count.ignored), (7, 2, 1));
    }
}
