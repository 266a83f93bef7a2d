//! What somebody answers on the agent's socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_cni::fuzz::answer(data));
