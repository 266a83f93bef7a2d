#![no_main]

//! The answer of a certificate authority.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mesh_identity::fuzz::answer(bytes));
