//! Limits of the process.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Why the limit stays as it is. The kernel is at fault; the program can go on with fewer connections.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The limit cannot be raised.
    #[error("raise the limit of open files to {0}")]
    Raise(u64, #[source] io::Error),
}

/// Raises the number of files the process may have open to the most it is allowed to ask for, and
/// returns that number.
///
/// Each proxied connection takes two descriptors. The soft limit is often 1024 for the sake of
/// programs that use `select`, which this one does not.
pub fn raise_open_files() -> Result<u64, Error> {
    let mut limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).map_err(|e| Error::Raise(hard, e.into()))?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current.unwrap_or(u64::MAX), hard);
        assert_eq!(limit.current, limit.maximum);
    }
}
