//! The saved corpora of the fuzz targets, replayed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use mesh_proto::discovery::DeltaDiscoveryResponse;
use mesh_xds::{client, fuzz};
use prost::Message as _;

/// What the client makes of a response, in one word per outcome.
fn outcome(data: &[u8]) -> &'static str {
    let Ok(response) = DeltaDiscoveryResponse::decode(data) else {
        return "not a response";
    };
    let mut machine = client::Machine::new(client::Config::new(client::Node::default()));
    let received = machine.received(response);
    match (received.changes.is_empty(), received.rejected.is_empty()) {
        (true, true) => "nothing",
        (false, true) => "accepted",
        (true, false) => "refused",
        (false, false) => "accepted in part",
    }
}

#[test]
fn saved_responses_are_answered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/response");
    let mut outcomes = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let data = fs::read(entry.unwrap().path()).unwrap();
        fuzz::response(&data);
        outcomes.insert(outcome(&data));
    }
    // The corpus is worth something only while it reaches every outcome.
    let every = [
        "accepted",
        "accepted in part",
        "not a response",
        "nothing",
        "refused",
    ];
    assert_eq!(outcomes, every.into());
}

#[test]
fn saved_requests_are_answered_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/requests");
    let mut answers = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let data = fs::read(entry.path()).unwrap();
        answers.insert(entry.file_name(), fuzz::requests(&data));
    }
    // The corpus is worth something only while it is answered.
    let silent = answers.into_iter().filter(|(_, answers)| *answers < 4);
    let silent: Vec<_> = silent.map(|(name, _)| name).collect();
    assert_eq!(silent, ["not-a-request"]);
}
