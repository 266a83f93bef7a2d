//! The enrolment file: what the plugin decides by while it cannot reach the agent.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mesh_cni::{enrolment::Snapshot, protocol::ENROLMENT_FILE};
use mesh_kube::Backoff;
use mesh_runtime::error::chain;
use tempfile::NamedTempFile;
use tokio::time::{sleep, timeout};

/// Why the file could not be written. The run directory is read-only, full or not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A label that no JSON can hold; Kubernetes has none.
    #[error("describe who belongs in the mesh")]
    Encode(#[from] serde_json::Error),
    /// The file system does not take it.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The file, as this process has written it last.
#[derive(Debug)]
pub struct EnrolmentFile {
    path: PathBuf,
    written: Option<Vec<u8>>,
    stale: Arc<AtomicBool>,
}

/// Where snapshots come from.
pub trait Source: Send {
    /// The next; `None` when there will be no more.
    fn next(&mut self) -> impl Future<Output = Option<Snapshot>> + Send;
}

/// The least time between two writings: who changes labels of a namespace all the time does not have the file,
/// of up to some megabytes, written as often. It is read only while there is no agent.
const PAUSE: Duration = Duration::from_millis(100);

// === impl EnrolmentFile ===

impl EnrolmentFile {
    /// The file in this run directory. One that is there is written anew once there is a snapshot.
    pub fn new(run_dir: &Path) -> Self {
        Self {
            path: run_dir.join(ENROLMENT_FILE),
            written: None,
            stale: Arc::default(),
        }
    }

    /// Whether the file is older than what is known; for a metric.
    pub fn staleness(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stale)
    }

    /// Writes every snapshot that comes, until none does. What cannot be written is tried again, later and
    /// with the newest.
    pub async fn follow(mut self, mut source: impl Source) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
        let Some(mut newest) = source.next().await else {
            return;
        };
        loop {
            let wait = match self.write(&newest) {
                Ok(_changed) => {
                    backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
                    self.stale.store(false, Ordering::Relaxed);
                    sleep(PAUSE).await;
                    None
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the plugin decides by an old enrolment file");
                    self.stale.store(true, Ordering::Relaxed);
                    Some(backoff.failed())
                }
            };
            let next = source.next();
            newest = match wait {
                None => match next.await {
                    Some(next) => next,
                    None => return,
                },
                Some(wait) => match timeout(wait, next).await {
                    Ok(Some(next)) => next,
                    Ok(None) => return,
                    Err(_elapsed) => newest,
                },
            };
        }
    }

    /// Writes the file if it would be another one. A reader finds the old one or the new one, and nothing else.
    /// Says whether it was written.
    pub fn write(&mut self, snapshot: &Snapshot) -> Result<bool, Error> {
        let bytes = snapshot.to_bytes()?;
        if self.written.as_ref() == Some(&bytes) && self.path.exists() {
            return Ok(false);
        }
        replace(&self.path, &bytes).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })?;
        self.written = Some(bytes);
        Ok(true)
    }
}

/// For root alone, as the temporary file is made.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let temporary = NamedTempFile::with_prefix_in(".enrolment.", directory)?;
    fs::write(temporary.path(), bytes)?;
    temporary.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

    use mesh_cni::enrolment::{Policy, Selector};
    use tokio::sync::mpsc;

    use super::*;

    impl Source for mpsc::UnboundedReceiver<Snapshot> {
        async fn next(&mut self) -> Option<Snapshot> {
            self.recv().await
        }
    }

    fn snapshot(namespace: &str) -> Snapshot {
        let selectors = Selector::defaults();
        let policy = Policy {
            selectors,
            ..Policy::default()
        };
        let namespaces = [(namespace.to_owned(), BTreeMap::new())].into();
        Snapshot { policy, namespaces }
    }

    #[test]
    fn the_file_is_written_when_it_changes_and_is_root_s() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EnrolmentFile::new(dir.path());
        assert!(file.write(&snapshot("shop")).unwrap());
        assert!(!file.write(&snapshot("shop")).unwrap());
        let path = dir.path().join(ENROLMENT_FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            Snapshot::parse(&fs::read(&path).unwrap()).unwrap(),
            snapshot("shop")
        );
        // Somebody has removed it.
        fs::remove_file(&path).unwrap();
        assert!(file.write(&snapshot("shop")).unwrap());
        assert!(file.write(&snapshot("bank")).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_changes_is_written_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, snapshots) = mpsc::unbounded_channel();
        for index in 0..10 {
            sender.send(snapshot(&format!("shop-{index}"))).unwrap();
        }
        drop(sender);
        let began = tokio::time::Instant::now();
        EnrolmentFile::new(dir.path()).follow(snapshots).await;
        assert!(began.elapsed() >= PAUSE * 9);
        let written = fs::read(dir.path().join(ENROLMENT_FILE)).unwrap();
        assert_eq!(Snapshot::parse(&written).unwrap(), snapshot("shop-9"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_written_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let file = EnrolmentFile::new(&run);
        let stale = file.staleness();
        let (sender, snapshots) = mpsc::unbounded_channel();
        let following = tokio::spawn(file.follow(snapshots));
        sender.send(snapshot("shop")).unwrap();
        let is_stale = async |wanted| {
            while stale.load(Ordering::Relaxed) != wanted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), is_stale(true))
            .await
            .unwrap();
        fs::create_dir(&run).unwrap();
        timeout(Duration::from_secs(60), is_stale(false))
            .await
            .unwrap();
        let written = fs::read(run.join(ENROLMENT_FILE)).unwrap();
        assert_eq!(Snapshot::parse(&written).unwrap(), snapshot("shop"));
        drop(sender);
        following.await.unwrap();
    }
}
