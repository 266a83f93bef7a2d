#![no_main]

//! What the kernel lists of nf_tables.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mesh_redirect::netlink::fuzz(bytes));
