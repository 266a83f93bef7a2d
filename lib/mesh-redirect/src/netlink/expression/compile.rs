//! From rules to instructions.

use std::net::IpAddr;

use super::{Expression, Meta, Payload, Relation, Value, family_number, octets};
use crate::{
    contract::probe_set,
    model::{Action, InterfaceName, Mark, Match, Protocol, Rule, Test},
    options::Family,
};

/// The instructions of a rule.
pub(in crate::netlink) fn compile(rule: &Rule) -> Vec<Expression> {
    let mut compiler = Compiler::default();
    for condition in rule.matches() {
        compiler.condition(condition);
    }
    compiler.list.push(Expression::Counter);
    compiler.action(rule.action());
    compiler.list
}

/// The instructions of the jump from the kernel's chain to ours.
pub(in crate::netlink) fn jump(chain: &str) -> Vec<Expression> {
    vec![Expression::Counter, Expression::Jump(chain.to_owned())]
}

#[derive(Default)]
struct Compiler {
    list: Vec<Expression>,
    family_known: bool,
}

// === impl Compiler ===

impl Compiler {
    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::Family(family) => self.family(*family),
            Match::Source(test) => self.address(test, Payload::source),
            Match::Destination(test) => self.address(test, Payload::destination),
            Match::InInterface(test) => self.interface(Meta::InInterface, test),
            Match::OutInterface(test) => self.interface(Meta::OutInterface, test),
            Match::Protocol(protocol) => {
                let number = match protocol {
                    Protocol::Tcp => 6,
                    Protocol::Udp => 17,
                };
                self.list.push(Expression::Meta(Meta::Protocol));
                self.compare(Relation::Equal, vec![number]);
            }
            Match::SourcePort(test) => self.port(Payload::SOURCE_PORT, *test),
            Match::DestinationPort(test) => self.port(Payload::DESTINATION_PORT, *test),
            Match::PacketMark(test) => self.mark(Expression::Meta(Meta::Mark), *test),
            Match::ConnectionMark(test) => self.mark(Expression::ConnectionMark, *test),
            Match::OwnSocket => {
                self.list.push(Expression::Meta(Meta::SocketUser));
                self.list.push(Expression::ToNetworkOrder);
                self.compare(Relation::AtLeast, vec![0; 4]);
            }
            Match::ToProbedPod(family) => {
                self.family(*family);
                let payload = Payload::destination(*family);
                self.list.push(Expression::Payload(payload));
                let set = probe_set(*family).to_owned();
                self.list.push(Expression::Lookup(set));
            }
        }
    }

    /// In a table for both families, said before the first address.
    fn family(&mut self, family: Family) {
        if !std::mem::replace(&mut self.family_known, true) {
            self.list.push(Expression::Meta(Meta::Family));
            self.compare(Relation::Equal, vec![family_number(family)]);
        }
    }

    fn address(&mut self, test: &Test<IpAddr>, place: fn(Family) -> Payload) {
        let family = Family::of(*test.value());
        self.family(family);
        self.list.push(Expression::Payload(place(family)));
        self.compare(Relation::of(test), octets(*test.value()));
    }

    fn interface(&mut self, side: Meta, test: &Test<InterfaceName>) {
        let mut name = test.value().as_str().as_bytes().to_vec();
        name.resize(InterfaceName::MAX_LEN + 1, 0);
        self.list.push(Expression::Meta(side));
        self.compare(Relation::of(test), name);
    }

    fn port(&mut self, place: Payload, test: Test<u16>) {
        self.list.push(Expression::Payload(place));
        self.compare(Relation::of(&test), test.value().to_be_bytes().to_vec());
    }

    fn mark(&mut self, load: Expression, test: Test<Mark>) {
        let Mark { value, mask } = *test.value();
        self.list.push(load);
        self.list.push(Expression::bitwise(mask, 0));
        self.compare(Relation::of(&test), value.to_ne_bytes().to_vec());
    }

    fn compare(&mut self, relation: Relation, value: Value) {
        self.list.push(Expression::Compare { relation, value });
    }

    fn action(&mut self, action: Action) {
        let instructions: &[Expression] = match action {
            Action::Accept => &[Expression::Accept],
            Action::Return => &[Expression::Return],
            Action::Redirect(port) => &[
                Expression::Load(port.to_be_bytes().to_vec()),
                Expression::Redirect,
            ],
            Action::MarkConnection(Mark { value, mask }) => &[
                Expression::ConnectionMark,
                Expression::bitwise(!mask, value),
                Expression::SetConnectionMark,
            ],
            Action::RestoreMark => &[Expression::ConnectionMark, Expression::SetPacketMark],
            Action::TrackInZone(zone) => &[
                Expression::Load(zone.to_ne_bytes().to_vec()),
                Expression::SetZone,
            ],
            Action::SourceAddress(address) => &[
                Expression::Load(octets(address)),
                Expression::Source(Family::of(address)),
            ],
        };
        self.list.extend_from_slice(instructions);
    }
}

// === impl Relation ===

impl Relation {
    fn of<T>(test: &Test<T>) -> Self {
        if test.is_equality() {
            Self::Equal
        } else {
            Self::NotEqual
        }
    }
}
