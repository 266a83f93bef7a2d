//! Readiness: what has to be done before the process may be sent work, and the answer to the probe.

use std::{collections::BTreeMap, future::ready, sync::Arc};

use http::StatusCode;
use parking_lot::Mutex;

use crate::http::{Router, text};

/// The tasks that readiness waits for. Clones share them; with none pending the process is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, usize>>>);

/// A task that readiness waits for, until [`Pending::ready`].
///
/// Dropping it does not make the process ready: a task that failed on the way has not done its work,
/// and stays visible by its name.
#[derive(Debug)]
#[must_use = "the process becomes ready only when this says so"]
pub struct Pending {
    name: &'static str,
    readiness: Readiness,
}

// === impl Readiness ===

impl Readiness {
    /// Readiness that waits for nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes readiness wait for one more task. Also later on, to take back readiness.
    pub fn pending(&self, name: &'static str) -> Pending {
        *self.0.lock().entry(name).or_default() += 1;
        Pending {
            name,
            readiness: self.clone(),
        }
    }

    /// The names of the tasks that are pending, sorted.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.0.lock().keys().copied().collect()
    }

    /// Answers `GET /healthz/ready` as the kubelet asks it: 200 when ready, otherwise 500 with the names
    /// of what is pending.
    pub fn routes(&self) -> Router {
        let readiness = self.clone();
        Router::new().get("/healthz/ready", "whether all parts are ready", move |_| {
            let waiting = readiness.waiting_for();
            ready(if waiting.is_empty() {
                text(StatusCode::OK, "ready\n")
            } else {
                let names = waiting.join(", ");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                text(status, format!("not ready, pending: {names}\n"))
            })
        })
    }
}

// === impl Pending ===

impl Pending {
    /// Says that the task has done its work.
    pub fn ready(self) {
        let mut pending = self.readiness.0.lock();
        if let Some(count) = pending.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                pending.remove(self.name);
            }
        }
        let remaining = pending.len();
        drop(pending);
        tracing::info!(task = self.name, remaining, "ready");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_task_said_so() {
        let readiness = Readiness::new();
        assert!(readiness.waiting_for().is_empty());
        let state = readiness.pending("state manager");
        let proxies = readiness.pending("proxies");
        assert_eq!(readiness.waiting_for(), ["proxies", "state manager"]);
        state.ready();
        assert_eq!(readiness.waiting_for(), ["proxies"]);
        proxies.ready();
        assert!(readiness.waiting_for().is_empty());
    }

    #[test]
    fn a_name_is_pending_until_its_last_task_is_ready() {
        let readiness = Readiness::new();
        let first = readiness.pending("proxies");
        let second = readiness.pending("proxies");
        first.ready();
        assert_eq!(readiness.waiting_for(), ["proxies"]);
        second.ready();
        assert!(readiness.waiting_for().is_empty());
    }

    #[test]
    fn a_task_that_failed_does_not_make_ready() {
        let readiness = Readiness::new();
        drop(readiness.pending("state manager"));
        assert_eq!(readiness.waiting_for(), ["state manager"]);
    }
}
