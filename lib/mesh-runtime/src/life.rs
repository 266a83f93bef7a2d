//! The life of a program: its parts run until it is told to stop or one of them fails, and then they end
//! in good order, within a limit.
//!
//! [`begin`] makes both ends: the program starts its parts with [`Tasks`], and its main function waits in
//! [`Life::until_told`].

use std::{sync::Arc, time::Duration};

use tokio::net::TcpListener;

use crate::{
    drain,
    essential::{Ended, Essential},
    http::{self, Limits, Router},
    shutdown::Signals,
    task::Tracker,
};

/// A part of the program came to an end by itself, which is a defect of the program; the log has the
/// reason. Whoever runs the program should start it again, as the kubelet does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the part `{part}` of the program ended by itself")]
pub struct Error {
    /// The name that the part was spawned with.
    pub part: &'static str,
}

/// A program that runs: the right to stop its parts, and the news of those that fail. Dropping it stops
/// them at once.
#[derive(Debug)]
#[must_use = "dropping it stops the program"]
pub struct Life {
    trigger: drain::Trigger,
    ended: Ended,
    within: Duration,
}

/// What the parts of a program are started with. A clone that is kept holds up the end of the program
/// like work under way.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// Spawns what may end by itself.
    pub background: Tracker,
    /// Spawns what must not, and ends its own work when the program stops; else see [`Tasks::spawn`].
    pub essential: Essential,
    /// Says that the program stops.
    pub drain: drain::Watch,
}

/// A life whose work has `within` to end once the program stops; the rest is dropped. Tasks are spawned
/// on the runtime of whoever spawns them.
pub fn begin(within: Duration) -> (Life, Tasks) {
    let (trigger, drain) = drain::channel();
    let background = Tracker::new();
    let (essential, ended) = Essential::new(background.clone());
    let life = Life {
        trigger,
        ended,
        within,
    };
    let tasks = Tasks {
        background,
        essential,
        drain,
    };
    (life, tasks)
}

// === impl Life ===

impl Life {
    /// Resolves when a part ends that must not.
    pub async fn failed(&mut self) -> Error {
        match self.ended.recv().await {
            Some(part) => Error { part },
            None => std::future::pending().await,
        }
    }

    /// Tells all parts to stop and waits for them, no longer than the limit.
    pub async fn stop(self) {
        let outcome = self.trigger.drain_within(self.within).await;
        tracing::info!(?outcome, "stopped");
    }

    /// Resolves when the program has stopped, because it was told to or because a part failed. Told again
    /// meanwhile, it stops at once.
    pub async fn until_told(mut self, signals: &mut Signals) -> Result<(), Error> {
        let limit = self.within;
        let outcome = tokio::select! {
            cause = signals.next() => {
                tracing::info!(%cause, ?limit, "stopping: what is under way has until the limit to end");
                Ok(())
            }
            error = self.failed() => {
                let part = error.part;
                tracing::error!(part, ?limit, "stopping: a part that must not end has ended");
                Err(error)
            }
        };
        tokio::select! {
            () = self.stop() => {}
            cause = signals.next() => tracing::warn!(%cause, "told again: stopping at once"),
        }
        outcome
    }
}

// === impl Tasks ===

impl Tasks {
    /// Spawns a part that must not end before the program stops, and is dropped then.
    pub fn spawn(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let drain = self.drain.clone();
        self.essential.spawn(name, async move {
            tokio::select! {
                () = part => {}
                _mode = drain.signaled() => {}
            }
        });
    }

    /// Serves one of the program's own plain HTTP ports. Requests under way end with the program.
    pub fn serve_http(&self, name: &'static str, listener: TcpListener, router: Router) {
        let (tasks, drain) = (self.background.clone(), self.drain.clone());
        let serving = http::serve(listener, Arc::new(router), Limits::default(), tasks, drain);
        drop(self.background.spawn(name, serving));
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::FutureExt as _;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::shutdown;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_first_part_that_ends_is_the_failure() {
        let (mut life, tasks) = begin(LIMIT);
        tasks.spawn("endless", pending());
        assert_eq!(life.failed().now_or_never(), None);
        tasks.spawn("brief", ready(()));
        let told = life.failed().await.to_string();
        assert_eq!(told, "the part `brief` of the program ended by itself");
    }

    #[tokio::test]
    async fn background_tasks_may_end() {
        let (mut life, tasks) = begin(LIMIT);
        tasks.background.spawn("brief", ready(())).await.unwrap();
        assert_eq!(life.failed().now_or_never(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn parts_end_with_the_program() {
        let (life, tasks) = begin(LIMIT);
        tasks.spawn("endless", pending());
        let background = tasks.background.clone();
        drop(tasks);
        let start = Instant::now();
        life.stop().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        background.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn work_under_way_is_dropped_after_the_limit() {
        let (life, tasks) = begin(LIMIT);
        let drain = tasks.drain.clone();
        let stubborn = async move { drain.immediate().await };
        drop(tasks.background.spawn("stubborn", stubborn));
        drop(tasks);
        let start = Instant::now();
        life.stop().await;
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn told_to_stop_the_program_ends_well() {
        let mut signals = shutdown::signals().unwrap();
        let (life, tasks) = begin(LIMIT);
        tasks.spawn("endless", pending());
        drop(tasks);
        signals.quitter().quit();
        assert_eq!(life.until_told(&mut signals).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_part_stops_the_others_and_is_the_outcome() {
        let mut signals = shutdown::signals().unwrap();
        let (life, tasks) = begin(LIMIT);
        tasks.spawn("endless", pending());
        tasks.spawn("brief", ready(()));
        let background = tasks.background.clone();
        drop(tasks);
        let failed = Err(Error { part: "brief" });
        assert_eq!(life.until_told(&mut signals).await, failed);
        background.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn told_twice_the_program_waits_for_nobody() {
        let mut signals = shutdown::signals().unwrap();
        let quit = signals.quitter();
        let (life, tasks) = begin(LIMIT);
        let drain = tasks.drain.clone();
        drop(tasks.background.spawn("stubborn", async move {
            drain.signaled().await;
            quit.quit();
            pending::<()>().await;
        }));
        signals.quitter().quit();
        let stopped = timeout(LIMIT, life.until_told(&mut signals)).await;
        assert_eq!(stopped, Ok(Ok(())));
        drop(tasks);
    }
}
