//! The policy route that brings replies to a transparent socket back to it.
//!
//! The proxy connects to a pod's application from the address of a remote client. The application's
//! replies are addressed to that client and would leave the pod; a firewall rule marks them, and the
//! route made here delivers what is marked to this namespace itself.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    num::NonZeroI32,
    time::Duration,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use socket2::{Domain, Protocol, Socket, Type};

/// `1` where the loopback interface of the calling thread's namespace carries no IPv6.
const IPV6_OFF: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

/// How long the kernel may take to answer. It answers before the request returns; the limit guards
/// against waiting for ever for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Room for one answer of a listing; the kernel puts at most 32 KiB into each.
const LISTING_ROOM: usize = 64 * 1024;

/// Most copies of one rule that are removed; only other programs make more than one.
const MOST_COPIES: usize = 64;

/// "What carries the mark is for this host": a rule, and the only route of the table it points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRoute {
    /// The packets concerned: those whose mark, masked, is this.
    pub mark: u32,
    /// The bits of the mark that count.
    pub mask: u32,
    /// Where the rule stands among others; lower numbers come first.
    pub priority: u32,
    /// The routing table.
    pub table: u32,
}

/// A version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a call found and left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as asked for, whether it was before or not.
    Done,
    /// The namespace does not use the family, so there is nothing to do.
    FamilyOff,
}

/// What of rule and route is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The rule.
    pub rule: bool,
    /// The route.
    pub route: bool,
}

/// Why the route is not as asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel cannot be talked to. It is at fault, or no descriptor is left.
    #[error("talk to the kernel about routes")]
    Netlink(#[source] io::Error),
    /// The kernel's answer makes no sense.
    #[error("the kernel's answer about routes cannot be read")]
    Answer,
    /// The kernel refused; changes need `CAP_NET_ADMIN`.
    #[error("{operation} for {family:?}")]
    Refused {
        /// What was refused.
        operation: &'static str,
        /// For which family.
        family: Family,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A conversation with the kernel about the namespace it was opened in.
pub(crate) struct Netlink(Socket);

// === impl PolicyRoute ===

impl PolicyRoute {
    /// The one of the contract between CNI agent and proxy: `fwmark 0x111/0xfff pref 32764 lookup 100`.
    pub const IN_POD: Self = Self {
        mark: 0x111,
        mask: 0xfff,
        priority: 32764,
        table: 100,
    };

    /// Makes the rule and the route of one family, where they are not there already, in the namespace
    /// of the calling thread.
    ///
    /// Each family is by itself: call it for both.
    pub fn ensure(&self, family: Family) -> Result<Outcome, Error> {
        if family.is_off() {
            return Ok(Outcome::FamilyOff);
        }
        let mut netlink = Netlink::open()?;
        // The route first: a rule that points to an empty table does nothing, but is not wrong either.
        let route = RouteNetlinkMessage::NewRoute(self.route(family)?);
        netlink
            .ask(route, NLM_F_CREATE | NLM_F_REPLACE)?
            .map_err(|e| family.refused("add the local route", e))?;
        let rule = RouteNetlinkMessage::NewRule(self.rule(family));
        match netlink.ask(rule, NLM_F_CREATE | NLM_F_EXCL)? {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(family.refused("add the routing rule", error))
            }
            _ => Ok(Outcome::Done),
        }
    }

    /// Removes the rule, all its copies, and the route of one family from the namespace of the calling
    /// thread. What is not there is no error; a failure of one does not keep the other.
    pub fn remove(&self, family: Family) -> Result<Outcome, Error> {
        let mut netlink = Netlink::open()?;
        let rule = self.remove_rules(&mut netlink, family);
        let route = self.remove_routes(&mut netlink, family);
        rule.and(route)?;
        Ok(if family.is_off() {
            Outcome::FamilyOff
        } else {
            Outcome::Done
        })
    }

    /// Looks for the rule and the route of one family in the namespace of the calling thread; none where
    /// the namespace does not use the family.
    pub fn look(&self, family: Family) -> Result<Option<Presence>, Error> {
        if family.is_off() {
            return Ok(None);
        }
        let mut netlink = Netlink::open()?;
        let mut presence = Presence {
            rule: false,
            route: false,
        };
        let (mut rule, mut route) = (RuleMessage::default(), RouteMessage::default());
        rule.header.family = family.address_family();
        route.header.address_family = family.address_family();
        let loopback = loopback_index()?;
        netlink.list(RouteNetlinkMessage::GetRule(rule), |message| {
            presence.rule |= matches!(message, RouteNetlinkMessage::NewRule(r) if self.is_rule(&r));
        })?;
        netlink.list(RouteNetlinkMessage::GetRoute(route), |message| {
            presence.route |=
                matches!(message, RouteNetlinkMessage::NewRoute(r) if self.is_route(&r, loopback));
        })?;
        Ok(Some(presence))
    }

    fn is_rule(&self, rule: &RuleMessage) -> bool {
        let wanted = self.rule(Family::V4).attributes;
        let narrower = |attribute: &RuleAttribute| {
            use RuleAttribute::{
                Destination, DestinationPortRange, Iifname, IpProtocol, L3MDev, Oifname, Source,
                SourcePortRange, UidRange,
            };
            matches!(
                attribute,
                Source(_)
                    | Destination(_)
                    | Iifname(_)
                    | Oifname(_)
                    | IpProtocol(_)
                    | L3MDev(_)
                    | SourcePortRange(_)
                    | DestinationPortRange(_)
                    | UidRange(_)
            )
        };
        rule.header.action == RuleAction::ToTable
            && rule.header.flags.is_empty()
            && wanted.iter().all(|a| rule.attributes.contains(a))
            && !rule.attributes.iter().any(narrower)
    }

    fn is_route(&self, route: &RouteMessage, loopback: u32) -> bool {
        let has = |attribute| route.attributes.contains(&attribute);
        route.header.kind == RouteType::Local
            && route.header.destination_prefix_length == 0
            && route.header.source_prefix_length == 0
            && has(RouteAttribute::Table(self.table))
            && has(RouteAttribute::Oif(loopback))
    }

    fn remove_rules(&self, netlink: &mut Netlink, family: Family) -> Result<(), Error> {
        for _copy in 0..MOST_COPIES {
            let rule = RouteNetlinkMessage::DelRule(self.rule(family));
            match netlink.ask(rule, 0)? {
                Ok(()) => {}
                Err(error) if is_absent(&error) => return Ok(()),
                Err(error) => return Err(family.refused("remove the routing rule", error)),
            }
        }
        Ok(())
    }

    /// Whoever made it: Istio's agent calls itself the boot's protocol.
    fn remove_routes(&self, netlink: &mut Netlink, family: Family) -> Result<(), Error> {
        let mut route = self.route(family)?;
        route.header.protocol = RouteProtocol::Unspec;
        route.header.scope = RouteScope::NoWhere;
        for _copy in 0..MOST_COPIES {
            match netlink.ask(RouteNetlinkMessage::DelRoute(route.clone()), 0)? {
                Ok(()) => {}
                Err(error) if is_absent(&error) => return Ok(()),
                Err(error) => return Err(family.refused("remove the local route", error)),
            }
        }
        Ok(())
    }

    fn rule(&self, family: Family) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.family = family.address_family();
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Table(self.table),
            RuleAttribute::Priority(self.priority),
            RuleAttribute::FwMark(self.mark),
            RuleAttribute::FwMask(self.mask),
        ];
        rule
    }

    fn route(&self, family: Family) -> Result<RouteMessage, Error> {
        let mut route = RouteMessage::default();
        route.header.address_family = family.address_family();
        route.header.protocol = RouteProtocol::Static;
        route.header.scope = RouteScope::Host;
        route.header.kind = RouteType::Local;
        route.attributes = vec![
            RouteAttribute::Table(self.table),
            RouteAttribute::Oif(loopback_index()?),
        ];
        Ok(route)
    }
}

// === impl Family ===

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Whether the namespace of the calling thread does not use the family at all.
    fn is_off(self) -> bool {
        match self {
            Self::V4 => false,
            // No such file: a kernel without IPv6.
            Self::V6 => fs::read_to_string(IPV6_OFF).map_or(true, |text| text.trim() == "1"),
        }
    }

    pub(crate) fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    pub(crate) fn refused(self, operation: &'static str, source: io::Error) -> Error {
        Error::Refused {
            operation,
            family: self,
            source,
        }
    }
}

// === impl Netlink ===

impl Netlink {
    pub(crate) fn open() -> Result<Self, Error> {
        let domain = Domain::from(libc::AF_NETLINK);
        let protocol = Protocol::from(libc::NETLINK_ROUTE);
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).map_err(Error::Netlink)?;
        socket
            .set_read_timeout(Some(PATIENCE))
            .map_err(Error::Netlink)?;
        Ok(Self(socket))
    }

    /// Sends one request and returns the kernel's verdict; the outer error is one of the conversation.
    pub(crate) fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<io::Result<()>, Error> {
        let bytes = self.send(request, NLM_F_ACK | flags)?;
        // An answer repeats the request behind the verdict.
        let mut answer = vec![0; bytes + 4096];
        let length = self.0.read(&mut answer).map_err(Error::Netlink)?;
        let answer = answer.get(..length).ok_or(Error::Answer)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer);
        match answer.map(|message| message.payload) {
            Ok(NetlinkPayload::Error(verdict)) => Ok(as_result(verdict.code)),
            _ => Err(Error::Answer),
        }
    }

    /// Has every message seen with which the kernel answers a request to list something.
    pub(crate) fn list(
        &mut self,
        request: RouteNetlinkMessage,
        mut see: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), Error> {
        self.send(request, NLM_F_DUMP)?;
        let mut buffer = vec![0; LISTING_ROOM];
        loop {
            let length = self.0.read(&mut buffer).map_err(Error::Netlink)?;
            let mut rest = buffer.get(..length).ok_or(Error::Answer)?;
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|_unreadable| Error::Answer)?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest
                    .get(length.max(1).saturating_add(3) & !3..)
                    .unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => see(message),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(verdict) => {
                        return as_result(verdict.code).map_err(Error::Netlink);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Sends one request and returns its length.
    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<usize, Error> {
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.write_all(&bytes).map_err(Error::Netlink)?;
        Ok(bytes.len())
    }
}

fn as_result(code: Option<NonZeroI32>) -> io::Result<()> {
    match code {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_abs())),
    }
}

/// No such rule, no such route, or no such family.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ESRCH | libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
    )
}

fn loopback_index() -> Result<u32, Error> {
    interface_index("lo")
}

/// The number of an interface of the calling thread's namespace.
pub(crate) fn interface_index(name: &str) -> Result<u32, Error> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).map_err(Error::Netlink)?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|e| Error::Netlink(e.into()))
}
