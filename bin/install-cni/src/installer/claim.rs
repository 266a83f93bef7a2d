//! Which of two agents on a node installs.
//!
//! While one agent takes another's place both may run for a while, each with its own plugin in its image.
//! The later one installs; the earlier one watches, and leaves everything in place when it ends. A claim is
//! a file that its owner holds locked: the kernel takes the lock from a process that dies, so that nobody has
//! to guess whether an owner is alive.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use tempfile::Builder;

/// The right to install, as long as nobody claims it later.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    file: Flock<File>,
}

/// Who has the right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This process.
    Us,
    /// A process that runs, by its pod's name.
    Other(String),
    /// Nobody.
    Nobody,
}

/// The claim could not be made: the run directory cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("claim the installation of this node by {}", path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The file, in the run directory.
pub(super) const FILE: &str = "installer.claim";
/// Longest name of an owner that is read.
const MAX_NAME: u64 = 300;

// === impl Claim ===

impl Claim {
    /// Claims, whoever did before.
    pub(super) fn stake(run: &Path, identity: &str) -> Result<Self, Error> {
        let path = run.join(FILE);
        let stake = || {
            let mut named = Builder::new().prefix(FILE).tempfile_in(run)?;
            named.write_all(identity.as_bytes())?;
            let file = named.reopen()?;
            // Nobody knows the file yet; the lock has to be there before it is known.
            let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                .map_err(|(_, code)| io::Error::from(code))?;
            named.persist(&path)?;
            Ok(file)
        };
        match stake() {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(Error { path, source }),
        }
    }

    /// Whether nobody claimed later.
    pub(super) fn is_ours(&self) -> bool {
        let pair = (self.file.metadata().ok()).zip(self.path.metadata().ok());
        pair.is_some_and(|(ours, found)| ours.ino() == found.ino() && ours.dev() == found.dev())
    }
}

/// Who has the right, to someone with this claim or none.
pub(super) fn owner(run: &Path, claim: Option<&Claim>) -> Owner {
    if claim.is_some_and(Claim::is_ours) {
        return Owner::Us;
    }
    let Ok(file) = OpenOptions::new().read(true).open(run.join(FILE)) else {
        return Owner::Nobody;
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        // It was nobody's: the lock goes again with the file.
        Ok(_lock) => Owner::Nobody,
        Err((file, _)) => {
            let mut name = String::new();
            // A name that cannot be read leaves the owner without one.
            file.take(MAX_NAME).read_to_string(&mut name).ok();
            Owner::Other(name)
        }
    }
}
