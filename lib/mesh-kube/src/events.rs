//! Events about objects, for people who run `kubectl describe`.
//!
//! A [`Recorder`] takes notes without ever waiting; the [`Publisher`] writes them. The same note about
//! the same object is one Event with a count, written at most every [`SERIES`]. When the API server is
//! slow or away, the newest notes are dropped and counted: an Event is a help, never a record.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::sync::mpsc;

mod ledger;
mod publisher;

pub use self::publisher::Publisher;

/// Takes notes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

/// Something worth knowing about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object: kind, apiVersion, name, namespace and uid, or `kubectl describe` does not find it.
    pub regarding: ObjectReference,
    /// Whether somebody should look.
    pub severity: Severity,
    /// Why, in one PascalCase word.
    pub reason: String,
    /// What we were doing, in one PascalCase word.
    pub action: String,
    /// The sentence for people; longer than 1024 bytes it is cut.
    pub message: String,
}

/// Whether somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// All is well; somebody may want to know.
    Normal,
    /// Something is wrong that a person can repair.
    Warning,
}

/// Who writes the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// The program, such as `istiod`.
    pub controller: String,
    /// Which of its processes: the pod's name.
    pub instance: String,
}

/// Notes that may wait for the API server.
const QUEUE: usize = 1024;

/// How often the count of a repeated note is written.
pub const SERIES: Duration = Duration::from_secs(60);

/// A recorder and what writes its notes. The program spawns [`Publisher::run`].
pub fn channel(client: Client, reporter: Reporter) -> (Recorder, Publisher) {
    let (queue, notes) = mpsc::channel(QUEUE);
    let recorder = Recorder {
        queue,
        dropped: Arc::default(),
    };
    (recorder, Publisher::new(client, reporter, notes))
}

// === impl Recorder ===

impl Recorder {
    /// Takes a note, or drops it if too many wait. Never waits.
    pub fn record(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that were dropped so far, for a metric.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

// === impl Severity ===

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        })
    }
}
