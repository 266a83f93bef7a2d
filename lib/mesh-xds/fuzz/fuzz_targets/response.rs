//! Discovery responses as a hostile or broken control plane might send them.
//! `cargo +nightly fuzz run response`; the corpus is replayed by `tests/fuzz_corpus.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mesh_xds::fuzz::response(data));
