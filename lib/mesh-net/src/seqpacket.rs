//! `AF_UNIX` sockets that keep the bounds of messages (`SOCK_SEQPACKET`) and pass one descriptor with
//! a message.
//!
//! Whatever a peer sends, no descriptor leaks: all that the kernel installed are owned before
//! anything is judged, and closed with the error.

use std::{
    fs, io,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt::socket_peercred,
};
use socket2::{Domain, SockAddr, Type};
use tokio::io::{Interest, unix::AsyncFd};

/// Descriptors for which there is room on receipt: more than one, so that a message with two is told
/// from one whose only descriptor was lost.
const ROOM: usize = 4;

/// What a connection waits for.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Accepts connections at a path of the file system.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<socket2::Socket>,
    file: SocketFile,
}

/// A connection.
#[derive(Debug)]
pub struct Socket {
    socket: AsyncFd<socket2::Socket>,
}

/// A message.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the message, at the front of the caller's buffer.
    pub len: usize,
    /// What came with it.
    pub passed: Passed,
}

/// What came with a message.
#[derive(Debug)]
pub enum Passed {
    /// Bytes alone.
    Nothing,
    /// A descriptor. It is closed when a new program is executed.
    Descriptor(OwnedFd),
    /// A descriptor that the kernel could not install, because this process (or the host) has no room
    /// for more open files. It is gone, the bytes are not. Raise the limit of open files, or wait until
    /// connections end, and have the message sent again.
    Lost,
}

/// Who opened a connection, as the kernel saw it at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process; 0 where it is not visible from here.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// What went wrong with a socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket could be made; usually no descriptor is left. Retry later.
    #[error("create a socket")]
    Create(#[source] io::Error),
    /// Nobody listens there (yet), or this process may not connect. Retry later.
    #[error("connect to {}", path.display())]
    Connect {
        /// The path.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The path is too long, its folder is missing or not writable.
    #[error("listen at {}", path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Another process listens there. Stop it first.
    #[error("another process listens at {}", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// Something else stands at the path; it is left alone. Remove it, or choose another path.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A connection was not accepted. With a shortage of descriptors
    /// ([`is_descriptor_shortage`](crate::socket::is_descriptor_shortage)) it waits until one is free.
    #[error("accept a connection")]
    Accept(#[source] io::Error),
    /// The connection is gone.
    #[error("send a message")]
    Send(#[source] io::Error),
    /// The connection is gone.
    #[error("receive a message")]
    Receive(#[source] io::Error),
    /// The peer sent a longer message than its receiver allows.
    #[error("the message is longer than {limit} bytes")]
    Truncated {
        /// The receiver's limit.
        limit: usize,
    },
    /// The peer sent more than one descriptor.
    #[error("the message carries more than one file descriptor")]
    TooManyDescriptors,
}

/// The file of a listener, removed with it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

// === impl Listener ===

impl Listener {
    /// Listens at `path`. Only the user of this process may connect (mode 0600).
    ///
    /// A socket that a dead process left there is replaced, in one step, so that at no time a peer
    /// finds nothing; one that is listened on, or a file of another kind, is left alone. Needs the
    /// context of a tokio runtime.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        refuse_occupied(&path)?;
        let socket = create().map_err(Error::Create)?;
        let failed = |source| Error::Listen {
            path: path.clone(),
            source,
        };
        let file = listen(&socket, &path).map_err(failed)?;
        let socket = register(socket, Interest::READABLE)?;
        Ok(Self { socket, file })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Waits for a connection. Dropping the future loses none.
    pub async fn accept(&self) -> Result<(Socket, Credentials), Error> {
        let accept = |socket: &socket2::Socket| socket.accept();
        let (socket, _unnamed) = self
            .socket
            .async_io(Interest::READABLE, accept)
            .await
            .map_err(Error::Accept)?;
        let peer = socket_peercred(&socket).map_err(|e| Error::Accept(e.into()))?;
        let peer = Credentials {
            pid: peer.pid.as_raw_pid(),
            uid: peer.uid.as_raw(),
            gid: peer.gid.as_raw(),
        };
        socket.set_nonblocking(true).map_err(Error::Accept)?;
        let socket = register(socket, BOTH)?;
        Ok((Socket { socket }, peer))
    }
}

// === impl Socket ===

impl Socket {
    /// Connects to a listener. Needs the context of a tokio runtime.
    ///
    /// The kernel answers at once: success, or an error when nobody listens or too many wait already.
    pub fn connect(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let socket = create().map_err(Error::Create)?;
        let connected = SockAddr::unix(&path).and_then(|address| socket.connect(&address));
        connected.map_err(|source| Error::Connect { path, source })?;
        Ok(Self {
            socket: register(socket, BOTH)?,
        })
    }

    /// Two sockets connected to each other.
    pub fn pair() -> Result<(Self, Self), Error> {
        let kind = Type::SEQPACKET.nonblocking();
        let (a, b) = socket2::Socket::pair(Domain::UNIX, kind, None).map_err(Error::Create)?;
        let (a, b) = (register(a, BOTH)?, register(b, BOTH)?);
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Sends one message, with a descriptor or without. Dropping the future sends nothing.
    pub async fn send(&self, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        self.send_descriptors(message, &fds).await
    }

    /// Receives one message into `buffer`; none when the peer has closed the connection.
    ///
    /// A message without bytes cannot be told from the end. Dropping the future loses nothing.
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<Option<Received>, Error> {
        self.socket
            .async_io(Interest::READABLE, |socket| receive(socket, buffer))
            .await
            .map_err(Error::Receive)?
    }

    async fn send_descriptors(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let send = |socket: &socket2::Socket| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM + 1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            let parts = [IoSlice::new(message)];
            Ok(sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)?)
        };
        // The kernel takes a message of this type whole or not at all.
        self.socket
            .async_io(Interest::WRITABLE, send)
            .await
            .map(drop)
            .map_err(Error::Send)
    }
}

// === impl SocketFile ===

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A successor may have put its own file there.
        if fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a socket");
        }
    }
}

fn create() -> io::Result<socket2::Socket> {
    socket2::Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)
}

/// Lets the runtime watch a socket.
fn register(
    socket: socket2::Socket,
    interest: Interest,
) -> Result<AsyncFd<socket2::Socket>, Error> {
    // SAFETY: the socket owns its descriptor, always names the same one, and moves into the `AsyncFd`,
    // which drops it after the registration.
    unsafe { AsyncFd::register_with_interest(socket, interest) }
        .map_err(|e| Error::Create(e.into()))
}

/// Refuses a path that is not free for us: only a socket that nobody listens on is replaced.
fn refuse_occupied(path: &Path) -> Result<(), Error> {
    let path = path.to_owned();
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Listen { path, source }),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket { path });
    }
    let connected = SockAddr::unix(&path).and_then(|address| create()?.connect(&address));
    match connected {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It accepted us, has too many to accept, or speaks another protocol: alive.
        _ => Err(Error::Occupied { path }),
    }
}

/// Listens under a temporary name and moves the file into place when nothing is missing any more.
fn listen(socket: &socket2::Socket, path: &Path) -> io::Result<SocketFile> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", process::id()));
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    socket.bind(&SockAddr::unix(&temporary)?)?;
    let moved = fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|()| fs::symlink_metadata(&temporary))
        .and_then(|metadata| fs::rename(&temporary, path).map(|()| metadata));
    match moved {
        Ok(metadata) => Ok(SocketFile {
            path: path.to_owned(),
            id: (metadata.dev(), metadata.ino()),
        }),
        Err(error) => {
            // The first error is the one to report.
            drop(fs::remove_file(&temporary));
            Err(error)
        }
    }
}

/// Receives one message without waiting; the inner result judges it.
fn receive(
    socket: &socket2::Socket,
    buffer: &mut [u8],
) -> io::Result<Result<Option<Received>, Error>> {
    let limit = buffer.len();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let mut fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let some_lost = message.flags.contains(ReturnFlags::CTRUNC);
    if fds.len() > 1 || (some_lost && !fds.is_empty()) {
        return Ok(Err(Error::TooManyDescriptors));
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Ok(Err(Error::Truncated { limit }));
    }
    let passed = match fds.pop() {
        Some(fd) => Passed::Descriptor(fd),
        None if some_lost => Passed::Lost,
        None if message.bytes == 0 => return Ok(Ok(None)),
        None => Passed::Nothing,
    };
    let len = message.bytes;
    Ok(Ok(Some(Received { len, passed })))
}

#[cfg(test)]
mod tests;
