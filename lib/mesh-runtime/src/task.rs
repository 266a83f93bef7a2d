//! Tasks that have an owner and a name.
//!
//! A program spawns through a [`Tracker`], so that it can say at any time what runs, wait for all of it
//! when it stops, and read in the log which task panicked.

use std::{
    any::Any,
    collections::BTreeMap,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::task::TaskTracker;

/// Spawns tasks and waits for them. Clones share the same set of tasks.
///
/// The tracker does not stop anything: that is what [`crate::drain`] is for. A task counts as running
/// until its future has been dropped, also when it was aborted or has panicked.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    runtime: Option<Handle>,
    tasks: TaskTracker,
    running: Running,
}

/// How many tasks of each name run. One short lock at each end of a task, never while it runs.
#[derive(Clone, Debug, Default)]
struct Running(Arc<Mutex<BTreeMap<&'static str, usize>>>);

/// One running task; leaves the count when dropped.
#[derive(Debug)]
struct Entry {
    name: &'static str,
    running: Running,
}

// === impl Tracker ===

impl Tracker {
    /// A tracker that spawns on the runtime of the caller of [`Tracker::spawn`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A tracker that spawns on `runtime`, wherever it is called from.
    pub fn on(runtime: Handle) -> Self {
        Self {
            runtime: Some(runtime),
            ..Self::default()
        }
    }

    /// Spawns `future` as a task called `name` in logs and reports.
    ///
    /// A panic ends this task alone: it is logged as an error with the task's name, and the returned
    /// handle resolves as if the task had ended. A tracker without a runtime of its own must be called
    /// from within one.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let entry = self.running.enter(name);
        let task = async move {
            let _entry = entry;
            survive(name, future).await;
        };
        match &self.runtime {
            Some(runtime) => self.tasks.spawn_on(task, runtime),
            None => self.tasks.spawn(task),
        }
    }

    /// The names of the tasks that run now, and how many of each.
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        self.running.0.lock().clone()
    }

    /// Resolves when no task is left. Spawning stays possible, also meanwhile, and is waited for as well.
    pub async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

// === impl Running ===

impl Running {
    fn enter(&self, name: &'static str) -> Entry {
        *self.0.lock().entry(name).or_default() += 1;
        Entry {
            name,
            running: self.clone(),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.running.0.lock();
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

/// Runs `future` to its end and turns a panic into a log line. Unwind safety holds: after a panic the
/// future is not polled again and nobody else can see into it.
async fn survive(name: &'static str, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let panicked =
        poll_fn(
            |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
                Ok(poll) => poll.map(Ok),
                Err(payload) => Poll::Ready(Err(payload)),
            },
        );
    if let Err(payload) = panicked.await {
        let reason = reason(payload.as_ref());
        tracing::error!(task = name, reason, "task panicked");
    }
}

fn reason(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not a text")
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;
    use crate::log::{self, tests::Memory};

    #[tokio::test]
    async fn waiting_ends_with_the_last_task() {
        let tracker = Tracker::new();
        let (first, first_gate) = oneshot::channel::<()>();
        let (second, second_gate) = oneshot::channel::<()>();
        let one = tracker.spawn("gate", async move { drop(first_gate.await) });
        let two = tracker.spawn("gate", async move { drop(second_gate.await) });
        assert_eq!(tracker.running(), BTreeMap::from([("gate", 2)]));

        let mut all = pin!(tracker.wait());
        drop(first);
        one.await.unwrap();
        assert!(all.as_mut().now_or_never().is_none());
        drop(second);
        two.await.unwrap();
        all.await;
        assert_eq!(tracker.running(), BTreeMap::new());
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_only() {
        let tracker = Tracker::new();
        let (gate, opened) = oneshot::channel::<()>();
        let other = tracker.spawn("other", async move { drop(opened.await) });
        tracker
            .spawn("faulty", async { panic!("out of cheese") })
            .await
            .unwrap();
        assert_eq!(tracker.running(), BTreeMap::from([("other", 1)]));
        drop(gate);
        other.await.unwrap();
        tracker.wait().await;
    }

    #[tokio::test]
    async fn a_panic_is_logged_with_the_name_of_its_task() {
        let output = Memory::default();
        let (subscriber, log) = log::build(&log::Config::default(), output.clone()).unwrap();
        let _guard = tracing::subscriber::set_default(subscriber);
        let tracker = Tracker::new();
        let faulty = tracker.spawn("faulty", async { panic!("out of cheese") });
        faulty.await.unwrap();
        assert!(log.flush(Duration::from_secs(5)));
        let line = "task panicked\ttask=\"faulty\" reason=\"out of cheese\"\n";
        assert!(output.text().ends_with(line), "{}", output.text());
    }

    #[tokio::test]
    async fn an_aborted_task_is_not_waited_for() {
        let tracker = Tracker::new();
        let endless = tracker.spawn("endless", std::future::pending());
        endless.abort();
        tracker.wait().await;
        assert_eq!(tracker.running(), BTreeMap::new());
    }

    #[test]
    fn the_reason_of_a_panic_is_its_text() {
        assert_eq!(reason(&"literal"), "literal");
        assert_eq!(reason(&String::from("formatted")), "formatted");
        assert_eq!(reason(&7_u8), "not a text");
    }
}
