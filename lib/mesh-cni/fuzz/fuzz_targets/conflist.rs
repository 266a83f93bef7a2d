//! Files in the runtime's folder of configurations.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_cni::fuzz::conflist(data));
