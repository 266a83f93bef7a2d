//! The authority that is in force, and telling everybody of a new one.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_identity::issuer::{self, Current, Issuer};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Settings;
use crate::ca::{
    material::{bundle, timestamp},
    metrics::{Expiry, Metrics},
    rotation::State,
};

/// The state and what follows from it.
#[derive(Debug)]
pub(super) struct Held {
    state: Mutex<State>,
    current: Current,
    changes: watch::Sender<Arc<Issuer>>,
    /// Counts the states: whoever waits for one that asks for something waits for this.
    stirred: watch::Sender<u64>,
    max_ttl: Duration,
    metrics: Metrics,
}

// === impl Held ===

impl Held {
    pub(super) fn new(
        state: State,
        settings: &Settings,
        metrics: Metrics,
    ) -> Result<Self, issuer::Error> {
        let issuer = Arc::new(issuer(&state, settings.max_ttl)?);
        let held = Self {
            current: Current::new(Arc::clone(&issuer)),
            changes: watch::Sender::new(issuer),
            stirred: watch::Sender::new(0),
            max_ttl: settings.max_ttl,
            metrics,
            state: Mutex::new(state),
        };
        held.show(&held.state());
        Ok(held)
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().clone()
    }

    pub(super) fn current(&self) -> Current {
        self.current.clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Arc<Issuer>> {
        self.changes.subscribe()
    }

    pub(super) fn stirred(&self) -> watch::Receiver<u64> {
        self.stirred.subscribe()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Notes a longer life, where nobody else needs to know.
    pub(super) fn lengthen(&self, lifetime: Duration) {
        let mut state = self.state.lock();
        state.longest = state.longest.max(lifetime.min(self.max_ttl));
    }

    /// Puts a state in force. If nothing can be signed with it, the former stays.
    pub(super) fn put(&self, state: State) -> Result<(), issuer::Error> {
        let former = self.state();
        if former == state {
            return Ok(());
        }
        let same = former.signing == state.signing && former.trusted == state.trusted;
        if !same {
            let issuer = Arc::new(issuer(&state, self.max_ttl)?);
            self.current.replace(Arc::clone(&issuer));
            self.changes.send_replace(issuer);
            tell(&former, &state);
        }
        self.show(&state);
        *self.state.lock() = state;
        self.stir();
        Ok(())
    }

    /// Wakes who waits for a reason to look.
    pub(super) fn stir(&self) {
        self.stirred.send_modify(|count| *count += 1);
    }

    fn show(&self, state: &State) {
        let chain = state.signing.not_after;
        let roots = state.signing.roots.iter().map(|root| root.not_after);
        let root = roots.min().unwrap_or(chain);
        self.metrics
            .in_force(state.trusted.len(), Expiry { root, chain });
    }
}

fn issuer(state: &State, max_ttl: Duration) -> Result<Issuer, issuer::Error> {
    state.signing.issuer(&bundle(state.roots()), max_ttl)
}

/// Says in the log what is different.
fn tell(former: &State, state: &State) {
    let short = |id: &str| id.chars().take(16).collect::<String>();
    let date = |time: SystemTime| timestamp(time).to_string();
    if former.signing.id != state.signing.id {
        tracing::info!(
            from = short(&former.signing.id),
            to = short(&state.signing.id),
            not_after = date(state.signing.not_after),
            "certificates are signed by another authority from now on"
        );
    }
    let has = |state: &State, id: &str| state.roots().any(|root| root.fingerprint == id);
    for root in state.roots().filter(|r| !has(former, &r.fingerprint)) {
        let not_after = date(root.not_after);
        tracing::info!(
            root = short(&root.fingerprint),
            not_after,
            "a root is trusted from now on"
        );
    }
    for root in former.roots().filter(|r| !has(state, &r.fingerprint)) {
        tracing::info!(
            root = short(&root.fingerprint),
            "a root is no longer trusted"
        );
    }
}
