use bytes::BufMut as _;
use mesh_proto::discovery::{Any, DeltaDiscoveryResponse, Resource as Message};
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

use super::*;
use crate::server::{Catalog, Resource, catalog::Published};

/// A resource as a test describes it: name, content, aliases.
type Described = (String, Bytes, Vec<String>);

fn publish(name: &str, content: Bytes, aliases: &[String]) -> Arc<Published> {
    let mut catalog = Catalog::default();
    let resource = Resource {
        aliases: aliases.iter().map(|alias| alias.as_str().into()).collect(),
        ..content.into()
    };
    catalog.set("t", name.into(), Some(resource));
    let entry = catalog.table("t").unwrap().get(name).unwrap();
    Arc::clone(&entry.published)
}

fn names(names: &[String]) -> Vec<Arc<str>> {
    names.iter().map(|name| name.as_str().into()).collect()
}

/// What the generated code sends for it: gRPC's prefix and the message.
fn framed(message: &DeltaDiscoveryResponse) -> Vec<u8> {
    let mut expected = vec![0];
    expected.put_u32(message.encoded_len().try_into().unwrap());
    message.encode(&mut expected).unwrap();
    expected
}

fn message(type_url: &str, name: &str, described: &Described, aliases: &[String]) -> Message {
    Message {
        version: publish("", described.1.clone(), &[]).version.to_string(),
        resource: Some(Any {
            type_url: type_url.to_owned(),
            value: described.1.clone(),
        }),
        name: name.to_owned(),
        aliases: aliases.to_vec(),
    }
}

fn described() -> impl Strategy<Value = Described> {
    // Around what fits into one chunk, and far beyond it.
    let content = prop_oneof![
        6 => 0..300_usize,
        2 => CHUNK - 200..CHUNK + 200,
        1 => 0..5 * CHUNK,
    ];
    let content = (content, any::<u8>()).prop_map(|(len, byte)| Bytes::from(vec![byte; len]));
    ("[a-zé/]{0,40}", content, vec("[0-9.]{0,12}", 0..4))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_bytes_are_those_of_the_generated_code(
        type_url in "[a-z.]{0,20}",
        nonce in "[0-9]{0,5}",
        brought in vec(described(), 0..40),
        aliased in vec(("[a-z]{0,9}", described()), 0..3),
        removed in vec("[a-z]{0,200}", 0..40),
    ) {
        let response = Response {
            type_url: type_url.clone(),
            nonce: nonce.clone(),
            resources: (brought.iter())
                .map(|(name, content, aliases)| publish(name, content.clone(), aliases))
                .collect(),
            aliased: (aliased.iter())
                .map(|(alias, (name, content, aliases))| {
                    (alias.as_str().into(), publish(name, content.clone(), aliases))
                })
                .collect(),
            removed: names(&removed),
        };
        let own = brought.iter().map(|one| message(&type_url, &one.0, one, &one.2));
        let under_alias = aliased.iter().map(|(alias, one)| message(&type_url, alias, one, &[]));
        let expected = DeltaDiscoveryResponse {
            resources: own.chain(under_alias).collect(),
            type_url,
            nonce,
            removed_resources: removed,
            ..DeltaDiscoveryResponse::default()
        };
        prop_assert_eq!(&DeltaDiscoveryResponse::from(&response), &expected);

        let chunks: Vec<_> = response.encode().unwrap().collect();
        let expected = framed(&expected);
        prop_assert_eq!(chunks.len(), expected.len().div_ceil(CHUNK));
        prop_assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK));
        prop_assert!(chunks.concat() == expected);
    }
}

#[test]
fn nothing_is_shared_with_a_chunk_that_has_been_handed_out() {
    let resources = (0..1000).map(|i| {
        let content = Bytes::from(vec![0; i * 7]);
        publish(&format!("name-{i}"), content, &[])
    });
    let response = Response {
        resources: resources.collect(),
        ..Response::new("t")
    };
    let mut handed = 0;
    for chunk in response.encode().unwrap() {
        assert!(chunk.is_unique());
        handed += chunk.len();
    }
    assert!(handed > 100 * CHUNK);
}

#[test]
fn names_longer_than_a_chunk_go_on_in_the_next() {
    let long = "n".repeat(3 * CHUNK);
    let response = Response {
        resources: vec![publish(&long, Bytes::new(), std::slice::from_ref(&long))],
        removed: vec![long.as_str().into(); 2],
        ..Response::new("t")
    };
    let expected = framed(&DeltaDiscoveryResponse::from(&response));
    let chunks: Vec<_> = response.encode().unwrap().collect();
    assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK));
    assert!(chunks.concat() == expected);
}

#[test]
fn a_message_of_four_gibibytes_is_refused_and_one_byte_less_is_not() {
    // One content, brought many times: what is counted need not exist.
    let content = publish("huge", Bytes::from(vec![0; 1 << 20]), &[]);
    let with_nonce = |len: usize| Response {
        resources: vec![Arc::clone(&content); 4095],
        nonce: "n".repeat(len),
        ..Response::default()
    };
    let least = 1 << 17;
    let len = usize::try_from(message_len(&with_nonce(least))).unwrap();
    let most = with_nonce(least + u32::MAX as usize - len);
    assert_eq!(message_len(&most), u64::from(u32::MAX));
    let mut beyond = most.clone();
    beyond.nonce.push('n');
    let prefix = most.encode().unwrap().next().unwrap();
    assert_eq!(prefix.get(..5), Some(&[0, 0xff, 0xff, 0xff, 0xff][..]));
    assert_eq!(beyond.encode().unwrap_err(), TooLarge(1 << 32));
}
