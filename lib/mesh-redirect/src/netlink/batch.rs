//! Messages, and batches of them that the kernel carries out as one or not at all.

use super::attribute::Writer;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`.
const BEGIN: u16 = 16;
/// `NFNL_MSG_BATCH_END`.
const END: u16 = 17;
/// `NFNL_BATCH_GENID`.
const GENERATION: u16 = 1;

/// Flags of a message.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// Bytes of the header that all of netlink has.
const HEADER: usize = 16;
/// Bytes of the header that nfnetlink adds: family, version, resource.
const FAMILY_HEADER: usize = 4;

/// What a message does or is. The values are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    DeleteChain = 5,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
    NewSet = 9,
    GetSet = 10,
    NewElement = 12,
    GetElement = 13,
    DeleteElement = 14,
}

/// Changes that the kernel makes all at once or, if it refuses one of them, not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    steps: Vec<Step>,
    generation: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    kind: Kind,
    flags: u16,
    family: u8,
    body: Vec<u8>,
    what: String,
}

/// A message that came from the kernel.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) family: u8,
    pub(super) body: &'a [u8],
}

// === impl Batch ===

impl Batch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The batch, to be carried out only if nothing has changed since this generation of the rules: the
    /// kernel refuses it with `ERESTART` otherwise, and it is to be planned anew.
    #[must_use]
    pub fn at_generation(mut self, generation: u32) -> Self {
        self.generation = Some(generation);
        self
    }

    /// What to send. Messages are numbered from 0; the last one that does something asks for an
    /// acknowledgement.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.open();
        message(
            &mut bytes,
            END,
            REQUEST,
            self.number(self.steps.len() + 1),
            &frame(&[]),
        );
        bytes
    }

    /// What to send to learn whether the kernel would carry it out: without the end, it checks all
    /// messages and undoes them, before any packet sees them.
    pub fn to_trial(&self) -> Vec<u8> {
        self.open()
    }

    /// What a message of this number does, in the words of `nft`.
    pub fn step(&self, sequence: u32) -> Option<&str> {
        let index = usize::try_from(sequence).ok()?.checked_sub(1)?;
        self.steps.get(index).map(|step| step.what.as_str())
    }

    pub(super) fn push(
        &mut self,
        (kind, flags): (Kind, u16),
        family: u8,
        what: impl Into<String>,
        body: impl FnOnce(&mut Writer),
    ) {
        let mut writer = Writer::default();
        body(&mut writer);
        self.steps.push(Step {
            kind,
            flags,
            family,
            body: writer.into_bytes(),
            what: what.into(),
        });
    }

    fn open(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        if let Some(generation) = self.generation {
            writer.number(GENERATION, generation);
        }
        let mut bytes = Vec::new();
        message(&mut bytes, BEGIN, REQUEST, 0, &frame(&writer.into_bytes()));
        for (index, step) in self.steps.iter().enumerate() {
            let last = index + 1 == self.steps.len();
            let acknowledge = if last { ACKNOWLEDGE } else { 0 };
            let flags = REQUEST | acknowledge | step.flags;
            let body = [&[step.family, 0, 0, 0], step.body.as_slice()].concat();
            message(
                &mut bytes,
                kind(step.kind),
                flags,
                self.number(index + 1),
                &body,
            );
        }
        bytes
    }

    /// A batch has far less than `u32::MAX` messages; a number that is wrong names the wrong step.
    #[expect(clippy::unused_self, reason = "reads as what it is")]
    fn number(&self, index: usize) -> u32 {
        u32::try_from(index).unwrap_or(u32::MAX)
    }
}

// === impl Message ===

impl<'a> Message<'a> {
    /// Splits what a dump returned; the second is what is no message at the end.
    pub(super) fn split(mut bytes: &'a [u8]) -> (Vec<Self>, &'a [u8]) {
        let mut messages = Vec::new();
        while let Some((message, rest)) = Self::first(bytes) {
            messages.push(message);
            bytes = rest;
        }
        (messages, bytes)
    }

    pub(super) fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let ([l0, l1, l2, l3, t0, t1, ..], _) = bytes.split_first_chunk::<HEADER>()?;
        let length = usize::try_from(u32::from_ne_bytes([*l0, *l1, *l2, *l3])).ok()?;
        let message = bytes.get(HEADER..length)?;
        let (family, body) = message.split_first_chunk::<FAMILY_HEADER>()?;
        let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([*t0, *t1]);
        let family = family[0];
        Some((Self { kind, family, body }, rest))
    }

    pub(super) fn is(&self, kind_: Kind) -> bool {
        self.kind == kind(kind_)
    }
}

/// A request to list things of a family, with attributes that narrow it.
pub(super) fn dump(what: Kind, family: u8, narrowed: impl FnOnce(&mut Writer)) -> Vec<u8> {
    request(what, DUMP, family, narrowed)
}

/// A request for one thing by its name. The acknowledgement that is asked for follows it, or comes alone
/// and says that it is not there.
pub(super) fn get(what: Kind, family: u8, name: impl FnOnce(&mut Writer)) -> Vec<u8> {
    request(what, ACKNOWLEDGE, family, name)
}

fn request(what: Kind, flags: u16, family: u8, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    body(&mut writer);
    let body = [&[family, 0, 0, 0], writer.into_bytes().as_slice()].concat();
    let mut bytes = Vec::new();
    message(&mut bytes, kind(what), REQUEST | flags, 0, &body);
    bytes
}

fn kind(kind: Kind) -> u16 {
    SUBSYSTEM << 8 | kind as u16
}

/// The body of a message that begins or ends a batch: it names the subsystem, as a resource.
fn frame(attributes: &[u8]) -> Vec<u8> {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    [&[0, 0, high, low], attributes].concat()
}

fn message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    // From the kernel's point of view we are whoever owns the socket.
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(body);
}
