//! Network namespaces: opening, recognising, and making sockets inside of them.
//!
//! A socket belongs for life to the namespace it was made in, whichever thread uses it later. So a
//! namespace is entered for the one system call that makes the socket, and left again before anything
//! else happens on the thread; tasks that use the socket run anywhere.

use std::{
    cell::RefCell,
    fs::File,
    io,
    marker::PhantomData,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The network namespace of the calling thread. (Not `/proc/self`, which is the main thread's.)
const OWN: &str = "/proc/thread-self/ns/net";

/// `NS_GET_NSTYPE` of `linux/nsfs.h`: which kind of namespace a descriptor refers to.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

thread_local! {
    /// The namespace this thread is in. Opening it costs several times what entering and leaving one
    /// does, so it is opened once per thread; that is sound because threads change their namespace
    /// here and nowhere else (`clippy.toml` disallows the functions that would).
    static HERE: RefCell<Option<Arc<File>>> = const { RefCell::new(None) };
}

/// A network namespace, kept alive for as long as this value lives.
#[derive(Debug)]
pub struct NetNs {
    handle: Arc<File>,
    id: NetNsId,
}

/// What distinguishes one network namespace from all others that exist at the same time.
///
/// The kernel may give the number of a namespace that is gone to a new one; while a [`NetNs`] is held
/// that cannot happen to its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetNsId {
    /// The device of the namespace file system.
    pub dev: u64,
    /// The number of the namespace.
    pub ino: u64,
}

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened: it is gone (the pod ended; do not retry), or this process may not
    /// read it, or has no descriptor left.
    #[error("open network namespace {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The descriptor cannot be examined. The kernel or we are at fault.
    #[error("examine the descriptor of a network namespace")]
    Examine(#[source] io::Error),
    /// The descriptor is of something else. Whoever sent it is at fault.
    #[error("the descriptor is not of a network namespace")]
    NotANetworkNamespace,
    /// The kernel refused to enter. The process needs `CAP_SYS_ADMIN`.
    #[error("enter network namespace {}", id.ino)]
    Enter {
        /// The namespace.
        id: NetNsId,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Takes the thread back where it came from, whatever happens inside.
struct Return {
    home: Arc<File>,
    // Not to be dropped on another thread: entering concerns the calling thread alone.
    _here: PhantomData<*const ()>,
}

// === impl NetNs ===

impl NetNs {
    /// The namespace behind a file such as `/proc/<pid>/ns/net` or `/run/netns/<name>`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| Error::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::from_fd(file.into())
    }

    /// The namespace a received descriptor refers to; any other kind of descriptor is refused.
    pub fn from_fd(handle: OwnedFd) -> Result<Self, Error> {
        if kind(handle.as_fd())? != Some(libc::CLONE_NEWNET) {
            return Err(Error::NotANetworkNamespace);
        }
        let handle = File::from(handle);
        let metadata = handle.metadata().map_err(Error::Examine)?;
        let id = NetNsId {
            dev: metadata.dev(),
            ino: metadata.ino(),
        };
        let handle = Arc::new(handle);
        Ok(Self { handle, id })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, Error> {
        Self::open(OWN)
    }

    /// Which namespace this is.
    pub fn id(&self) -> NetNsId {
        self.id
    }

    /// Runs `inside` with the calling thread in this namespace, and returns to where the thread was.
    ///
    /// Keep it short: the thread does nothing else meanwhile. Descriptors made inside and processes
    /// started inside stay in the namespace. The way back is taken also when `inside` panics. If the
    /// kernel refuses the way back, the process aborts: any socket that the thread makes from then on
    /// would belong to somebody else's pod, and nothing that runs on it could notice.
    pub fn run<T>(&self, inside: impl FnOnce() -> T) -> Result<T, Error> {
        let home = here()?;
        enter(&self.handle).map_err(|source| Error::Enter {
            id: self.id,
            source,
        })?;
        let _return = Return {
            home,
            _here: PhantomData,
        };
        Ok(inside())
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Moves the calling thread.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that may, see HERE"
)]
fn enter(namespace: &Arc<File>) -> io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    HERE.set(Some(namespace.clone()));
    Ok(())
}

/// The namespace the calling thread is in.
fn here() -> Result<Arc<File>, Error> {
    HERE.with_borrow_mut(|here| {
        if let Some(here) = here {
            return Ok(here.clone());
        }
        let opened = File::open(OWN).map_err(|source| Error::Open {
            path: OWN.into(),
            source,
        })?;
        Ok(here.insert(Arc::new(opened)).clone())
    })
}

/// The `CLONE_NEW…` constant of the namespace, or none if the descriptor is not of a namespace.
fn kind(fd: BorrowedFd<'_>) -> Result<Option<libc::c_int>, Error> {
    // SAFETY: the request takes no argument and writes no memory; the descriptor is open while it is
    // borrowed.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    if kind >= 0 {
        return Ok(Some(kind));
    }
    match io::Error::last_os_error() {
        // What descriptors of other things answer to a request they do not know.
        e if matches!(
            e.raw_os_error(),
            Some(libc::ENOTTY | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS)
        ) =>
        {
            Ok(None)
        }
        e => Err(Error::Examine(e)),
    }
}

// === impl Error ===

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Open { source, .. } | Error::Examine(source) | Error::Enter { source, .. } => {
                source.kind()
            }
            Error::NotANetworkNamespace => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

// === impl Return ===

impl Drop for Return {
    fn drop(&mut self) {
        if let Err(error) = enter(&self.home) {
            tracing::error!(%error, "cannot return from a pod's network namespace; aborting");
            process::abort();
        }
    }
}
