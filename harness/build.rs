//! Tells the program who compiled it, so that a report can: compiler, target, level and flags.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown rustc".to_string(), |text| text.trim().to_string());
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // Cargo separates the flags by a control character, so that they may hold spaces.
    let flags = variable("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " ");
    println!("cargo::rustc-env=BUILD_COMPILER={version}");
    println!("cargo::rustc-env=BUILD_TARGET={}", variable("TARGET"));
    println!("cargo::rustc-env=BUILD_LEVEL={}", variable("OPT_LEVEL"));
    println!("cargo::rustc-env=BUILD_FLAGS={flags}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
}
