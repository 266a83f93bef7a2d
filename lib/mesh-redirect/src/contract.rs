//! Numbers and names that the rules share with the proxy, with Istio's ztunnel and with Istio's CNI
//! agent. They are a wire format: whoever changes one breaks the swap of a component for another's, and
//! the removal of rules that another agent left behind.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{model::Mark, options::Family};

/// Where the proxy accepts what applications send out.
pub const OUTBOUND_PORT: u16 = 15001;

/// Where the proxy accepts plain text on its way to an application.
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;

/// Where the proxy accepts HBONE. Never redirected: the proxy listens on it as it arrives.
pub const INBOUND_HBONE_PORT: u16 = 15008;

/// Where the proxy answers captured DNS, on UDP and TCP.
pub const DNS_CAPTURE_PORT: u16 = 15053;

/// The port that DNS capture looks for.
pub const DNS_PORT: u16 = 53;

/// What the proxy sets on its own sockets, so that its traffic is not captured again.
pub const PROXY_MARK: Mark = Mark::new(0x539, 0xfff);

/// What replies carry that must return to the proxy although they are addressed to someone else: the
/// proxy opens connections to the application with the client's address as source.
pub const RETURN_MARK: Mark = Mark::new(0x111, 0xfff);

/// The routing table in which everything is local.
pub const ROUTE_TABLE: u32 = 100;

/// Where the policy rule stands: just before the main table (32766).
pub const RULE_PREFERENCE: u32 = 32764;

/// The conntrack zone of the proxy's own DNS queries; see [`crate::rules`].
pub const DNS_ZONE: u16 = 1;

/// The address to which a node rewrites the source of health probes, IPv4.
pub const PROBE_ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 127);

/// The address to which a node rewrites the source of health probes, IPv6.
pub const PROBE_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(
    0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff,
);

/// The name of a node's set of the pods of one family to which probes may go.
pub const fn probe_set(family: Family) -> &'static str {
    match family {
        Family::V4 => "istio-inpod-probes-v4",
        Family::V6 => "istio-inpod-probes-v6",
    }
}
