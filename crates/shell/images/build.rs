//! Compiles the two programs of the built-in images with the compiler that builds Tug: static, no other dependency.

use std::env::var;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=programs");
    let common = ["--edition", "2024", "-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols"];
    let fixed = ["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];
    compile("programs/demo/main.rs", "demo", &[&common[..], &fixed].concat());
    let bare = ["-Clink-arg=-nostdlib", "-Clink-arg=-static", "-Clink-arg=-nostartfiles"];
    compile("programs/pause.rs", "pause", &[&common[..], &fixed, &bare].concat());
}

fn compile(source: &str, name: &str, flags: &[&str]) {
    let rustc = var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let out = Path::new(&var("OUT_DIR").expect("cargo sets OUT_DIR")).join(name);
    let status = Command::new(rustc)
        .args(flags)
        .args(["--target", &var("TARGET").expect("cargo sets TARGET"), "--crate-name", name, "-o"])
        .arg(&out)
        .arg(source)
        .status()
        .expect("rustc starts");
    assert!(status.success(), "compiling {source} failed; a static libc is needed (Debian: libc6-dev)");
}
