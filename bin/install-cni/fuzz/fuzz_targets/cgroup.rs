//! Feeds the reader of control groups.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| install_cni::agent::netns::cgroup::fuzz(data));
