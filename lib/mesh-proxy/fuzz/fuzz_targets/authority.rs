//! The `:authority` of CONNECT, as any mesh peer may send it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_proxy::hbone::authority::fuzz(data));
