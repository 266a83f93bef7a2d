//! Generates Rust from `proto/` with a compiler written in Rust, so that no `protoc` is needed.

use std::{error::Error, path::PathBuf};

const FILES: [&str; 5] = [
    "envoy/discovery.proto",
    "ca.proto",
    "security.proto",
    "workload.proto",
    "zds.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("proto");
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [&root])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        // One content, one encoding: versions of resources are hashes of their bytes.
        .btree_map(".istio")
        // Resources are encoded once and shared by every stream, which needs `Bytes` inside `Any`.
        .extern_path(".google.protobuf.Any", "crate::Any")
        .include_file("mesh.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
