#![no_main]

//! The identity in a peer's certificate.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mesh_identity::fuzz::peer(bytes));
