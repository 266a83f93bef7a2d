//! Speaking netlink to the kernel's packet filter and its IP sets.
//!
//! The socket belongs to the namespace that it is made in; the thread that makes it is back before
//! anything is said. The kernel answers before a request returns, so the calls here take as long as the
//! kernel works: a change of rules waits for other processors to leave the old ones, which takes
//! milliseconds. They are for threads that may block.

use std::{
    io::{self, Read as _, Write as _},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use crate::netns::{self, NetNs};

/// How long the kernel may take to answer. It answers before the request returns, unless it has to load
/// a module; the limit guards against waiting for ever for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for one answer. The kernel puts at most 32 KiB of a listing into each.
const ROOM: usize = 64 * 1024;

/// Most bytes of one listing that is kept as it came. Such listings are of the host's sets; of what
/// others may write into a namespace, [`Socket::survey`] keeps what its caller wants.
const LISTING_LIMIT: usize = 64 * 1024 * 1024;

/// How long a survey may take with all its attempts. The kernel answers in microseconds.
const SURVEY_TIME: Duration = Duration::from_secs(5);

/// How often a listing is begun again because the rules have changed meanwhile.
const ATTEMPTS: usize = 16;

/// Room for messages that are sent; a batch is one.
const SEND_BUFFER: usize = 4 * 1024 * 1024;

/// Bytes of the header of every message.
const HEADER: usize = 16;

/// `NFT_MSG_GETGEN` and its answer, `NFT_MSG_NEWGEN`, of the subsystem nf_tables.
const GET_GENERATION: u16 = (10 << 8) | 16;
const NEW_GENERATION: u16 = (10 << 8) | 15;

/// Types of messages that are not of a subsystem.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Flags of messages.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const INTERRUPTED: u16 = 0x10;

/// A conversation with the packet filter of one network namespace.
#[derive(Debug)]
pub struct Socket(RawSocket);

/// What was listed, all at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The number of the change of rules that this is the result of.
    pub generation: u32,
    /// The messages that the kernel answered.
    pub bytes: Vec<u8>,
}

/// What was made of a listing while it came, all at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey<T> {
    /// The number of the change of rules that this is the result of.
    pub generation: u32,
    /// What was made of it.
    pub of: T,
    /// Whether it was heard to its end. If not, the kernel still has answers for the socket: talk on
    /// another one.
    pub whole: bool,
}

/// Why the packet filter was not told or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace cannot be entered; see [`netns::Error`].
    #[error("open a netfilter socket in a network namespace")]
    Namespace(#[source] netns::Error),
    /// The kernel makes no such socket, because it has no nfnetlink or this process has no descriptor
    /// left; or the conversation broke.
    #[error("talk to the kernel's netfilter")]
    Conversation(#[source] io::Error),
    /// The kernel refused a request, or one message of a batch and with it all of them. `EPERM` says
    /// that the process lacks `CAP_NET_ADMIN` in the namespace; `EOPNOTSUPP`, `ENOENT` or
    /// `EAFNOSUPPORT` that a module of the kernel is missing.
    #[error("the kernel's netfilter refused message {sequence}")]
    Refused {
        /// The number of the message; 0 is the beginning, and so the whole.
        sequence: u32,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Somebody changes rules all the time. Retrying later helps.
    #[error("list the rules: they changed {ATTEMPTS} times meanwhile")]
    Unsettled,
    /// There is far more than anybody should have.
    #[error("list the rules: there are more than {LISTING_LIMIT} bytes of them")]
    TooLong,
    /// Listing took too long: somebody has the kernel busy with rules. Retrying later helps.
    #[error("list the rules: it took more than {SURVEY_TIME:?}")]
    TooSlow,
    /// What the kernel answered is not an answer. The kernel or we are at fault.
    #[error("the kernel's netfilter answered something else")]
    Answer,
}

/// A message, in an answer.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// With the header.
    whole: &'a [u8],
}

/// How a listing went.
enum Listed {
    Whole,
    Changed,
    Stopped,
}

/// What a listing is fed to, message by message; an error or a break ends it.
type Keep<'a> = &'a mut dyn FnMut(&[u8]) -> Result<ControlFlow<()>, Error>;

// === impl Socket ===

impl Socket {
    /// A conversation about the rules of `netns`.
    pub fn open(netns: &NetNs) -> Result<Self, Error> {
        netns.run(Self::here).map_err(Error::Namespace)?
    }

    /// A conversation about the rules of the calling thread's namespace.
    fn here() -> Result<Self, Error> {
        let domain = Domain::from(libc::AF_NETLINK);
        let protocol = Protocol::from(libc::NETLINK_NETFILTER);
        let socket = RawSocket::new(domain, Type::RAW, Some(protocol));
        let socket = socket.map_err(Error::Conversation)?;
        // As much as the limit for all allows is good enough where more is not.
        drop(socket.set_send_buffer_size(SEND_BUFFER));
        socket
            .set_read_timeout(Some(PATIENCE))
            .map_err(Error::Conversation)?;
        Ok(Self(socket))
    }

    /// Has the kernel carry out a batch: all of it, or nothing if this is an error. The last message in
    /// it that does something has to ask for an acknowledgement.
    pub fn commit(&mut self, batch: &[u8]) -> Result<(), Error> {
        let (mut first, mut last) = (None, None);
        for message in messages(batch) {
            let message = message?;
            first.get_or_insert(message.sequence);
            if message.flags & ACKNOWLEDGE != 0 {
                last = Some(message.sequence);
            }
        }
        let (Some(first), Some(last)) = (first, last) else {
            return Err(Error::Answer);
        };
        self.send(batch)?;
        let mut refused = None;
        let mut buffer = vec![0; ROOM];
        loop {
            for message in messages(self.receive(&mut buffer)?) {
                let message = message?;
                let sequence = message.sequence;
                if let Err(source) = message.verdict().ok_or(Error::Answer)? {
                    refused.get_or_insert(Error::Refused { sequence, source });
                }
                // A refusal of the beginning is one of the whole: nothing follows.
                if sequence == last || (sequence == first && refused.is_some()) {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one request that changes something and asks for an acknowledgement.
    pub fn ask(&mut self, request: &[u8]) -> Result<(), Error> {
        self.commit(request)
    }

    /// The messages with which the kernel answers a request to list something. What is not there lists
    /// nothing.
    pub fn list(&mut self, request: &[u8]) -> Result<Vec<u8>, Error> {
        for _attempt in 0..ATTEMPTS {
            let mut bytes = Vec::new();
            if let Listed::Whole =
                self.list_once(request, &mut |message| store(message, &mut bytes))?
            {
                return Ok(bytes);
            }
        }
        Err(Error::Unsettled)
    }

    /// Feeds the answers to several requests to list or get things of nf_tables to `keep`, message by
    /// message, and begins anew with `begin` if anything changed between the first and the last. Nothing
    /// is held beside what `keep` holds, and when it breaks off the kernel is asked for no more: so the
    /// work is bounded by `keep` and not by who fills the tables.
    pub fn survey<T>(
        &mut self,
        requests: &[Vec<u8>],
        begin: impl Fn() -> T,
        mut keep: impl FnMut(&mut T, &[u8]) -> ControlFlow<()>,
    ) -> Result<Survey<T>, Error> {
        let deadline = Instant::now() + SURVEY_TIME;
        'attempts: for _attempt in 0..ATTEMPTS {
            let generation = self.generation()?;
            let mut of = begin();
            for request in requests {
                let listed = self.list_once(request, &mut |message| {
                    if Instant::now() > deadline {
                        return Err(Error::TooSlow);
                    }
                    Ok(keep(&mut of, message))
                })?;
                match listed {
                    Listed::Whole => {}
                    Listed::Changed => continue 'attempts,
                    Listed::Stopped => {
                        return Ok(Survey {
                            generation,
                            of,
                            whole: false,
                        });
                    }
                }
            }
            if self.generation()? == generation {
                return Ok(Survey {
                    generation,
                    of,
                    whole: true,
                });
            }
        }
        Err(Error::Unsettled)
    }

    /// The answers to several requests to list things of nf_tables, of which none has changed between
    /// the first and the last.
    pub fn snapshot(&mut self, requests: &[Vec<u8>]) -> Result<Snapshot, Error> {
        'attempts: for _attempt in 0..ATTEMPTS {
            let generation = self.generation()?;
            let mut bytes = Vec::new();
            for request in requests {
                let listed = self.list_once(request, &mut |message| store(message, &mut bytes))?;
                if let Listed::Changed = listed {
                    continue 'attempts;
                }
            }
            if self.generation()? == generation {
                return Ok(Snapshot { generation, bytes });
            }
        }
        Err(Error::Unsettled)
    }

    /// The number of the last change of rules.
    pub fn generation(&mut self) -> Result<u32, Error> {
        let mut request = Vec::with_capacity(HEADER + 4);
        request.extend_from_slice(&20_u32.to_ne_bytes());
        request.extend_from_slice(&GET_GENERATION.to_ne_bytes());
        request.extend_from_slice(&REQUEST.to_ne_bytes());
        // Number and sender, family, version and resource.
        request.extend_from_slice(&[0; 12]);
        self.send(&request)?;
        let mut buffer = vec![0; ROOM];
        for message in messages(self.receive(&mut buffer)?) {
            let message = message?;
            if let Some(Err(source)) = message.verdict() {
                return Err(Error::Refused {
                    sequence: 0,
                    source,
                });
            }
            if message.kind == NEW_GENERATION {
                // The number is the first attribute.
                let number = message.whole.get(HEADER + 8..HEADER + 12);
                let number = number.and_then(|bytes| bytes.try_into().ok());
                return number.map(u32::from_be_bytes).ok_or(Error::Answer);
            }
        }
        Err(Error::Answer)
    }

    fn list_once(&mut self, request: &[u8], keep: Keep<'_>) -> Result<Listed, Error> {
        self.send(request)?;
        let mut listed = Listed::Whole;
        let mut buffer = vec![0; ROOM];
        loop {
            for message in messages(self.receive(&mut buffer)?) {
                let message = message?;
                if message.flags & INTERRUPTED != 0 {
                    listed = Listed::Changed;
                }
                if matches!(message.kind, DONE | ERROR) {
                    return message.end_of_list().map(|end| end.and(listed));
                }
                if keep(message.whole)?.is_break() {
                    return Ok(Listed::Stopped);
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let sent = self.0.write(bytes).map_err(Error::Conversation)?;
        // The kernel takes a message whole or not at all.
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(Error::Answer)
        }
    }

    fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> Result<&'a [u8], Error> {
        let length = self.0.read(buffer).map_err(Error::Conversation)?;
        buffer.get(..length).ok_or(Error::Answer)
    }
}

// === impl Error ===

impl Error {
    /// The kernel's number of the reason, if it refused.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Conversation(source) => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether a batch was planned on rules that have changed meanwhile: plan it anew.
    pub fn is_stale(&self) -> bool {
        self.code() == Some(libc::ERESTART)
    }

    /// Whether what a request is about is not there.
    pub fn is_absent(&self) -> bool {
        self.code() == Some(libc::ENOENT)
    }

    /// Whether something of the same name is there already and is of another kind.
    pub fn is_conflict(&self) -> bool {
        matches!(self.code(), Some(libc::EEXIST | libc::EBUSY))
    }

    /// Whether the process may not do it: it lacks `CAP_NET_ADMIN` in that namespace.
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(libc::EPERM)
    }

    /// Whether the kernel does not know what it was asked for: a module is missing, or the kernel is too
    /// old. In a batch that makes all that it refers to, what is absent is a module too.
    pub fn is_unsupported(&self) -> bool {
        let codes = [
            libc::EOPNOTSUPP,
            libc::EAFNOSUPPORT,
            libc::EPROTONOSUPPORT,
            libc::ENOENT,
            libc::EINVAL,
        ];
        self.code().is_some_and(|code| codes.contains(&code))
    }
}

// === impl Listed ===

impl Listed {
    fn and(self, before: Self) -> Self {
        match self {
            Self::Whole => before,
            other => other,
        }
    }
}

// === impl Message ===

impl Message<'_> {
    /// Whether a request was carried out; none if this does not say.
    fn verdict(&self) -> Option<io::Result<()>> {
        let code = self.whole.get(HEADER..HEADER + 4)?;
        let code = i32::from_ne_bytes(code.try_into().ok()?);
        match (self.kind, code) {
            (ERROR | DONE, 0) => Some(Ok(())),
            (ERROR | DONE, code) => Some(Err(io::Error::from_raw_os_error(code.saturating_abs()))),
            _ => None,
        }
    }

    /// How a listing ended, by its last message.
    fn end_of_list(&self) -> Result<Listed, Error> {
        match self.verdict().unwrap_or(Ok(())) {
            Ok(()) => Ok(Listed::Whole),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Listed::Whole),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => Ok(Listed::Changed),
            Err(source) => Err(Error::Refused {
                sequence: self.sequence,
                source,
            }),
        }
    }
}

/// Keeps a message as it came.
fn store(message: &[u8], into: &mut Vec<u8>) -> Result<ControlFlow<()>, Error> {
    into.extend_from_slice(message);
    // Alignment is kept where messages are put together.
    into.resize(into.len().next_multiple_of(4), 0);
    if into.len() > LISTING_LIMIT {
        return Err(Error::TooLong);
    }
    Ok(ControlFlow::Continue(()))
}

/// Splits what was sent or received at once.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Error>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some((message, rest)) = split(bytes) else {
            bytes = &[];
            return Some(Err(Error::Answer));
        };
        bytes = rest;
        Some(Ok(message))
    })
}

fn split(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let ([l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..], _) =
        bytes.split_first_chunk::<HEADER>()?;
    let length = usize::try_from(u32::from_ne_bytes([*l0, *l1, *l2, *l3])).ok()?;
    let message = Message {
        kind: u16::from_ne_bytes([*k0, *k1]),
        flags: u16::from_ne_bytes([*f0, *f1]),
        sequence: u32::from_ne_bytes([*s0, *s1, *s2, *s3]),
        whole: bytes.get(..length.max(HEADER))?,
    };
    let rest = bytes.get(length.max(HEADER).next_multiple_of(4)..);
    Some((message, rest.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_answer_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for message in messages(&bytes).flatten() {
                message.verdict();
                message.end_of_list().ok();
            }
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error() {
        let answers: Vec<_> = messages(&[20, 0, 0, 0, 2, 0]).collect();
        assert!(matches!(answers[..], [Err(Error::Answer)]));
    }
}
