//! What is published, in the form in which ztunnel dumps what it has learned, so that the two can be
//! compared line by line.

use mesh_proto::type_url;
use mesh_state::store::{Config, Store};
use mesh_xds::{
    convert::{self, Interner},
    server::Resources,
};

/// Everything that is published. Collected at each request and then forgotten.
pub(crate) fn published(resources: &Resources) -> serde_json::Value {
    let mut texts = Interner::default();
    let mut changes = Vec::new();
    for (_name, body) in resources.bodies(type_url::ADDRESS) {
        // What we have encoded ourselves can be decoded.
        changes.extend(convert::address_from_proto(body, &mut texts).map(|(_, change)| change));
    }
    for (_name, body) in resources.bodies(type_url::AUTHORIZATION) {
        changes.extend(convert::policy_from_proto(body, &mut texts).map(|(_, change)| change));
    }
    let store = Store::new(Config::default());
    drop(store.apply(changes));
    serde_json::to_value(store.snapshot().dump()).unwrap_or_default()
}
