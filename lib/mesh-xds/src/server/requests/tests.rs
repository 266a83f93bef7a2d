use std::collections::HashMap;

use bytes::BufMut as _;
use futures::{FutureExt as _, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use proptest::{
    collection::{hash_map, vec},
    prelude::*,
};

use mesh_proto::discovery::{DeltaDiscoveryRequest, Node, Status as Refusal};
use prost::Message as _;

use super::*;
use crate::server::held::Held;

const LIMIT: usize = 1 << 20;

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.put_u32(message.len().try_into().unwrap());
    bytes.extend_from_slice(message);
    bytes
}

/// What the frames bring that arrive in parts of these lengths.
fn cut(bytes: &[u8], parts: &[usize]) -> Result<Vec<Bytes>, Error> {
    let mut frames = Frames::new(LIMIT);
    let mut messages = Vec::new();
    let mut rest = bytes;
    let mut parts = parts.iter().cycle();
    while !rest.is_empty() {
        let len = parts.next().map_or(rest.len(), |len| *len.min(&rest.len()));
        let (part, after) = rest.split_at(len);
        frames.push(part);
        rest = after;
        while let Some(message) = frames.next()? {
            messages.push(message);
        }
    }
    frames.end().map(|()| messages)
}

proptest! {
    #[test]
    fn requests_are_read_as_the_generated_code_reads_them(
        texts in vec("[a-z*/]{0,9}", 4),
        subscribe in vec("[a-z*/]{0,9}", 0..4),
        held in hash_map("[a-z]{0,6}", "[0-9a-f]{16}|[a-z]{0,3}", 0..9),
        known in any::<[bool; 2]>(),
    ) {
        let request = DeltaDiscoveryRequest {
            node: known[0].then(|| Node { id: texts[0].clone(), ..Node::default() }),
            type_url: texts[1].clone(),
            resource_names_unsubscribe: subscribe.iter().rev().cloned().collect(),
            resource_names_subscribe: subscribe,
            initial_resource_versions: held.clone(),
            response_nonce: texts[2].clone(),
            error_detail: known[1].then(|| Refusal {
                message: texts[3].clone(),
                ..Refusal::default()
            }),
        };
        let said = Said::decode(request.encode_to_vec().into()).unwrap();
        let held = Held::from(held);
        prop_assert_eq!(said.held.index(), held.index());
        let without = DeltaDiscoveryRequest {
            initial_resource_versions: HashMap::new(),
            ..request
        };
        prop_assert_eq!(said.request, without);
    }

    #[test]
    fn messages_arrive_however_they_are_cut(
        messages in vec(vec(any::<u8>(), 0..300), 0..20),
        parts in vec(1..100_usize, 1..10),
    ) {
        let bytes: Vec<_> = messages.iter().flat_map(|message| framed(message)).collect();
        prop_assert_eq!(cut(&bytes, &parts).unwrap(), messages);
    }
}

#[test]
fn a_large_request_leaves_no_memory_behind() {
    let large = vec![1; 10 * KEPT];
    let mut bytes = framed(&large);
    bytes.extend(framed(b"next"));
    // All of it, and the beginning of what follows.
    for more in 0..9 {
        let mut frames = Frames::new(LIMIT);
        let (first, rest) = bytes.split_at(PREFIX + large.len() + more);
        frames.push(first);
        let message = frames.next().unwrap().unwrap();
        assert_eq!(message, large);
        assert!(message.is_unique());
        assert!(frames.arrived.capacity() <= KEPT);
        drop(message);
        frames.push(rest);
        assert_eq!(frames.next().unwrap().unwrap(), &b"next"[..]);
        assert!(frames.arrived.capacity() <= KEPT);
    }
}

#[test]
fn what_is_no_sequence_of_requests_is_refused() {
    assert_eq!(cut(&[1, 0, 0, 0, 0], &[]), Err(Error::Flag(1)));
    assert_eq!(cut(&[0, 0, 0, 0, 1], &[]), Err(Error::Truncated));
    assert_eq!(cut(&[0, 0], &[]), Err(Error::Truncated));
    let mut bytes = framed(&vec![0; LIMIT]);
    assert_eq!(cut(&bytes, &[999]).unwrap().len(), 1);
    bytes.splice(..PREFIX, framed(&vec![0; LIMIT + 1]).drain(..PREFIX));
    assert_eq!(cut(&bytes, &[]), Err(Error::TooLarge(LIMIT + 1, LIMIT)));
}

/// What a server reads from a body that ends in this way.
fn read(parts: Vec<Result<Frame<Bytes>, Status>>) -> Result<Option<Box<Said>>, Status> {
    let body = Body::new(StreamBody::new(stream::iter(parts)));
    let mut requests = Requests::new(body, LIMIT);
    requests.message().now_or_never().unwrap()
}

#[test]
fn a_client_that_goes_away_has_no_more_to_say_and_other_errors_are_told() {
    let data = |bytes: &[u8]| Ok(Frame::data(Bytes::copy_from_slice(bytes)));
    assert_eq!(read(vec![]).unwrap(), None);
    assert_eq!(read(vec![Err(Status::cancelled("gone"))]).unwrap(), None);
    assert!(read(vec![Err(Status::unknown("broken"))]).is_err());
    assert_eq!(read(vec![data(&[0])]).unwrap_err().code(), Code::Internal);
    let request = DeltaDiscoveryRequest {
        type_url: "t".into(),
        ..DeltaDiscoveryRequest::default()
    };
    let bytes = framed(&request.encode_to_vec());
    assert_eq!(read(vec![data(&bytes)]).unwrap().unwrap().request, request);
    let garbage = read(vec![data(&framed(&[0xff]))]).unwrap_err();
    assert!(garbage.message().contains("decoded"), "{garbage}");
}
