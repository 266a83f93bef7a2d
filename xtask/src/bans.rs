//! Crates that must not be part of a shipped program: cryptography other than the host's OpenSSL.

use std::{env, process::Command};

use anyhow::{Context as _, ensure};

use crate::{Violation, workspace::Workspace};

/// Names and beginnings of names (`*`) that are banned. `openssl-src` is OpenSSL compiled into the
/// program, which no validation of the host's module covers.
const BANNED: [&str; 4] = ["ring", "aws-lc*", "boring*", "openssl-src"];

/// What the programs are shipped for.
const PLATFORMS: [&str; 4] = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "powerpc64le-unknown-linux-gnu",
    "s390x-unknown-linux-gnu",
];

/// The violations of all programs under `bin/`.
pub fn check(workspace: &Workspace) -> anyhow::Result<Vec<Violation>> {
    let mut found = Vec::new();
    for program in workspace.members_under("bin") {
        let tree = tree(workspace, &program.name)?;
        let violations = banned_paths(&tree).into_iter();
        found.extend(violations.map(|path| {
            let rule = format!("ships a banned crate: {}", path.join(" → "));
            Violation::new(program.name.as_str(), rule)
        }));
    }
    Ok(found)
}

/// What `cargo tree` says of the normal and build dependencies of a program, one per line after its
/// depth. Cargo's metadata would be easier to read, but names optional crates that are not built.
fn tree(workspace: &Workspace, program: &str) -> anyhow::Result<String> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&workspace.metadata().workspace_root)
        .args(["tree", "--package", program, "--edges", "normal,build"])
        .args(["--prefix", "depth", "--format", "{p}"])
        .args(PLATFORMS.iter().flat_map(|platform| ["--target", platform]))
        .output()
        .context("cannot run cargo tree")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo tree failed: {complaint}");
    String::from_utf8(output.stdout).context("cannot read the output of cargo tree")
}

/// The path from the program to each banned crate in the output of `cargo tree`.
fn banned_paths(tree: &str) -> Vec<Vec<&str>> {
    let mut path = Vec::new();
    let mut banned = Vec::new();
    for line in tree.lines() {
        let crate_and_version = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let depth = line.strip_suffix(crate_and_version).unwrap_or_default();
        let name = crate_and_version.split(' ').next().unwrap_or_default();
        path.truncate(depth.parse().unwrap_or(0));
        path.push(name);
        if is_banned(name) {
            banned.push(path.clone());
        }
    }
    banned
}

fn is_banned(name: &str) -> bool {
    BANNED.iter().any(|banned| match banned.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == *banned,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_crate_is_found_with_the_path_to_it() {
        let tree = "\
0ztunnel v0.1.0 (/src/bin/ztunnel)
1mesh-identity v0.1.0 (/src/lib/mesh-identity)
2rustls v0.23.1
3ring v0.17.14
2openssl v0.10.1
3openssl-sys v0.9.1
4openssl-src v300.1.0
1mesh-net v0.1.0 (/src/lib/mesh-net)
2rustls v0.23.1 (*)
";
        assert_eq!(
            banned_paths(tree),
            [
                ["ztunnel", "mesh-identity", "rustls", "ring"].as_slice(),
                &[
                    "ztunnel",
                    "mesh-identity",
                    "openssl",
                    "openssl-sys",
                    "openssl-src"
                ],
            ]
        );
    }

    #[test]
    fn names_and_beginnings_are_banned() {
        for name in [
            "ring",
            "aws-lc-rs",
            "aws-lc-sys",
            "aws-lc-fips-sys",
            "boring-sys",
        ] {
            assert!(is_banned(name), "{name}");
        }
        for name in [
            "openssl",
            "openssl-sys",
            "rustls-openssl",
            "string",
            "ring-buffer",
        ] {
            assert!(!is_banned(name), "{name}");
        }
    }
}
