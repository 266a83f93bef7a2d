//! The body of the fuzz target, exported so that a plain test feeds it the saved corpus too.

use mesh_net::netns::NetNsId;

use crate::{
    codec::{Ack, MAX_MESSAGE, Request, decode_hello},
    proxy::{Identified, Machine, Namespace},
};

/// A namespace that needs no kernel.
#[derive(Clone, Copy)]
struct Number(u64);

impl Identified for Number {
    fn id(&self) -> NetNsId {
        NetNsId {
            dev: 0,
            ino: self.0,
        }
    }
}

/// Feeds a datagram to all decoders, and what is a request to a proxy in each phase, with and without
/// a namespace. Whatever it is: nothing panics, what is accepted survives the way back to the wire, and
/// a proxy plans at most one start.
///
/// # Panics
/// When one of these does not hold.
pub fn datagram(data: &[u8]) {
    let data = data.get(..MAX_MESSAGE).unwrap_or(data);
    let _greeted = decode_hello(data).is_ok();
    if let Ok(ack) = Ack::decode(data) {
        let again = Ack::decode(&ack.encode());
        assert_eq!(again.map(|ack| ack.0.is_ok()), Ok(ack.0.is_ok()));
    }
    let Ok(request) = Request::decode(data) else {
        return;
    };
    // A default service account may make the message longer than it came.
    if let Ok(bytes) = request.encode() {
        assert_eq!(Request::decode(&bytes).as_ref(), Ok(&request));
    }
    for namespace in [
        Namespace::Missing,
        Namespace::Usable(Number(1)),
        Namespace::Usable(Number(2)),
        Namespace::Lost,
    ] {
        let mut machine = Machine::default();
        machine.connected();
        for live in [false, true] {
            if live {
                drop(machine.received(Request::SnapshotSent, Namespace::Missing));
            }
            let Ok(plan) = machine.received(request.clone(), namespace.clone()) else {
                continue;
            };
            if let Some(start) = plan.start {
                machine.settled(&start.uid, start.netns.id(), true);
                assert_eq!(machine.status().running, 1);
            }
        }
    }
}
