//! The instructions that the kernel makes of a rule, as far as our rules need them.
//!
//! A rule is compiled to what `nft` compiles it to, instruction by instruction: a listing by `nft` reads
//! the same whoever loaded the rules, and two rules are the same if their instructions are. All of them
//! work on one register.

use std::{fmt, net::IpAddr};

use super::attribute::{Attributes, Writer};
use crate::options::Family;

mod compile;

pub(super) use compile::{compile, jump};

/// `NFT_REG_1`, the register that everything works on.
const REGISTER: u32 = 1;
/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;

/// The elements of `NFTA_RULE_EXPRESSIONS`.
const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// Verdicts, in the form that the kernel gives negative numbers: two's complement.
const ACCEPT: u32 = 1;
const RETURN: u32 = 0xffff_fffb;
const JUMP: u32 = 0xffff_fffd;

/// `NF_NAT_RANGE_MAP_IPS`, which later kernels set by themselves.
const MAP_ADDRESSES: u32 = 1;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: there is a port.
const PORT_SPECIFIED: u32 = 2;

/// A value in the register; at most an address or the name of an interface.
type Value = Vec<u8>;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Counts packets. What it has counted does not matter.
    Counter,
    /// Reads a property of the packet.
    Meta(Meta),
    /// Writes the packet's mark.
    SetPacketMark,
    /// Reads the connection's mark.
    ConnectionMark,
    /// Writes the connection's mark.
    SetConnectionMark,
    /// Writes the zone that the connection is tracked in.
    SetZone,
    /// Reads bytes of the packet.
    Payload(Payload),
    /// `(register & mask) ^ xor`.
    Bitwise { mask: Value, xor: Value },
    /// Puts a number of four bytes into network byte order.
    ToNetworkOrder,
    /// Ends the rule unless the comparison holds.
    Compare { relation: Relation, value: Value },
    /// Ends the rule unless the register is in the set.
    Lookup(String),
    /// Fills the register.
    Load(Value),
    /// Ends the rule with a verdict.
    Accept,
    /// Goes back to the caller.
    Return,
    /// Goes on with another chain, and then here.
    Jump(String),
    /// Redirects to the port in the register.
    Redirect,
    /// Replaces the source by the address in the register.
    Source(Family),
    /// Something that our rules do not use.
    Other(String),
}

/// A property of the packet, with the kernel's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Meta {
    Mark = 3,
    InInterface = 6,
    OutInterface = 7,
    SocketUser = 10,
    Family = 15,
    Protocol = 16,
}

/// Where bytes of the packet are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    /// 1 is the network header, 2 the transport's.
    base: u32,
    offset: u32,
    length: u32,
}

/// A comparison, with the kernel's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Relation {
    Equal = 0,
    NotEqual = 1,
    AtLeast = 5,
}

/// Writes `NFTA_RULE_EXPRESSIONS`.
pub(super) fn write(writer: &mut Writer, list: &[Expression]) {
    for expression in list {
        writer.nest(LIST_ELEMENT, |writer| expression.write(writer));
    }
}

/// Reads `NFTA_RULE_EXPRESSIONS`; what is not understood becomes [`Expression::Other`].
pub(super) fn read(bytes: &[u8]) -> Vec<Expression> {
    let Some(list) = Attributes::parse(bytes) else {
        return vec![Expression::Other("damaged".to_owned())];
    };
    list.list(LIST_ELEMENT).map(Expression::read).collect()
}

/// As one line.
pub(super) fn text(list: &[Expression]) -> String {
    let words: Vec<_> = list.iter().map(Expression::to_string).collect();
    words.join(" ")
}

// === impl Payload ===

impl Payload {
    const SOURCE_PORT: Self = Self::transport(0);
    const DESTINATION_PORT: Self = Self::transport(2);

    const fn transport(offset: u32) -> Self {
        Self {
            base: 2,
            offset,
            length: 2,
        }
    }

    fn source(family: Family) -> Self {
        let (offset, length) = match family {
            Family::V4 => (12, 4),
            Family::V6 => (8, 16),
        };
        Self {
            base: 1,
            offset,
            length,
        }
    }

    fn destination(family: Family) -> Self {
        let source = Self::source(family);
        Self {
            offset: source.offset + source.length,
            ..source
        }
    }
}

// === impl Expression ===

impl Expression {
    fn bitwise(mask: u32, xor: u32) -> Self {
        Self::Bitwise {
            mask: mask.to_ne_bytes().to_vec(),
            xor: xor.to_ne_bytes().to_vec(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Counter => "counter",
            Self::Meta(_) | Self::SetPacketMark => "meta",
            Self::ConnectionMark | Self::SetConnectionMark | Self::SetZone => "ct",
            Self::Payload(_) => "payload",
            Self::Bitwise { .. } => "bitwise",
            Self::ToNetworkOrder => "byteorder",
            Self::Compare { .. } => "cmp",
            Self::Lookup(_) => "lookup",
            Self::Load(_) | Self::Accept | Self::Return | Self::Jump(_) => "immediate",
            Self::Redirect => "redir",
            Self::Source(_) => "nat",
            Self::Other(name) => name,
        }
    }

    fn write(&self, writer: &mut Writer) {
        writer.text(NAME, self.name());
        writer.nest(DATA, |writer| self.write_operands(writer));
    }

    fn write_operands(&self, writer: &mut Writer) {
        match self {
            Self::Meta(key) => numbers(writer, &[(2, *key as u32), (1, REGISTER)]),
            Self::SetPacketMark => numbers(writer, &[(2, Meta::Mark as u32), (3, REGISTER)]),
            Self::ConnectionMark => numbers(writer, &[(2, CT_MARK), (1, REGISTER)]),
            Self::SetConnectionMark => numbers(writer, &[(2, CT_MARK), (4, REGISTER)]),
            Self::SetZone => numbers(writer, &[(2, CT_ZONE), (4, REGISTER)]),
            Self::Payload(Payload {
                base,
                offset,
                length,
            }) => numbers(
                writer,
                &[(1, REGISTER), (2, *base), (3, *offset), (4, *length)],
            ),
            Self::Bitwise { mask, xor } => {
                let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
                numbers(writer, &[(1, REGISTER), (2, REGISTER), (3, length)]);
                value(writer, 4, mask);
                value(writer, 5, xor);
            }
            Self::ToNetworkOrder => {
                let (to_network, size) = (1, 4);
                let operands = [
                    (1, REGISTER),
                    (2, REGISTER),
                    (3, to_network),
                    (4, size),
                    (5, size),
                ];
                numbers(writer, &operands);
            }
            Self::Compare {
                relation,
                value: with,
            } => {
                numbers(writer, &[(1, REGISTER), (2, *relation as u32)]);
                value(writer, 3, with);
            }
            Self::Lookup(set) => {
                writer.text(1, set);
                writer.number(2, REGISTER);
            }
            Self::Load(bytes) => {
                writer.number(1, REGISTER);
                value(writer, 2, bytes);
            }
            Self::Accept => verdict(writer, ACCEPT, None),
            Self::Return => verdict(writer, RETURN, None),
            Self::Jump(chain) => verdict(writer, JUMP, Some(chain)),
            Self::Redirect => numbers(writer, &[(1, REGISTER), (3, PORT_SPECIFIED)]),
            Self::Source(family) => {
                let operands = [
                    (1, SOURCE_NAT),
                    (2, family_number(*family).into()),
                    (3, REGISTER),
                ];
                numbers(writer, &operands);
            }
            Self::Counter | Self::Other(_) => {}
        }
    }

    fn read(bytes: &[u8]) -> Self {
        let outer = Attributes::parse(bytes);
        let name = outer
            .as_ref()
            .and_then(|a| a.text(NAME))
            .unwrap_or("damaged");
        let operands = outer.as_ref().and_then(|a| a.nested(DATA));
        operands
            .and_then(|operands| Self::read_operands(name, &operands))
            .unwrap_or_else(|| Self::Other(name.to_owned()))
    }

    fn read_operands(name: &str, operands: &Attributes<'_>) -> Option<Self> {
        let number = |kind| operands.number(kind);
        let holds = |expected: &[(u16, u32)]| {
            expected
                .iter()
                .all(|(kind, value)| number(*kind) == Some(*value))
        };
        let (known, expression): (&[u16], Self) = match name {
            "counter" => return Some(Self::Counter),
            "meta" if holds(&[(2, Meta::Mark as u32), (3, REGISTER)]) => {
                (&[2, 3], Self::SetPacketMark)
            }
            "meta" if holds(&[(1, REGISTER)]) => (&[1, 2], Self::Meta(Meta::read(number(2)?)?)),
            "ct" if holds(&[(2, CT_MARK), (1, REGISTER)]) => (&[1, 2], Self::ConnectionMark),
            "ct" if holds(&[(2, CT_MARK), (4, REGISTER)]) => (&[2, 4], Self::SetConnectionMark),
            "ct" if holds(&[(2, CT_ZONE), (4, REGISTER)]) => (&[2, 4], Self::SetZone),
            "payload" if holds(&[(1, REGISTER)]) => {
                let (base, offset, length) = (number(2)?, number(3)?, number(4)?);
                let place = Payload {
                    base,
                    offset,
                    length,
                };
                (&[1, 2, 3, 4], Self::Payload(place))
            }
            "bitwise" if holds(&[(1, REGISTER), (2, REGISTER)]) => {
                let (mask, xor) = (read_value(operands, 4)?, read_value(operands, 5)?);
                if usize::try_from(number(3)?).ok()? != mask.len() || mask.len() != xor.len() {
                    return None;
                }
                (&[1, 2, 3, 4, 5], Self::Bitwise { mask, xor })
            }
            "byteorder" if holds(&[(1, REGISTER), (2, REGISTER), (3, 1), (4, 4), (5, 4)]) => {
                (&[1, 2, 3, 4, 5], Self::ToNetworkOrder)
            }
            "cmp" if holds(&[(1, REGISTER)]) => {
                let (relation, value) = (Relation::read(number(2)?)?, read_value(operands, 3)?);
                (&[1, 2, 3], Self::Compare { relation, value })
            }
            // The set's number only means something in the batch that made it.
            "lookup" if holds(&[(2, REGISTER)]) => {
                (&[1, 2, 4], Self::Lookup(operands.text(1)?.to_owned()))
            }
            "immediate" => (&[1, 2], Self::read_immediate(operands)?),
            "redir" if holds(&[(1, REGISTER)]) => {
                let same = number(2).is_none_or(|last| last == REGISTER);
                let plain = number(3).is_none_or(|flags| flags == PORT_SPECIFIED);
                (&[1, 2, 3], (same && plain).then_some(Self::Redirect)?)
            }
            "nat" if holds(&[(1, SOURCE_NAT), (3, REGISTER)]) => {
                let same = number(4).is_none_or(|last| last == REGISTER);
                let plain = number(7).is_none_or(|flags| flags == MAP_ADDRESSES);
                let family = read_family(number(2)?)?;
                (
                    &[1, 2, 3, 4, 7],
                    (same && plain).then_some(Self::Source(family))?,
                )
            }
            _ => return None,
        };
        operands.nothing_but(known).then_some(expression)
    }

    fn read_immediate(operands: &Attributes<'_>) -> Option<Self> {
        if operands.number(1)? == REGISTER {
            return Some(Self::Load(read_value(operands, 2)?));
        }
        let verdict = operands.nested(2)?.nested(DATA_VERDICT)?;
        if operands.number(1)? != VERDICT {
            return None;
        }
        match verdict.number(VERDICT_CODE)? {
            ACCEPT => Some(Self::Accept),
            RETURN => Some(Self::Return),
            JUMP => Some(Self::Jump(verdict.text(VERDICT_CHAIN)?.to_owned())),
            _ => None,
        }
    }
}

/// Keys of connection tracking.
const CT_MARK: u32 = 3;
const CT_ZONE: u32 = 17;
/// Which address `nat` replaces.
const SOURCE_NAT: u32 = 0;

impl Meta {
    fn read(number: u32) -> Option<Self> {
        [
            Self::Mark,
            Self::InInterface,
            Self::OutInterface,
            Self::SocketUser,
            Self::Family,
            Self::Protocol,
        ]
        .into_iter()
        .find(|key| *key as u32 == number)
    }
}

impl Relation {
    fn read(number: u32) -> Option<Self> {
        [Self::Equal, Self::NotEqual, Self::AtLeast]
            .into_iter()
            .find(|relation| *relation as u32 == number)
    }
}

fn numbers(writer: &mut Writer, operands: &[(u16, u32)]) {
    for (kind, value) in operands {
        writer.number(*kind, *value);
    }
}

fn value(writer: &mut Writer, kind: u16, bytes: &[u8]) {
    writer.nest(kind, |writer| writer.put(DATA_VALUE, bytes));
}

fn read_value(operands: &Attributes<'_>, kind: u16) -> Option<Value> {
    Some(operands.nested(kind)?.get(DATA_VALUE)?.to_vec())
}

fn verdict(writer: &mut Writer, code: u32, chain: Option<&str>) {
    writer.number(1, VERDICT);
    writer.nest(2, |writer| {
        writer.nest(DATA_VERDICT, |writer| {
            writer.number(VERDICT_CODE, code);
            if let Some(chain) = chain {
                writer.text(VERDICT_CHAIN, chain);
            }
        });
    });
}

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn read_family(number: u32) -> Option<Family> {
    Family::ALL
        .into_iter()
        .find(|family| u32::from(family_number(*family)) == number)
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

impl fmt::Display for Expression {
    /// Enough to recognise a rule that somebody else made; `nft list ruleset` says it better.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta(key) => write!(f, "meta {key:?}"),
            Self::Payload(Payload {
                base,
                offset,
                length,
            }) => write!(f, "payload {base}+{offset}:{length}"),
            Self::Compare { relation, value } => {
                let sign = match relation {
                    Relation::Equal => "==",
                    Relation::NotEqual => "!=",
                    Relation::AtLeast => ">=",
                };
                write!(f, "{sign} 0x")?;
                value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Accept => f.write_str("accept"),
            Self::Return => f.write_str("return"),
            other => f.write_str(other.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Families, Options, in_pod, on_host};

    fn round_trip(list: &[Expression]) -> Vec<Expression> {
        let mut writer = Writer::default();
        write(&mut writer, list);
        read(&writer.into_bytes())
    }

    #[test]
    fn every_rule_reads_back_as_it_was_compiled() {
        let guests = Options {
            virtual_interfaces: vec!["tap0".parse().unwrap()],
            ..Options::default()
        };
        let host = on_host(Families::Dual, &guests.probes);
        for rules in [in_pod(&guests), host] {
            for rule in rules.chains().iter().flat_map(|chain| &chain.rules) {
                let list = compile(rule);
                assert_eq!(round_trip(&list), list, "{rule:?}");
            }
        }
        let jump = jump("istio-output");
        assert_eq!(round_trip(&jump), jump);
    }

    #[test]
    fn an_operand_that_we_do_not_use_makes_another_instruction() {
        let mut writer = Writer::default();
        writer.nest(LIST_ELEMENT, |writer| {
            writer.text(NAME, "redir");
            // To the port in the register, at random.
            writer.nest(DATA, |writer| {
                numbers(writer, &[(1, REGISTER), (3, PORT_SPECIFIED | 4)]);
            });
        });
        let other = Expression::Other("redir".to_owned());
        assert_eq!(read(&writer.into_bytes()), [other]);
    }

    #[test]
    fn bytes_that_are_no_list_are_no_empty_rule() {
        assert_ne!(read(&[1, 2, 3]), []);
    }
}
