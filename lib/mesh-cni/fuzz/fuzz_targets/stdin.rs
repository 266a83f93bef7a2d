//! What a container runtime writes to the plugin.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_cni::fuzz::stdin(data));
