//! Notes which compiler builds the program.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let answer = Command::new(rustc).arg("--version").output().ok();
    let answer = answer.and_then(|output| String::from_utf8(output.stdout).ok());
    // `rustc 1.95.0 (59807616e 2026-04-14)`
    let version = answer.as_deref().and_then(|text| text.split(' ').nth(1));
    println!(
        "cargo::rustc-env=LATEEN_RUST_VERSION={}",
        version.unwrap_or("unknown").trim()
    );
}
