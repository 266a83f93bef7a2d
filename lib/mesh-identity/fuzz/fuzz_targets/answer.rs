#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mesh_identity::fuzz::answer(bytes));
