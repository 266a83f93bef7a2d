//! Discovery requests as a hostile or broken client might send them.
//! `cargo +nightly fuzz run requests`; the corpus is replayed by `tests/fuzz_corpus.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    mesh_xds::fuzz::requests(data);
});
