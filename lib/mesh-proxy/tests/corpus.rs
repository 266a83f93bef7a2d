//! What fuzzing found, or was given to begin with, replayed without the fuzzer.

#[test]
fn the_saved_corpus_of_headers_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/headers");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let data = std::fs::read(entry.unwrap().path()).unwrap();
        mesh_proxy::baggage::fuzz(&data);
        mesh_proxy::forwarded::fuzz(&data);
        mesh_proxy::traceparent::fuzz(&data);
        seen += 1;
    }
    assert!(seen > 0, "{corpus} is empty");
}
