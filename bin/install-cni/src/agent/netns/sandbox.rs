//! What the runtime told us of every pod's network, kept in files: an agent that starts finds the namespaces
//! of pods whose plugin call it did not hear.
//!
//! A file is a note, not a proof: it holds for the boot in which it was written, and while its path leads to
//! the namespace it names.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use mesh_net::netns::NetNsId;
use serde::{Deserialize, Serialize};

/// The folder of the notes.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    boot: String,
}

/// One interface of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Sandbox {
    /// The network's name in the configuration; empty if the plugin did not tell it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) network: String,
    /// The sandbox, as the runtime names it.
    pub(crate) container_id: String,
    /// The interface in the pod.
    pub(crate) interface: String,
    /// The namespace's path on the node.
    pub(crate) netns: String,
    /// The device of the namespace.
    pub(crate) dev: u64,
    /// The number of the namespace.
    pub(crate) ino: u64,
    /// The pod's UID, if the runtime told it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) pod_uid: String,
    /// The pod's name.
    pub(crate) pod_name: String,
    /// The pod's namespace.
    pub(crate) pod_namespace: String,
    /// The interface's addresses.
    #[serde(default)]
    pub(crate) addresses: Vec<IpAddr>,
}

/// The file: a sandbox, and what it holds for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    version: u32,
    boot_id: String,
    sandbox: Sandbox,
}

/// Why a note cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The runtime names the sandbox or the interface in a way that the CNI specification forbids.
    #[error("note the sandbox {container_id:?}, interface {interface:?}: not the names of a file")]
    Name {
        /// The sandbox.
        container_id: String,
        /// The interface.
        interface: String,
    },
    /// The directory cannot be used: it is full, read-only or missing.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The same, on the way out.
    #[error("remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The form of the notes.
const VERSION: u32 = 1;

/// Notes that were not finished.
const UNFINISHED: &str = ".note-";

/// Largest note in bytes, and most notes: a node has some hundreds of pods.
const MAX_LEN: u64 = 64 << 10;
const MAX_NOTES: usize = 16 << 10;

// === impl Store ===

impl Store {
    /// The notes in this directory, which is made if it is not there, in the boot of this name.
    pub(crate) fn open(directory: PathBuf, boot: String) -> Result<Self, Error> {
        let made = fs::create_dir_all(&directory);
        made.map_err(|source| Error::Write {
            path: directory.clone(),
            source,
        })?;
        Ok(Self { directory, boot })
    }

    /// Everything noted in this boot. What cannot be used any more is removed.
    pub(crate) fn load(&self) -> Vec<Sandbox> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let mut loaded = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if let Some(sandbox) = self.read(&path) {
                if loaded.len() < MAX_NOTES {
                    loaded.push(sandbox);
                    continue;
                }
                tracing::warn!(path = %path.display(), "too many notes of sandboxes; leaving one out");
            }
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove an old note of a sandbox");
            }
        }
        loaded
    }

    fn read(&self, path: &Path) -> Option<Sandbox> {
        let length = fs::symlink_metadata(path)
            .ok()
            .filter(fs::Metadata::is_file)?
            .len();
        if length > MAX_LEN {
            return None;
        }
        let note: Note = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let held = self
            .path(&note.sandbox.container_id, &note.sandbox.interface)
            .ok()?;
        let valid = note.version == VERSION && note.boot_id == self.boot && held == path;
        valid.then_some(note.sandbox)
    }

    /// Notes a sandbox, whole or not at all.
    pub(crate) fn save(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let path = self.path(&sandbox.container_id, &sandbox.interface)?;
        let note = Note {
            version: VERSION,
            boot_id: self.boot.clone(),
            sandbox: sandbox.clone(),
        };
        let written = || -> Result<(), io::Error> {
            let bytes = serde_json::to_vec(&note)?;
            let mut file = tempfile::Builder::new()
                .prefix(UNFINISHED)
                .tempfile_in(&self.directory)?;
            file.write_all(&bytes)?;
            // Not synced: after a crash of the node there is another boot, in which it does not hold.
            file.persist(&path)?;
            Ok(())
        };
        written().map_err(|source| Error::Write { path, source })
    }

    /// Forgets a sandbox; one that was not noted is forgotten already.
    pub(crate) fn remove(&self, container_id: &str, interface: &str) -> Result<(), Error> {
        let path = self.path(container_id, interface)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Remove { path, source })
            }
            _ => Ok(()),
        }
    }

    fn path(&self, container_id: &str, interface: &str) -> Result<PathBuf, Error> {
        if !is_container_id(container_id) || !is_interface(interface) {
            return Err(Error::Name {
                container_id: super::shortened(container_id),
                interface: super::shortened(interface),
            });
        }
        Ok(self
            .directory
            .join(format!("{container_id}.{interface}.json")))
    }
}

// === impl Sandbox ===

impl Sandbox {
    /// What identifies it: the sandbox and the interface.
    pub(crate) fn key(&self) -> (String, String) {
        (self.container_id.clone(), self.interface.clone())
    }

    /// The namespace that it had when it was noted.
    pub(crate) fn netns_id(&self) -> NetNsId {
        NetNsId {
            dev: self.dev,
            ino: self.ino,
        }
    }
}

/// As the CNI specification has it: letters and digits, then also `_`, `.` and `-`.
fn is_container_id(id: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    id.len() <= 200
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id.bytes().all(rest)
}

/// As the kernel has it: up to 15 bytes without `/`, `:` or blanks.
fn is_interface(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    !matches!(name, "" | "." | "..") && name.len() <= 15 && name.bytes().all(plain)
}

#[cfg(test)]
mod tests;
