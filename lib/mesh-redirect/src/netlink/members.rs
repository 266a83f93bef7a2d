//! The members of a node's probe set, each with a comment that says whose it is.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    INET,
    attribute::{Attributes, Writer},
    batch::{Batch, CREATE, Kind, Message, dump},
    expression::octets,
};
use crate::{contract::probe_set, model::Table, nftables::table_name, options::Family};

/// Attributes of a list of elements.
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
/// Attributes of an element.
const ELEMENT: u16 = 1;
const KEY: u16 = 1;
const USERDATA: u16 = 6;
const VALUE: u16 = 1;

/// What `nft` calls a comment in the data that the kernel keeps for it.
const COMMENT: u8 = 0;
/// The longest comment that `nft` writes, in bytes without the zero at its end.
pub const COMMENT_LIMIT: usize = 127;
/// Elements in one message; the list has to stay below 64 KiB.
const AT_ONCE: usize = 200;

/// Members, each with its comment; an empty one is none.
pub type Members = BTreeMap<IpAddr, String>;

/// A batch that adds a member which is not one yet. One that is one keeps its comment: see [`insert`].
pub fn add(address: IpAddr, comment: &str) -> Batch {
    let mut batch = Batch::default();
    let member = [(address, comment)];
    let family = Family::of(address);
    push(&mut batch, (Kind::NewElement, CREATE), family, &member);
    batch
}

/// The batch that makes an address a member with this comment, whatever it had before. What adds a
/// member leaves one that is there alone, comment and all: so it is removed first, and to be removable
/// it is added before.
///
/// A comment longer than [`COMMENT_LIMIT`] is cut: callers check.
pub fn insert(address: IpAddr, comment: &str) -> Batch {
    let mut batch = Batch::default();
    let family = Family::of(address);
    let member = [(address, comment)];
    push(&mut batch, (Kind::NewElement, CREATE), family, &member);
    push(&mut batch, (Kind::DeleteElement, 0), family, &member);
    push(&mut batch, (Kind::NewElement, CREATE), family, &member);
    batch
}

/// The batch that removes an address; the kernel refuses with `ENOENT` if it is no member.
pub fn remove(address: IpAddr) -> Batch {
    let mut batch = Batch::default();
    let family = Family::of(address);
    push(
        &mut batch,
        (Kind::DeleteElement, 0),
        family,
        &[(address, "")],
    );
    batch
}

/// What to send to have all members of both families listed.
pub fn requests() -> Vec<Vec<u8>> {
    let of = |family| {
        dump(Kind::GetElement, INET, |writer| {
            writer.text(TABLE, table_name(Table::Nat));
            writer.text(SET, probe_set(family));
        })
    };
    Family::ALL.map(of).into()
}

/// Reads what the kernel answered to [`requests`]. What is no address is passed over: it matches nothing.
pub fn decode(bytes: &[u8]) -> Members {
    let mut members = Members::new();
    let (messages, _) = Message::split(bytes);
    for message in &messages {
        read_message(&mut members, message);
    }
    members
}

/// Adds what one message of an answer says to have; nothing if it is about something else.
pub fn read(members: &mut Members, message: &[u8]) {
    if let Some((message, _)) = Message::first(message) {
        read_message(members, &message);
    }
}

fn read_message(members: &mut Members, message: &Message<'_>) {
    if !message.is(Kind::NewElement) || message.family != INET {
        return;
    }
    let Some(attributes) = Attributes::parse(message.body) else {
        return;
    };
    let ours = attributes.text(TABLE) == Some(table_name(Table::Nat))
        && Family::ALL
            .iter()
            .any(|f| attributes.text(SET) == Some(probe_set(*f)));
    if let (true, Some(list)) = (ours, attributes.nested(ELEMENTS)) {
        members.extend(list.list(ELEMENT).filter_map(member));
    }
}

/// Adds members to a set that the batch has just made.
pub(super) fn fill(batch: &mut Batch, family: Family, members: &Members) {
    let of_family: Vec<_> = members
        .iter()
        .filter(|(address, _)| Family::of(**address) == family)
        .map(|(address, comment)| (*address, comment.as_str()))
        .collect();
    for some in of_family.chunks(AT_ONCE) {
        push(batch, (Kind::NewElement, CREATE), family, some);
    }
}

fn push(batch: &mut Batch, kind: (Kind, u16), family: Family, members: &[(IpAddr, &str)]) {
    let verb = if kind.0 == Kind::DeleteElement {
        "delete"
    } else {
        "add"
    };
    let (table, set) = (table_name(Table::Nat), probe_set(family));
    let what = match members {
        [(address, _)] => format!("{verb} element inet {table} {set} {{ {address} }}"),
        several => format!("{verb} {} elements of inet {table} {set}", several.len()),
    };
    batch.push(kind, INET, what, |writer| {
        writer.text(TABLE, table);
        writer.text(SET, set);
        writer.nest(ELEMENTS, |writer| {
            for (address, comment) in members {
                writer.nest(ELEMENT, |writer| write(writer, *address, comment));
            }
        });
    });
}

fn write(writer: &mut Writer, address: IpAddr, comment: &str) {
    writer.nest(KEY, |writer| writer.put(VALUE, &octets(address)));
    let comment = comment.get(..COMMENT_LIMIT).unwrap_or(comment);
    if let (false, Ok(length)) = (comment.is_empty(), u8::try_from(comment.len() + 1)) {
        let data = [&[COMMENT, length], comment.as_bytes(), &[0]].concat();
        writer.put(USERDATA, &data);
    }
}

fn member(element: &[u8]) -> Option<(IpAddr, String)> {
    let attributes = Attributes::parse(element)?;
    let key = attributes.nested(KEY)?.get(VALUE)?;
    let address = if let Ok(v4) = <[u8; 4]>::try_from(key) {
        IpAddr::from(v4)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(key).ok()?)
    };
    let comment = attributes.get(USERDATA).and_then(comment);
    Some((address, comment.unwrap_or_default()))
}

/// The comment in what `nft` keeps of an element: a list of type, length and value.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            let text = value.strip_suffix(&[0])?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_is_found_behind_other_data() {
        assert_eq!(comment(b"\x07\x01x\x00\x04uid\x00"), Some("uid".to_owned()));
        for none in [
            &b""[..],
            b"\x07\x01x",
            b"\x00\x09uid\x00",
            b"\x00\x03uid",
            b"\x00",
        ] {
            assert_eq!(comment(none), None, "{none:?}");
        }
    }

    #[test]
    fn members_of_many_pods_are_several_messages() {
        let members: Members = (0..=u16::try_from(AT_ONCE).unwrap())
            .map(|n| {
                (
                    IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]),
                    "uid".to_owned(),
                )
            })
            .collect();
        let mut batch = Batch::default();
        fill(&mut batch, Family::V4, &members);
        assert!(
            batch.step(2).unwrap().contains("element"),
            "{:?}",
            batch.step(2)
        );
        assert_eq!(batch.step(3), None);
        assert_eq!(decode(&batch.to_bytes()), members);
    }
}
