//! Bytes as they come to the plugin's log socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| install_cni::server::fuzz::log_body(data));
