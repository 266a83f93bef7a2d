//! A socket at a path, for root alone.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
};

use mesh_runtime::http::{Listener, Peer, Transport};
use tokio::net::{UnixListener, UnixStream};

use crate::metrics::Metrics;

/// Why there is no socket. The node's administrator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is not there and cannot be made, or is read-only or full.
    #[error("listen at {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Something else stands at the path, and is left alone. Remove it, or set `CNI_AGENT_RUN_DIR` to another
    /// directory.
    #[error("listen at {}: it exists and is not a socket", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
}

/// Accepts connections at a path. The file goes when this is dropped, unless it is another agent's by then.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: File,
}

/// Lets nobody speak but root.
#[derive(Clone, Debug)]
pub struct RootOnly {
    metrics: Metrics,
}

/// The file of a socket.
#[derive(Debug)]
struct File {
    path: PathBuf,
    id: (u64, u64),
}

// === impl Socket ===

impl Socket {
    /// Listens at `path` from now on. Another socket there is replaced in one step, also one that is listened
    /// on: it belongs to the agent that this one follows, and the plugin finds one of the two at any time.
    /// Needs the context of a tokio runtime.
    pub fn take(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let listened = listen(&path);
        let (listener, id) = match listened {
            Ok(Some(listening)) => listening,
            Ok(None) => return Err(Error::NotASocket { path }),
            Err(source) => return Err(Error::Listen { path, source }),
        };
        let file = File { path, id };
        Ok(Self { listener, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

impl Listener for Socket {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<Peer>)> {
        Listener::accept(&self.listener).await
    }
}

/// Listens under a name of our own and moves the file into place when nothing is missing any more. None if
/// something else stands there.
fn listen(path: &Path) -> io::Result<Option<(UnixListener, (u64, u64))>> {
    if let Some(directory) = path.parent() {
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(0o750).create(directory)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Ok(None),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{}", process::id()));
    let own = PathBuf::from(own);
    match fs::remove_file(&own) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&own)?;
    let moved = fs::set_permissions(&own, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::symlink_metadata(&own))
        .and_then(|metadata| fs::rename(&own, path).map(|()| metadata));
    match moved {
        Ok(metadata) => Ok(Some((listener, (metadata.dev(), metadata.ino())))),
        Err(error) => {
            // The first error is the one to report.
            drop(fs::remove_file(&own));
            Err(error)
        }
    }
}

// === impl RootOnly ===

impl RootOnly {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl Transport<UnixStream> for RootOnly {
    type Stream = UnixStream;

    /// The mode of the file keeps others out; this holds also where somebody has changed it.
    async fn open(&self, stream: UnixStream) -> io::Result<UnixStream> {
        let peer = stream.peer_cred()?;
        if peer.uid() == 0 {
            return Ok(stream);
        }
        self.metrics.peer_refused();
        tracing::warn!(
            uid = peer.uid(),
            pid = peer.pid(),
            "refused a connection to the plugin's socket: only root may use it"
        );
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

// === impl File ===

impl Drop for File {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path);
        if now.is_ok_and(|now| (now.dev(), now.ino()) == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a socket");
        }
    }
}
