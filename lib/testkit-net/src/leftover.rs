//! What a run left behind that could not clean up: it was killed, or the machine lost power.

use std::{fs, io, path::Path};

use crate::namespace::{self, DIRECTORY};

/// What the names of all our namespaces begin with.
pub const PREFIX: &str = "lateen-";

/// A namespace that one of our runs made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its name.
    pub name: String,
    /// The process that made it.
    pub process: u32,
}

/// What a removal did.
#[derive(Debug, Default)]
pub struct Removal {
    /// What is gone.
    pub removed: Vec<Leftover>,
    /// What could not be removed, and why.
    pub kept: Vec<(Leftover, namespace::Error)>,
}

/// Every namespace of ours, also those of runs that are under way.
pub fn list() -> io::Result<Vec<Leftover>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<_> = names.filter_map(Leftover::parse).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Removes the namespaces of runs that are over; all are tried.
pub fn remove_orphans() -> io::Result<Removal> {
    let mut removal = Removal::default();
    for leftover in list()?.into_iter().filter(Leftover::is_orphan) {
        match namespace::delete(&leftover.name) {
            Ok(()) => removal.removed.push(leftover),
            Err(error) => removal.kept.push((leftover, error)),
        }
    }
    Ok(removal)
}

// === impl Leftover ===

impl Leftover {
    /// Whether the process that made it is gone, and with it whoever would remove it.
    pub fn is_orphan(&self) -> bool {
        !Path::new("/proc").join(self.process.to_string()).exists()
    }

    fn parse(name: String) -> Option<Self> {
        let (process, _) = name.strip_prefix(PREFIX)?.split_once('.')?;
        let process = process.parse().ok()?;
        Some(Self { name, process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_others_are_not_ours() {
        let name = |name: &str| Leftover::parse(name.to_owned());
        assert_eq!(name("cni-5e3f"), None);
        assert_eq!(name("lateen-something"), None);
        assert_eq!(name("lateen-42.beef-node1").map(|l| l.process), Some(42));
    }
}
