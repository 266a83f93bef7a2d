//! The plugin as it is shipped: it runs on the node itself, of which nothing is known.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds it as for a release, only faster.
fn shipped() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_istio-cni"));
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../hack/plugin"))
        .args(["--profile", "dev"])
        .env("CARGO_TARGET_DIR", built.ancestors().nth(2).unwrap())
        .output()
        .unwrap();
    let (path, errors) = (
        String::from_utf8(output.stdout),
        String::from_utf8(output.stderr),
    );
    assert!(
        output.status.success(),
        "hack/plugin failed: {}",
        errors.unwrap()
    );
    PathBuf::from(path.unwrap().trim_end())
}

#[test]
fn shipped_plugin_needs_no_library_of_the_node() {
    let root = tempfile::tempdir().unwrap();
    fs::copy(shipped(), root.path().join("istio-cni")).unwrap();
    let output = Command::new("chroot")
        .arg(root.path())
        .arg("/istio-cni")
        .env("CNI_COMMAND", "VERSION")
        .output()
        .expect("`chroot` of coreutils");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("supportedVersions"),
        "with nothing else around it: {errors}"
    );
}
