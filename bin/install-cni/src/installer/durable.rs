//! Changes to a folder that either happen or do not, and that last once they have happened.
//!
//! A file is made under another name, made to last, and renamed; then the folder is made to last. Whoever
//! reads the folder sees the old file or the new one, also after a power cut. What a killed process leaves
//! behind is known by its name.

use std::{
    fs::{self, File, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use tempfile::Builder;

/// Why a folder could not be changed, or not for good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is on a read-only file system. Usually the wrong folder is mounted; trying again does not
    /// help.
    #[error("{} is read-only", folder.display())]
    ReadOnly {
        /// Which one.
        folder: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is no room. What was there before is untouched; somebody has to make room.
    #[error("there is no room in {}", folder.display())]
    Full {
        /// Which one.
        folder: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Root may not write to the folder: SELinux or another policy of the host forbids it, or the file is
    /// immutable. Whoever runs the node helps.
    #[error(
        "{} may not be changed by root: where SELinux is enforcing, the agent has to run as `spc_t` \
         (`cni.seLinuxOptions.type`, which `global.platform: openshift` sets)",
        folder.display()
    )]
    Denied {
        /// Which one.
        folder: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The folder that this process sees has been removed from the host. A new container sees the new one.
    #[error("{} has been removed from the host", folder.display())]
    Gone {
        /// Which one.
        folder: PathBuf,
    },
    /// Anything else. The message names the file; permissions or the disk are at fault.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// What the name of a file contains that is being made.
const UNFINISHED: &str = ".tmp.";
/// By what ours are told from those of others, behind [`UNFINISHED`].
const OURS: &str = "istio-cni-";

/// Makes `name` hold these bytes. The mode is what remains of it after no umask.
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let path = folder.join(name);
    let write = || {
        let prefix = format!("{name}{UNFINISHED}{OURS}");
        let mut file = Builder::new().prefix(&prefix).tempfile_in(folder)?;
        file.write_all(bytes)?;
        // After the contents: an executable that is not complete must not be executable.
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        sync(folder)
    };
    write().map_err(|source| because(folder, "write", &path, source))
}

/// Makes `to` another name of the file `from`, whatever `to` was before; a copy, where a file cannot have two
/// names.
pub(super) fn link(folder: &Path, from: &str, to: &str) -> Result<(), Error> {
    let (old, new) = (folder.join(from), folder.join(to));
    let write = || {
        let prefix = format!("{to}{UNFINISHED}{OURS}");
        let linked = Builder::new()
            .prefix(&prefix)
            .make_in(folder, |path| fs::hard_link(&old, path))?;
        let temporary = linked.path().to_owned();
        linked.persist(&new)?;
        // Two names of one file are not renamed over each other: the first one stays, without an error.
        if temporary.symlink_metadata().is_ok() {
            fs::remove_file(&temporary)?;
        }
        sync(folder)
    };
    match write() {
        Ok(()) => Ok(()),
        Err(error) if cannot_link(&error) => copy(folder, from, to),
        Err(source) => Err(because(folder, "keep a copy of", &old, source)),
    }
}

/// Renames within a folder, over what was there.
pub(super) fn rename(folder: &Path, from: &str, to: &str) -> Result<(), Error> {
    let path = folder.join(from);
    fs::rename(&path, folder.join(to))
        .and_then(|()| sync(folder))
        .map_err(|source| because(folder, "rename", &path, source))
}

/// Removes a file, or a folder with all that is in it. One that is not there is removed.
pub(super) fn remove(folder: &Path, name: &str) -> Result<(), Error> {
    let path = folder.join(name);
    let remove = || {
        if path.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
        sync(folder)
    };
    match remove() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| because(folder, "remove", &path, source)),
    }
}

/// Whether the file is what a killed process, ours or Istio's, has left of something that it made. Others
/// may be at work under other names.
pub(super) fn is_leftover(name: &str) -> bool {
    let parts = name.split_once(UNFINISHED);
    parts.is_some_and(|(of, rest)| of.contains("istio-cni") || rest.starts_with(OURS))
}

/// Whether the folder exists and is not one that has been removed while it was mounted.
pub(super) fn is_there(folder: &Path) -> bool {
    // File systems that do not count links of folders say 1.
    folder
        .metadata()
        .is_ok_and(|found| found.is_dir() && found.nlink() > 0)
}

fn copy(folder: &Path, from: &str, to: &str) -> Result<(), Error> {
    let path = folder.join(from);
    let read = || Ok((fs::read(&path)?, path.metadata()?.mode() & 0o7777));
    let (bytes, mode) = read().map_err(|source| because(folder, "read", &path, source))?;
    replace(folder, to, &bytes, mode)
}

fn cannot_link(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK | Errno::EXDEV)
    )
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn because(folder: &Path, doing: &'static str, path: &Path, source: io::Error) -> Error {
    let folder = folder.to_owned();
    match source.kind() {
        ErrorKind::ReadOnlyFilesystem => Error::ReadOnly { folder, source },
        ErrorKind::PermissionDenied => Error::Denied { folder, source },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full { folder, source },
        ErrorKind::NotFound if folder.exists() && !is_there(&folder) => Error::Gone { folder },
        _ => Error::Io {
            doing,
            path: path.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests;
