//! The bodies of the fuzz targets, exported so that a plain test feeds them the saved corpus too.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use mesh_proto::{
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    type_url::{ADDRESS, AUTHORIZATION},
};
use prost::Message as _;

use crate::{client, convert, server};

/// Feeds bytes to the client as if a control plane had sent them, twice. Whatever they are: the client
/// answers, what it accepts survives the way back to the wire, and seeing the same again changes
/// nothing in the answer.
///
/// # Panics
/// When one of these does not hold.
pub fn response(data: &[u8]) {
    let Ok(response) = DeltaDiscoveryResponse::decode(data) else {
        return;
    };
    let mut machine = client::Machine::new(client::Config::new(client::Node::default()));
    machine.connected();
    let first = machine.received(response.clone());
    assert_eq!(first.reply.response_nonce, response.nonce);
    assert_eq!(
        first.reply.error_detail.is_none(),
        first.rejected.is_empty()
    );
    for change in &first.changes {
        if let (_, name, Some(encoded)) = convert::change_to_proto(change) {
            let again = match change {
                crate::Change::Policy(_) => {
                    convert::policy_from_proto(encoded, &mut convert::Interner::default())
                }
                _ => convert::address_from_proto(encoded, &mut convert::Interner::default()),
            };
            assert_eq!(again.as_ref(), Ok(&(name, change.clone())));
        }
    }
    let second = machine.received(response);
    assert_eq!(first.reply, second.reply);
}

/// Feeds bytes to the server as if a client had sent them as requests, each with its length before it,
/// with a small mesh that changes in between. Whatever they are: the server refuses them or answers, each
/// response has its own nonce and is of a type that was asked for, none both brings and removes a name, and
/// each is on the wire what it should be.
/// Says how many responses there were.
///
/// # Panics
/// When one of these does not hold.
pub fn requests(mut data: &[u8]) -> usize {
    let client = server::Client {
        node: Some("n0".into()),
        ..server::Client::default()
    };
    let mut machine = server::Machine::new(&client);
    let mut catalog = server::Catalog::with_history(4);
    let mut asked = BTreeSet::new();
    let mut nonces = BTreeSet::new();
    for round in 0..MAX_REQUESTS {
        stir(&mut catalog, round);
        let Ok(request) = DeltaDiscoveryRequest::decode_length_delimited(&mut data) else {
            break;
        };
        asked.insert(request.type_url.clone());
        if machine.request(request).is_err() {
            break;
        }
        while let Ok(Some(response)) = machine.respond(&catalog) {
            let response = decoded(response);
            assert!(asked.contains(&response.type_url));
            assert!(nonces.insert(response.nonce));
            let removed: BTreeSet<_> = response.removed_resources.into_iter().collect();
            let mut present = response.resources.iter();
            assert!(present.all(|resource| !removed.contains(&resource.name)));
        }
    }
    nonces.len()
}

/// A response as a client reads it from the wire.
fn decoded(response: server::Response) -> DeltaDiscoveryResponse {
    let expected = DeltaDiscoveryResponse::from(&response);
    let bytes = response.encode().into_iter().flatten();
    let mut bytes: VecDeque<u8> = bytes.flatten().collect();
    let prefix: Vec<u8> = bytes.drain(..5).collect();
    assert_eq!(
        prefix,
        [
            &[0],
            &u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes()[..]
        ]
        .concat()
    );
    let decoded = DeltaDiscoveryResponse::decode(bytes);
    assert_eq!(decoded.as_ref(), Ok(&expected));
    expected
}

/// Requests that are looked at, so that one input does not take long.
const MAX_REQUESTS: u8 = 64;

/// One change to a mesh of two services, three workloads and two policies.
fn stir(catalog: &mut server::Catalog, round: u8) {
    let number = round % 3;
    let alias = |number: u8| format!("/10.0.0.{number}").into();
    let workload = server::Resource {
        aliases: vec![alias(round % 5)],
        groups: vec![
            server::Group::Of(format!("ns/s{}", round % 2).into()),
            server::Group::Node(format!("n{}", round % 2).into()),
        ],
        ..Bytes::copy_from_slice(&[round]).into()
    };
    let service = server::Resource {
        aliases: vec![alias(number)],
        precedence: server::Precedence::Service,
        ..Bytes::copy_from_slice(&[round]).into()
    };
    let policy = server::Resource {
        by_name_only: round.is_multiple_of(2),
        ..Bytes::copy_from_slice(&[round]).into()
    };
    let there = !round.is_multiple_of(7);
    let name = |kind: &str, number: u8| format!("{kind}{number}").into();
    catalog.set(ADDRESS, name("w", number), there.then_some(workload));
    catalog.set(ADDRESS, name("ns/s", round % 2), Some(service));
    catalog.set(
        AUTHORIZATION,
        name("ns/p", round % 2),
        there.then_some(policy),
    );
}
