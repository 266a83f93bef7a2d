//! What a pod's rules depend on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    contract::{PROBE_ADDRESS_V4, PROBE_ADDRESS_V6},
    model::InterfaceName,
};

/// What a pod's rules depend on. The default is what most pods get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The families to capture. Traffic of a family that is not captured is left alone.
    pub families: Families,
    /// Whether the proxy answers the pod's DNS queries.
    pub dns_capture: bool,
    /// Whether inbound plain text reaches the application without the proxy: for ingress gateways that
    /// terminate traffic from outside themselves (`ambient.istio.io/bypass-inbound-capture`).
    pub ingress_mode: bool,
    /// Interfaces behind which there is a guest, such as a virtual machine, whose traffic arrives from
    /// outside but is this pod's own (`istio.io/reroute-virtual-interfaces`).
    pub virtual_interfaces: Vec<InterfaceName>,
    /// Where health probes seem to come from.
    pub probes: ProbeAddresses,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// One or both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Families {
    /// One of them.
    Only(Family),
    /// Both.
    Dual,
}

/// The addresses to which the node rewrites the source of kubelet's probes, so that they pass the proxy.
/// Anything with such a source passes: they must be addresses that no one else can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeAddresses {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

/// An address that must not be used for probes: the one who configures the agent has to choose another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProbeAddress {
    /// Only link-local addresses cannot be routed to the pod from elsewhere.
    #[error("probe source address {0} is outside 169.254.0.0/16")]
    NotLinkLocal(Ipv4Addr),
    /// A global address belongs to someone, and loopback, multicast or mapped addresses are no source.
    #[error("probe source address {0} is global or special; use one of fc00::/7")]
    NotPrivate(Ipv6Addr),
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            families: Families::Dual,
            dns_capture: true,
            ingress_mode: false,
            virtual_interfaces: Vec::new(),
            probes: ProbeAddresses::default(),
        }
    }
}

// === impl Family ===

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address of the loopback interface.
    pub fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }
}

// === impl Families ===

impl Families {
    /// The families that are switched on; `None` if none is, and then there is nothing to capture.
    pub fn new(ipv4: bool, ipv6: bool) -> Option<Self> {
        match (ipv4, ipv6) {
            (true, true) => Some(Self::Dual),
            (true, false) => Some(Self::Only(Family::V4)),
            (false, true) => Some(Self::Only(Family::V6)),
            (false, false) => None,
        }
    }

    /// Whether a family is one of them.
    pub fn contains(self, family: Family) -> bool {
        self == Self::Dual || self == Self::Only(family)
    }

    /// Each of them, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL
            .into_iter()
            .filter(move |family| self.contains(*family))
    }
}

// === impl ProbeAddresses ===

impl ProbeAddresses {
    /// These addresses, if they are fit for it.
    pub fn new(v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Self, InvalidProbeAddress> {
        if !v4.is_link_local() {
            return Err(InvalidProbeAddress::NotLinkLocal(v4));
        }
        let first = v6.segments()[0];
        let special = first == 0 || v6.is_multicast();
        let global = first & 0xe000 == 0x2000;
        if special || global {
            return Err(InvalidProbeAddress::NotPrivate(v6));
        }
        Ok(Self { v4, v6 })
    }

    /// The one of a family.
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

impl Default for ProbeAddresses {
    fn default() -> Self {
        Self {
            v4: PROBE_ADDRESS_V4,
            v6: PROBE_ADDRESS_V6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_come_from_addresses_nobody_routes() {
        assert!(ProbeAddresses::new(PROBE_ADDRESS_V4, PROBE_ADDRESS_V6).is_ok());
        let public = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(
            ProbeAddresses::new(public, PROBE_ADDRESS_V6),
            Err(InvalidProbeAddress::NotLinkLocal(public))
        );
        for unfit in ["2001:db8::1", "::1", "::", "::ffff:192.0.2.1", "ff02::1"] {
            let unfit = unfit.parse().unwrap();
            let refused = Err(InvalidProbeAddress::NotPrivate(unfit));
            assert_eq!(ProbeAddresses::new(PROBE_ADDRESS_V4, unfit), refused);
        }
    }

    #[test]
    fn no_family_is_no_set_of_families() {
        assert_eq!(Families::new(false, false), None);
        assert_eq!(Families::new(true, true).map(|f| f.iter().count()), Some(2));
        assert_eq!(Families::new(false, true), Some(Families::Only(Family::V6)));
    }
}
