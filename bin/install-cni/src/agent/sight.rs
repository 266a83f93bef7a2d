//! Whether the agent still sees what the API server says.
//!
//! A watch that breaks is resumed by itself, and for a moment nothing is lost by it. One that stays away
//! leaves the agent with what it knew: pods that are deleted keep their rules, and labels have no effect.
//! Nothing else shows it, because all that is known is as it should be.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use mesh_kube::watch::State;
use tokio::{sync::watch::Receiver, time::timeout};

/// How long a watch may be away before that is told. An API server that starts anew, or hands over to
/// another, takes some seconds.
const AWAY: Duration = Duration::from_secs(60);

/// Counts the watches that have been away for long.
#[derive(Debug, Default)]
pub(super) struct Sight {
    away: AtomicUsize,
}

impl Sight {
    /// Whether one of them has.
    pub(super) fn is_lost(&self) -> bool {
        self.away.load(Ordering::Relaxed) > 0
    }

    /// Looks at a watch of `what` for as long as it runs.
    pub(super) async fn follow(&self, what: &'static str, mut state: Receiver<State>) {
        while turns(&mut state, true).await {
            if timeout(AWAY, turns(&mut state, false)).await.is_ok() {
                continue;
            }
            let trouble = state.borrow().trouble.clone().unwrap_or_default();
            self.away.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                %what,
                reason = &*trouble,
                "the API server has not been seen for {AWAY:?}; changes have no effect until it is back"
            );
            let back = turns(&mut state, false).await;
            self.away.fetch_sub(1, Ordering::Relaxed);
            if back {
                tracing::info!(%what, "the API server is seen again");
            }
        }
    }
}

/// Waits until a watch has trouble or has none; false if it has ended.
async fn turns(state: &mut Receiver<State>, trouble: bool) -> bool {
    let turned = state.wait_for(|state| state.trouble.is_some() == trouble);
    turned.await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;
    use tokio::{sync::watch, time::advance};

    use super::*;

    fn state(trouble: Option<&str>) -> State {
        State {
            synced: true,
            absent: false,
            trouble: trouble.map(Into::into),
        }
    }

    /// Lets everything happen that is due.
    async fn settle() {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    struct Watched {
        sight: Arc<Sight>,
        pods: watch::Sender<State>,
        namespaces: watch::Sender<State>,
    }

    fn watched() -> Watched {
        let sight = Arc::new(Sight::default());
        let (pods, namespaces) = (watch::Sender::default(), watch::Sender::default());
        for (what, sender) in [("pods", &pods), ("namespaces", &namespaces)] {
            let (sight, state) = (sight.clone(), sender.subscribe());
            drop(tokio::spawn(async move { sight.follow(what, state).await }));
        }
        Watched {
            sight,
            pods,
            namespaces,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_away_for_long_is_told_until_it_is_back() {
        let Watched {
            sight,
            pods,
            namespaces,
        } = watched();
        settle().await;
        pods.send_replace(state(Some("refused")));
        settle().await;
        advance(AWAY / 2).await;
        settle().await;
        assert!(!sight.is_lost());
        // Another reason is no return.
        pods.send_replace(state(Some("timed out")));
        namespaces.send_replace(state(Some("refused")));
        settle().await;
        advance(AWAY / 2 + Duration::from_secs(1)).await;
        settle().await;
        assert!(sight.is_lost(), "the pods' watch is away");
        advance(AWAY).await;
        settle().await;
        pods.send_replace(state(None));
        settle().await;
        assert!(sight.is_lost(), "the namespaces' watch is still away");
        namespaces.send_replace(state(None));
        settle().await;
        assert!(!sight.is_lost());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_breaks_now_and_then_is_not_told() {
        let Watched { sight, pods, .. } = watched();
        settle().await;
        for _ in 0..10 {
            pods.send_replace(state(Some("broken")));
            settle().await;
            advance(AWAY * 2 / 3).await;
            settle().await;
            pods.send_replace(state(None));
            settle().await;
            assert!(!sight.is_lost());
        }
    }

    #[tokio::test]
    async fn an_agent_that_ends_is_not_followed() {
        let (sender, state) = watch::channel(State::default());
        drop(sender);
        let sight = Sight::default();
        let followed = sight.follow("pods", state);
        assert_eq!(followed.now_or_never(), Some(()));
    }
}
