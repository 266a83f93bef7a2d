//! The body of the fuzz target, exported so that a plain test feeds it the saved corpus too.

use mesh_proto::discovery::DeltaDiscoveryResponse;
use prost::Message as _;

use crate::{client, convert};

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
