//! Bytes as they come from the other end of the agent's socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_zds::fuzz::datagram(data));
