//! The plugin's side: one connection for one request and its answer.
//!
//! Just as much of HTTP/1.1 as that takes. Everything is bounded in bytes and in time, and the peer must be
//! root: who else could listen there could let pods run outside the mesh.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    sockopt::socket_peercred,
};

use super::MAX_BODY;

/// Most bytes of an answer's status line and headers; real ones have about a hundred.
const MAX_HEAD: usize = 16 << 10;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// What follows the headers.
    pub body: Vec<u8>,
}

/// Why there is no answer. In all cases the request may or may not have been acted upon, and can be repeated:
/// the agent's calls are idempotent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or too many wait. The agent is starting, or not there.
    #[error("connect to {}", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Somebody else listens, who must not be trusted. Whoever can write to the agent's run directory has
    /// put it there.
    #[error("the process that listens on {} runs as user {uid} instead of root", socket.display())]
    NotRoot {
        /// Where.
        socket: PathBuf,
        /// As whom.
        uid: u32,
    },
    /// The connection broke, as when the agent is stopped.
    #[error("talk to the agent")]
    Broken(#[source] io::Error),
    /// The agent did not answer in time.
    #[error("wait for the agent's answer: none came in time")]
    TimedOut,
    /// It is not an answer that we understand. Not sent by our agent.
    #[error("read the agent's answer: {fault}")]
    Malformed {
        /// What is wrong.
        fault: &'static str,
    },
}

/// Status line and headers, as far as they matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    end: usize,
    /// Its length; without one it ends with the connection.
    length: Option<usize>,
}

/// Posts a JSON document and returns the answer, whatever its status.
pub fn post(socket: &Path, path: &str, body: &[u8], deadline: Instant) -> Result<Answer, Error> {
    let mut stream = open(socket)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: unix\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    send(&mut stream, &request, deadline)?;
    let mut bytes = Vec::with_capacity(1024);
    let mut buffer = [0; 4096];
    loop {
        if let Some(answer) = complete(&bytes, false)? {
            return Ok(answer);
        }
        stream
            .set_read_timeout(Some(remaining(deadline)?))
            .map_err(Error::Broken)?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
    }
    complete(&bytes, true)?.ok_or_else(|| Error::Broken(io::ErrorKind::UnexpectedEof.into()))
}

/// Connects without waiting: a queue that is full is the same as nobody there.
fn open(socket: &Path) -> Result<UnixStream, Error> {
    let failed = |source: io::Error| Error::Connect {
        socket: socket.to_owned(),
        source,
    };
    let address = SocketAddrUnix::new(socket).map_err(|errno| failed(errno.into()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let descriptor = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|descriptor| connect(&descriptor, &address).map(|()| descriptor))
        .map_err(|errno| failed(errno.into()))?;
    let peer = socket_peercred(&descriptor).map_err(|errno| failed(errno.into()))?;
    if !peer.uid.is_root() {
        return Err(Error::NotRoot {
            socket: socket.to_owned(),
            uid: peer.uid.as_raw(),
        });
    }
    let stream = UnixStream::from(descriptor);
    stream.set_nonblocking(false).map_err(failed)?;
    Ok(stream)
}

fn send(stream: &mut UnixStream, mut bytes: &[u8], deadline: Instant) -> Result<(), Error> {
    while !bytes.is_empty() {
        stream
            .set_write_timeout(Some(remaining(deadline)?))
            .map_err(Error::Broken)?;
        match stream.write(bytes) {
            Ok(0) => return Err(Error::Broken(io::ErrorKind::WriteZero.into())),
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Who refuses a request early may have said why before it closed.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(())
}

fn remaining(deadline: Instant) -> Result<Duration, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    // A timeout of nothing would be none.
    if left.is_zero() {
        Err(Error::TimedOut)
    } else {
        Ok(left)
    }
}

fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::TimedOut,
        _ => Error::Broken(error),
    }
}

/// The answer that these bytes are, or none if more must come.
pub(crate) fn complete(bytes: &[u8], ended: bool) -> Result<Option<Answer>, Error> {
    let Some(head) = Head::parse(bytes)? else {
        return Ok(None);
    };
    let rest = bytes.get(head.end..).unwrap_or_default();
    let body = match head.length {
        Some(length) => rest.get(..length),
        None => ended.then_some(rest),
    };
    if body.unwrap_or(rest).len() > MAX_BODY {
        return Err(malformed("its body is longer than 1 MiB"));
    }
    let status = head.status;
    Ok(body.map(|body| Answer {
        status,
        body: body.to_owned(),
    }))
}

// === impl Head ===

impl Head {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let window = bytes.get(..MAX_HEAD).unwrap_or(bytes);
        let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
            let fits = bytes.len() < MAX_HEAD;
            let too_long = || malformed("its head is longer than 16 KiB");
            return if fits { Ok(None) } else { Err(too_long()) };
        };
        let text = str::from_utf8(window.get(..end).unwrap_or_default())
            .ok()
            .ok_or_else(|| malformed("its head is not text"))?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(status_of);
        let mut head = Self {
            status: status.ok_or_else(|| malformed("it does not begin with an HTTP status"))?,
            end: end + 4,
            length: None,
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                let length = value
                    .trim()
                    .parse()
                    .ok()
                    .filter(|length| *length <= MAX_BODY);
                head.length =
                    Some(length.ok_or_else(|| malformed("its length is not one, or over 1 MiB"))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(malformed("it is encoded for transfer"));
            }
        }
        Ok(Some(head))
    }
}

fn status_of(line: &str) -> Option<u16> {
    let (version, rest) = line.split_once(' ')?;
    let digits = rest.get(..3)?;
    let status = digits
        .parse()
        .ok()
        .filter(|status| (100..600).contains(status));
    status.filter(|_| version.starts_with("HTTP/1."))
}

fn malformed(fault: &'static str) -> Error {
    Error::Malformed { fault }
}

#[cfg(test)]
mod tests;
