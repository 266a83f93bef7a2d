//! The headers of CONNECT, as any mesh peer may send them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    mesh_proxy::baggage::fuzz(data);
    mesh_proxy::forwarded::fuzz(data);
    mesh_proxy::traceparent::fuzz(data);
});
