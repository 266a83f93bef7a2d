//! The PROXY protocol, version 2: told to an application that is itself a proxy (a waypoint behind
//! ztunnel), it names the connection's real client, its real target and the client's identity.
//!
//! Only the sending side is here: the mesh never accepts a PROXY header.

use std::net::{IpAddr, SocketAddr};

use mesh_core::identity::Identity;

/// The type of the TLV that carries the peer's SPIFFE id, from the range for private use.
pub const TLV_PEER_IDENTITY: u8 = 0xD0;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_COMMAND_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header for a connection from `client` to `target`, of a client that proved `identity`.
///
/// When the two addresses are not of one family, both are written as IPv6, the IPv4 one mapped: the
/// protocol knows one family per header.
pub fn header(client: SocketAddr, target: SocketAddr, identity: Option<&Identity>) -> Vec<u8> {
    let tlv = identity.map(Identity::to_string).unwrap_or_default();
    let mut body = Vec::with_capacity(64 + tlv.len());
    let family = match (client.ip(), target.ip()) {
        (IpAddr::V4(client), IpAddr::V4(target)) => {
            body.extend_from_slice(&client.octets());
            body.extend_from_slice(&target.octets());
            TCP_OVER_IPV4
        }
        (client, target) => {
            body.extend_from_slice(&sixteen(client));
            body.extend_from_slice(&sixteen(target));
            TCP_OVER_IPV6
        }
    };
    body.extend_from_slice(&client.port().to_be_bytes());
    body.extend_from_slice(&target.port().to_be_bytes());
    // An identity is at most 2048 bytes long by construction; one that no length field can hold is
    // not sent.
    if let Some(length) = u16::try_from(tlv.len()).ok().filter(|length| *length > 0) {
        body.push(TLV_PEER_IDENTITY);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(tlv.as_bytes());
    }
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut header = Vec::with_capacity(16 + body.len());
    header.extend_from_slice(&SIGNATURE);
    header.extend_from_slice(&[VERSION_2_COMMAND_PROXY, family]);
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&body);
    header
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ipv4_header_is_that_of_the_specification() {
        let identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let bytes = header(
            "10.0.0.1:4000".parse().unwrap(),
            "10.0.0.2:80".parse().unwrap(),
            Some(&identity),
        );
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x24".to_vec();
        expected.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0x0f, 0xa0, 0, 80, 0xd0, 0, 21]);
        expected.extend_from_slice(b"spiffe://td/ns/a/sa/b");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn mixed_families_are_written_as_ipv6() {
        let bytes = header(
            "10.0.0.1:1".parse().unwrap(),
            "[fd00::2]:2".parse().unwrap(),
            None,
        );
        assert_eq!(bytes[13], TCP_OVER_IPV6);
        assert_eq!(bytes.len(), 16 + 36);
        assert_eq!(bytes[26..32], [0xff, 0xff, 10, 0, 0, 1]);
    }

    proptest! {
        #[test]
        fn the_length_field_is_that_of_what_follows(client: SocketAddr, target: SocketAddr, named: bool) {
            let identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
            let bytes = header(client, target, named.then_some(&identity));
            prop_assert_eq!(usize::from(u16::from_be_bytes([bytes[14], bytes[15]])), bytes.len() - 16);
            prop_assert_eq!(&bytes[..12], &SIGNATURE);
        }
    }
}
