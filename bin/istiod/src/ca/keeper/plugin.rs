//! Plug-in certificates, and what follows when their files change.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;

use super::{Error, Held, Settings};
use crate::ca::{
    files::Files,
    material::{Pem, Signer, timestamp},
    metrics::{Metrics, Outcome},
    rotation::{Action, State},
};

/// Looks at the files every few seconds. Their owner decides what signs; we decide when.
#[derive(Debug)]
pub(super) struct Plugin {
    files: Files,
    settings: Settings,
    held: Arc<Held>,
    /// What was read last; acted upon when it is read twice in a row.
    seen: Option<Pem>,
    /// What was acted upon last, good or bad.
    judged: Option<Pem>,
}

/// How often the files are read: a few kilobytes that are in the page cache.
const INTERVAL: Duration = Duration::from_secs(2);

// === impl Plugin ===

impl Plugin {
    pub(super) fn start(
        files: Files,
        pem: Pem,
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let signer = Signer::try_new(pem.clone(), settings.clock.now());
        let signer = Arc::new(signer.map_err(Error::Plugin)?);
        tracing::info!(
            folder = %files.folder().display(),
            not_after = %timestamp(signer.not_after),
            "certificates are signed by the plug-in authority"
        );
        let state = State::new(signer, settings.default_ttl);
        let held = Held::new(state, &settings, metrics).map_err(Error::Root)?;
        Ok(Self {
            files,
            settings,
            held: Arc::new(held),
            seen: Some(pem.clone()),
            judged: Some(pem),
        })
    }

    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    pub(super) async fn run(mut self) {
        loop {
            sleep(INTERVAL).await;
            self.look();
            self.step();
        }
    }

    /// Reads the files, and acts if they are new and at rest.
    pub(super) fn look(&mut self) {
        let pem = match self.files.read() {
            Ok(Some(pem)) => pem,
            // A mount that goes away, and files half written, say nothing about what is in force.
            Ok(None) => return self.missing("there are none any more"),
            Err(error) => return self.missing(&mesh_kube::error::Explained(&error).to_string()),
        };
        let at_rest = self.seen.as_ref() == Some(&pem);
        self.seen = Some(pem.clone());
        if at_rest && self.judged.as_ref() != Some(&pem) {
            self.judged = Some(pem.clone());
            self.judge(pem);
        }
    }

    /// Takes the steps that are due.
    pub(super) fn step(&self) {
        let mut state = self.held.state();
        self.advance(&mut state);
        self.put(state);
    }

    /// Takes the steps that are due, and says when the next will be.
    fn advance(&self, state: &mut State) -> Option<SystemTime> {
        let (now, rules) = (self.settings.clock.now(), self.settings.rules());
        loop {
            match state.step(now, rules) {
                Action::Withdraw => state.withdraw(now),
                Action::Switch => state.switch(now),
                Action::Retire => state.retire(now, rules),
                // Only the owner of the files can make what is next; metrics tell when it is time.
                Action::Announce => return None,
                Action::Wait(due) => return due,
            }
        }
    }

    fn missing(&mut self, reason: &str) {
        if self.seen.take().is_some() {
            tracing::warn!(
                reason,
                "plug-in certificates cannot be read, the last good ones stay"
            );
        }
    }

    fn judge(&self, pem: Pem) {
        let now = self.settings.clock.now();
        let signer = match Signer::try_new(pem, now) {
            Ok(signer) => Arc::new(signer),
            Err(error) => {
                let error = mesh_kube::error::Explained(&error);
                tracing::error!(%error, "plug-in certificates are refused, the last good ones stay");
                return self.held.metrics().reloaded(Outcome::Refused);
            }
        };
        self.held.metrics().reloaded(Outcome::Accepted);
        let mut state = self.held.state();
        state.announce(signer, now);
        let due = self.advance(&mut state);
        if state.next.is_some() {
            let until = due.map(timestamp).map(|due| due.to_string());
            tracing::warn!(
                until,
                "the new plug-in authority leads to roots that workloads do not trust yet: the former \
                 one signs until they do, and both are trusted; a restart would cut this short"
            );
        } else {
            tracing::info!("the new plug-in certificates are in force");
        }
        self.put(state);
    }

    fn put(&self, state: State) {
        if let Err(error) = self.held.put(state) {
            let error = mesh_kube::error::Explained(&error);
            tracing::error!(%error, "nothing can be signed with the new roots, the last good ones stay");
        }
    }
}

#[cfg(test)]
mod tests;
