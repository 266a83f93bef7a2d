//! Probes to pods that have a network interface of the cloud for themselves.
//!
//! With security groups for pods, Amazon's CNI plugin gives a pod a branch of the node's interface, and
//! routes what the pod sends by the interface that it came from, before the node's own addresses are
//! looked up. So the answer to a probe whose source the node has replaced goes to the cloud and is lost.
//! Two rules bring it back: what goes to the pod takes the pod's table, and what comes from the pod is
//! looked up among the node's own addresses first.
//!
//! Nothing is remembered: which rules are ours is written on them in the kernel, and which are wanted
//! follows from the plugin's own.

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use crate::routing::{Error, Family, Netlink, interface_index, is_absent};

/// Says of a rule that it is ours; the kernel keeps the number and gives it no meaning.
const OURS: RouteProtocol = RouteProtocol::Other(107);

/// Where the rule for what goes to a pod stands; Istio's agent has it there too.
const TO_POD_PREFERENCE: u32 = 512;

/// The table of the node's own addresses.
const LOCAL: u32 = 255;

/// Tables that belong to no pod: unspecified, main and local.
const COMMON: [u32; 3] = [0, 254, LOCAL];

/// A rule, as far as it concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    from_interface: Option<String>,
    to: Option<IpAddr>,
    table: u32,
    preference: u32,
    ours: bool,
}

/// A pod's place: the rule for what comes from its interface.
struct Branch {
    interface: String,
    table: u32,
    preference: u32,
}

/// Makes the rules for a pod of the node in whose namespace the calling thread is; false if the pod has
/// no branch, and then there are none.
pub fn ensure(pod: IpAddr) -> Result<bool, Error> {
    let family = family_of(pod);
    let mut netlink = Netlink::open()?;
    let rules = list_rules(&mut netlink, family)?;
    let Some(branch) = find(&mut netlink, family, &rules, pod)? else {
        sweep(&mut netlink, family, &rules, Some(pod))?;
        return Ok(false);
    };
    let wanted = [
        Rule {
            from_interface: None,
            to: Some(pod),
            table: branch.table,
            preference: TO_POD_PREFERENCE,
            ours: true,
        },
        Rule {
            from_interface: Some(branch.interface),
            to: None,
            table: LOCAL,
            preference: branch.preference.saturating_sub(1),
            ours: true,
        },
    ];
    let former = |rule: &&Rule| rule.ours && rule.to == Some(pod) && !wanted.contains(rule);
    for rule in rules.iter().filter(former) {
        delete(&mut netlink, family, rule)?;
    }
    for rule in wanted.iter().filter(|rule| !rules.contains(rule)) {
        add(&mut netlink, family, rule)?;
    }
    Ok(true)
}

/// Removes the rules for a pod, and those for interfaces that have gone. Harmless where there are none.
pub fn remove(pod: IpAddr) -> Result<(), Error> {
    let family = family_of(pod);
    let mut netlink = Netlink::open()?;
    let rules = list_rules(&mut netlink, family)?;
    sweep(&mut netlink, family, &rules, Some(pod))
}

/// Removes all rules that are ours.
pub fn clear() -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    for family in Family::ALL {
        for rule in list_rules(&mut netlink, family)?
            .iter()
            .filter(|rule| rule.ours)
        {
            delete(&mut netlink, family, rule)?;
        }
    }
    Ok(())
}

/// Removes what is ours for a pod: the rule for its address, and that for its interface if no other pod
/// address leads to the same table. What is ours for interfaces that nobody routes by goes too.
fn sweep(
    netlink: &mut Netlink,
    family: Family,
    rules: &[Rule],
    pod: Option<IpAddr>,
) -> Result<(), Error> {
    let (gone, kept): (Vec<_>, Vec<_>) = rules
        .iter()
        .filter(|rule| rule.ours && rule.to.is_some())
        .partition(|rule| rule.to == pod);
    for rule in &gone {
        delete(netlink, family, rule)?;
    }
    for own in rules.iter().filter(|rule| rule.ours && rule.to.is_none()) {
        let leads_to_a_pod = |theirs: &&Rule| {
            let same = !theirs.ours && theirs.from_interface == own.from_interface;
            same && kept.iter().any(|rule| rule.table == theirs.table)
        };
        if !rules.iter().any(|theirs| leads_to_a_pod(&theirs)) {
            delete(netlink, family, own)?;
        }
    }
    Ok(())
}

/// The plugin's rule for what comes from the interface to which its table routes the pod's address.
fn find(
    netlink: &mut Netlink,
    family: Family,
    rules: &[Rule],
    pod: IpAddr,
) -> Result<Option<Branch>, Error> {
    let candidates: Vec<_> = rules
        .iter()
        .filter(|rule| !rule.ours && !COMMON.contains(&rule.table))
        .filter_map(|rule| Some((rule, rule.from_interface.clone()?)))
        .collect();
    if candidates.is_empty() {
        return Ok(None);
    }
    let routes = list_routes(netlink, family, pod)?;
    for (rule, interface) in candidates {
        let Ok(index) = interface_index(&interface) else {
            continue;
        };
        if routes.contains(&(rule.table, index)) {
            return Ok(Some(Branch {
                interface,
                table: rule.table,
                preference: rule.preference,
            }));
        }
    }
    Ok(None)
}

/// The routes for exactly this address: each one's table and interface.
fn list_routes(
    netlink: &mut Netlink,
    family: Family,
    pod: IpAddr,
) -> Result<Vec<(u32, u32)>, Error> {
    let mut request = RouteMessage::default();
    request.header.address_family = family.address_family();
    let address = match pod {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    };
    let mut routes = Vec::new();
    netlink.list(RouteNetlinkMessage::GetRoute(request), |message| {
        let RouteNetlinkMessage::NewRoute(route) = message else {
            return;
        };
        let (mut to, mut table, mut interface) = (None, None, None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(destination) => to = Some(destination),
                RouteAttribute::Table(number) => table = Some(*number),
                RouteAttribute::Oif(index) => interface = Some(*index),
                _ => {}
            }
        }
        let whole = route.header.destination_prefix_length == length(family);
        if let (true, true, Some(table), Some(interface)) =
            (whole, to == Some(&address), table, interface)
        {
            routes.push((table, interface));
        }
    })?;
    Ok(routes)
}

fn list_rules(netlink: &mut Netlink, family: Family) -> Result<Vec<Rule>, Error> {
    let mut request = RuleMessage::default();
    request.header.family = family.address_family();
    let mut rules = Vec::new();
    netlink.list(RouteNetlinkMessage::GetRule(request), |message| {
        if let RouteNetlinkMessage::NewRule(rule) = message {
            rules.push(Rule::read(&rule, family));
        }
    })?;
    Ok(rules)
}

fn add(netlink: &mut Netlink, family: Family, rule: &Rule) -> Result<(), Error> {
    let message = RouteNetlinkMessage::NewRule(rule.message(family));
    match netlink.ask(message, NLM_F_CREATE | NLM_F_EXCL)? {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(family.refused("add a rule for a pod's own interface", error))
        }
        _ => Ok(()),
    }
}

fn delete(netlink: &mut Netlink, family: Family, rule: &Rule) -> Result<(), Error> {
    let message = RouteNetlinkMessage::DelRule(rule.message(family));
    match netlink.ask(message, 0)? {
        Err(error) if !is_absent(&error) => {
            Err(family.refused("remove a rule for a pod's own interface", error))
        }
        _ => Ok(()),
    }
}

fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// The length of a prefix that is one address.
fn length(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

// === impl Rule ===

impl Rule {
    fn read(message: &RuleMessage, family: Family) -> Self {
        let mut rule = Self {
            from_interface: None,
            to: None,
            table: message.header.table.into(),
            preference: 0,
            ours: false,
        };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Iifname(name) => rule.from_interface = Some(name.clone()),
                RuleAttribute::Destination(to) if message.header.dst_len == length(family) => {
                    rule.to = Some(*to);
                }
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::Priority(preference) => rule.preference = *preference,
                RuleAttribute::Protocol(protocol) => rule.ours = *protocol == OURS,
                _ => {}
            }
        }
        rule
    }

    /// Only for rules that are ours.
    fn message(&self, family: Family) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = family.address_family();
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Table(self.table),
            RuleAttribute::Priority(self.preference),
            RuleAttribute::Protocol(OURS),
        ];
        if let Some(to) = self.to {
            message.header.dst_len = length(family);
            message.attributes.push(RuleAttribute::Destination(to));
        }
        if let Some(name) = &self.from_interface {
            message
                .attributes
                .push(RuleAttribute::Iifname(name.clone()));
        }
        message
    }
}
