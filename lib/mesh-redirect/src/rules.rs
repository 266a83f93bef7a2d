//! The rules of a pod in the mesh and of its node, and why each is there.
//!
//! The proxy is outside of the pod, but its sockets are inside the pod's network namespace. Three things
//! are needed of the kernel: that what applications send and receive is delivered to these sockets; that
//! what the proxy itself sends is not; and that replies find the proxy when it speaks to the application
//! under the client's address. `docs/concepts/redirection.md` draws the way of a packet.

use crate::{
    contract::{
        DNS_CAPTURE_PORT, DNS_PORT, DNS_ZONE, INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT,
        OUTBOUND_PORT, PROXY_MARK, RETURN_MARK,
    },
    model::{
        Action, Chain, Hook, InterfaceName, Mark, Match, Protocol, Rule, RuleSet, Table, Test,
    },
    options::{Families, Family, Options, ProbeAddresses},
};

/// The rules of a pod. They are Istio's, one to one, so that either agent recognises the other's.
pub fn in_pod(options: &Options) -> RuleSet {
    let chain = |table, hook, rules| Chain { table, hook, rules };
    let mut chains = vec![
        chain(Table::Mangle, Hook::Prerouting, tag_proxied_connections()),
        chain(Table::Mangle, Hook::Output, tag_replies_to_proxy()),
    ];
    if options.dns_capture {
        chains.push(chain(
            Table::Raw,
            Hook::Prerouting,
            separate_upstream_dns_answers(),
        ));
        chains.push(chain(
            Table::Raw,
            Hook::Output,
            separate_upstream_dns_queries(),
        ));
    }
    chains.push(chain(
        Table::Nat,
        Hook::Prerouting,
        capture_inbound(options),
    ));
    chains.push(chain(Table::Nat, Hook::Output, capture_outbound(options)));

    if let Families::Only(family) = options.families {
        limit_to(family, &mut chains);
    }
    RuleSet::new(options.families, chains)
}

/// The rules of a node: what its own processes send to a pod of the probe set seems to come from the probe
/// address, which the pod's rules let pass.
///
/// The kubelet is not told from other processes: nothing that the kernel knows does that reliably, neither
/// its user (root) nor its name. What containers and other hosts send has no socket here.
pub fn on_host(families: Families, probes: &ProbeAddresses) -> RuleSet {
    let rules = families.iter().map(|family| {
        let probe = [
            Match::Protocol(Protocol::Tcp),
            Match::OwnSocket,
            Match::ToProbedPod(family),
        ];
        Rule::new(probe, Action::SourceAddress(probes.of(family)))
    });
    let chain = Chain {
        table: Table::Nat,
        hook: Hook::Postrouting,
        rules: rules.collect(),
    };
    RuleSet::new(families, vec![chain])
}

/// The proxy's connections to the application carry the client's address and the proxy's mark. They
/// arrive here over loopback, and the connection remembers where its replies belong. Ingress mode needs
/// this too: HBONE still arrives, and the application's replies to it must find the proxy.
fn tag_proxied_connections() -> Vec<Rule> {
    vec![Rule::new(
        [mark(Test::Is(PROXY_MARK))],
        Action::MarkConnection(RETURN_MARK),
    )]
}

/// The application's reply gets the mark that the policy route looks for. This happens in a chain that
/// routes again when a mark changes, so that the reply goes back over loopback and not to the client.
fn tag_replies_to_proxy() -> Vec<Rule> {
    vec![Rule::new(
        [Match::ConnectionMark(Test::Is(RETURN_MARK))],
        Action::RestoreMark,
    )]
}

/// The proxy's upstream DNS query may have the very addresses and ports of the application's captured
/// one. Another conntrack zone keeps the two apart; otherwise the answer would be rewritten as if it
/// belonged to the application's.
fn separate_upstream_dns_queries() -> Vec<Rule> {
    let query = [
        Match::Protocol(Protocol::Udp),
        Match::DestinationPort(Test::Is(DNS_PORT)),
        mark(Test::Is(PROXY_MARK)),
    ];
    vec![Rule::new(query, Action::TrackInZone(DNS_ZONE))]
}

/// See [`separate_upstream_dns_queries`]: the answer has to be looked up in the same zone.
fn separate_upstream_dns_answers() -> Vec<Rule> {
    let answer = [
        Match::Protocol(Protocol::Udp),
        Match::SourcePort(Test::Is(DNS_PORT)),
        mark(Test::IsNot(PROXY_MARK)),
    ];
    vec![Rule::new(answer, Action::TrackInZone(DNS_ZONE))]
}

/// What arrives from outside.
fn capture_inbound(options: &Options) -> Vec<Rule> {
    let mut rules = Vec::new();
    // A guest's traffic comes in through its interface, but is outbound traffic of this pod. The second
    // rule is never reached; Istio's agent counts rules to recognise a pod that is in order.
    for interface in &options.virtual_interfaces {
        let from_guest = || {
            [
                Match::InInterface(Test::Is(interface.clone())),
                Match::Protocol(Protocol::Tcp),
            ]
        };
        rules.push(Rule::new(from_guest(), Action::Redirect(OUTBOUND_PORT)));
        rules.push(Rule::new(from_guest(), Action::Return));
    }
    if options.ingress_mode {
        return rules;
    }
    // Kubelet's probes reach the application as they are.
    rules.extend(options.families.iter().map(|family| {
        let probe = Match::Source(Test::Is(options.probes.of(family)));
        Rule::new([probe, Match::Protocol(Protocol::Tcp)], Action::Accept)
    }));
    // Anything else goes to the proxy, except HBONE, which it accepts as it comes, and its own
    // connections to the application.
    rules.extend(options.families.iter().map(|family| {
        let plaintext = [
            not_to_loopback(family),
            Match::Protocol(Protocol::Tcp),
            Match::DestinationPort(Test::IsNot(INBOUND_HBONE_PORT)),
            mark(Test::IsNot(PROXY_MARK)),
        ];
        Rule::new(plaintext, Action::Redirect(INBOUND_PLAINTEXT_PORT))
    }));
    rules
}

/// What processes of the pod send.
fn capture_outbound(options: &Options) -> Vec<Rule> {
    let per_family = |rule: &dyn Fn(Family) -> Rule| -> Vec<Rule> {
        options.families.iter().map(rule).collect()
    };
    let tcp = || Match::Protocol(Protocol::Tcp);
    let unmarked = || mark(Test::IsNot(PROXY_MARK));

    // Replies to kubelet's probes.
    let mut rules = per_family(&|family| {
        let probe = Match::Destination(Test::Is(options.probes.of(family)));
        Rule::new([probe, tcp()], Action::Accept)
    });
    if options.dns_capture {
        // A resolver on loopback, such as a node-local cache in the pod, keeps its clients.
        let query = [
            Match::OutInterface(Test::IsNot(InterfaceName::loopback())),
            Match::Protocol(Protocol::Udp),
            Match::DestinationPort(Test::Is(DNS_PORT)),
            unmarked(),
        ];
        rules.push(Rule::new(query, Action::Redirect(DNS_CAPTURE_PORT)));
        rules.extend(per_family(&|family| {
            let port = Match::DestinationPort(Test::Is(DNS_PORT));
            let query = [not_to_loopback(family), tcp(), port, unmarked()];
            Rule::new(query, Action::Redirect(DNS_CAPTURE_PORT))
        }));
    }
    // Replies on their way back to the proxy are no new traffic.
    rules.push(Rule::new(
        [tcp(), mark(Test::Is(RETURN_MARK))],
        Action::Accept,
    ));
    // The pod speaks to itself under its own address.
    rules.extend(per_family(&|family| {
        let loopback = Match::OutInterface(Test::Is(InterfaceName::loopback()));
        Rule::new([not_to_loopback(family), loopback], Action::Accept)
    }));
    rules.extend(per_family(&|family| {
        Rule::new(
            [not_to_loopback(family), tcp(), unmarked()],
            Action::Redirect(OUTBOUND_PORT),
        )
    }));
    rules
}

/// Makes every rule speak of its family. The tables of nftables hold both, and a rule that compares no
/// address would otherwise capture the family that nobody listens for.
fn limit_to(family: Family, chains: &mut [Chain]) {
    for rule in chains.iter_mut().flat_map(|chain| &mut chain.rules) {
        if rule.family().is_none() {
            let matches = rule
                .matches()
                .iter()
                .cloned()
                .chain([Match::Family(family)]);
            *rule = Rule::new(matches, rule.action());
        }
    }
}

fn mark(test: Test<Mark>) -> Match {
    Match::PacketMark(test)
}

fn not_to_loopback(family: Family) -> Match {
    Match::Destination(Test::IsNot(family.loopback()))
}
