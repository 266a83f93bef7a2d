//! Hearing of changes in folders, by inotify.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

/// Watches folders. What happens between its creation and [`Watcher::changed`] is not missed.
#[derive(Debug)]
pub struct Watcher {
    events: AsyncFd<OwnedFd>,
}

/// Why folders cannot be watched. Who needs to know of changes has to look from time to time instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node has no inotify instances left: `fs.inotify.max_user_instances` is too small.
    #[error("begin to watch folders (see the sysctl fs.inotify.max_user_instances)")]
    Begin(#[source] io::Error),
    /// The folder is not there, or `fs.inotify.max_user_watches` is too small.
    #[error("watch the folder {}", path.display())]
    Watch {
        /// Which one.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Bytes of events that are read at once: a few dozen events.
const BUFFER: usize = 4096;

// === impl Watcher ===

impl Watcher {
    /// Watches these folders, not what is below the folders in them. Must be called within a runtime that
    /// drives I/O.
    pub fn new(folders: &[&Path]) -> Result<Self, Error> {
        let begin = |code: Errno| Error::Begin(code.into());
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(begin)?;
        for folder in folders {
            let watched = inotify::add_watch(&events, *folder, interest());
            watched.map_err(|code| Error::Watch {
                path: folder.to_path_buf(),
                source: code.into(),
            })?;
        }
        // SAFETY: the descriptor is owned, always names the same instance, and moves into the `AsyncFd`,
        // which drops it after the registration.
        let events = unsafe { AsyncFd::register(events) };
        let events = events.map_err(|error| Error::Begin(error.into()))?;
        Ok(Self { events })
    }

    /// Resolves when something has happened in one of the folders since the last call, or may have. All that
    /// has happened by then counts as one change.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut any = false;
        loop {
            let mut ready = self.events.readable_mut().await?;
            match rustix::io::read(ready.get_inner(), &mut [0; BUFFER]) {
                Ok(_) => any = true,
                Err(Errno::AGAIN) if any => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(code) => return Err(code.into()),
            }
        }
    }
}

/// What means that a file is another one now: written and closed, linked, renamed, removed, its permissions
/// changed; and that the folder itself has gone. What is written to an open file is not heard of.
fn interest() -> WatchFlags {
    WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::MOVE
        | WatchFlags::DELETE
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// Whether a change has been heard of by now: what the kernel has told is read without waiting.
    async fn heard(watcher: &mut Watcher) -> bool {
        timeout(SOON, watcher.changed())
            .await
            .is_ok_and(|heard| heard.is_ok())
    }

    #[tokio::test]
    async fn every_way_of_changing_a_file_is_heard_of() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let outside = tempfile::NamedTempFile::new().unwrap();
        let mut watcher = Watcher::new(&[folder.path()]).unwrap();
        let changes: [(&str, &dyn Fn()); 6] = [
            ("written", &|| fs::write(at("a"), "1").unwrap()),
            ("linked", &|| fs::hard_link(at("a"), at("b")).unwrap()),
            ("renamed", &|| fs::rename(at("a"), at("c")).unwrap()),
            ("permissions", &|| {
                let permissions = outside.as_file().metadata().unwrap().permissions();
                fs::set_permissions(at("c"), permissions).unwrap();
            }),
            ("removed", &|| fs::remove_file(at("b")).unwrap()),
            ("the folder itself", &|| {
                fs::remove_dir_all(folder.path()).unwrap();
            }),
        ];
        for (what, change) in changes {
            change();
            assert!(heard(&mut watcher).await, "{what}");
        }
    }

    #[tokio::test]
    async fn many_changes_are_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new(&[folder.path()]).unwrap();
        for number in 0..500 {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        assert!(heard(&mut watcher).await);
        let next = is_there_at_once(&mut watcher).await;
        assert!(!next, "there is nothing left to hear of");
    }

    /// Whether a change is there at once.
    async fn is_there_at_once(watcher: &mut Watcher) -> bool {
        tokio::select! {
            biased;
            changed = watcher.changed() => changed.is_ok(),
            () = tokio::task::yield_now() => false,
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_missing_is_named() {
        let error = Watcher::new(&[Path::new("/nonexistent/net.d")]).unwrap_err();
        assert_eq!(error.to_string(), "watch the folder /nonexistent/net.d");
    }
}
