//! The loop: look, plan, act, wait for the next change.

use std::{future::pending, path::Path, time::Duration};

use mesh_kube::Backoff;
use mesh_net::folder::Watcher;
use mesh_runtime::{
    error::chain,
    readiness::{Pending, Readiness},
};
use tokio::time::{Instant, sleep};

use super::{
    Error, Shared, Stage, View,
    act::{act, read},
    claim::{self, Claim, Owner},
    durable,
    pace::{Pace, Turn},
    plan::{self, Outcome, Plan},
    rival,
    state::State,
};
use crate::readiness::tasks::INSTALLATION;

/// Installs on one node.
struct Keeper<'a> {
    shared: &'a Shared,
    readiness: Readiness,
    /// There while the plugin is not called for new pods.
    pending: Option<Pending>,
    pace: Pace,
    backoff: Backoff,
    has_claimed: bool,
    /// The file with our entry, once everything was in place.
    file: Option<String>,
    repairs: u64,
    is_blind: bool,
}

/// When to look again.
enum Next {
    /// When something has changed, or after this time.
    OnChange(Duration),
    /// After this time, whatever changes: somebody writes again and again, or nothing can be written.
    In(Duration),
}

/// How often everything is looked at if nothing happens: events can be lost.
const VERIFY: Duration = Duration::from_secs(60);
/// The same while folders cannot be watched.
const POLL: Duration = Duration::from_secs(5);
/// How often an agent looks whether it has the node to itself again.
const STAND_BY: Duration = Duration::from_secs(5);
/// How long a folder has to be quiet before our entry moves to another file: a file that is being written is
/// not valid for a moment, and the next one would be taken for the network's.
const SETTLE: Duration = Duration::from_millis(300);
/// The least time between two looks: a folder in which somebody writes all the time is not read all the time.
const QUIET: Duration = Duration::from_millis(50);
/// Waits after failures.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Installs until dropped, or until only a new container helps.
pub(super) async fn run(shared: &Shared, readiness: Readiness) -> Error {
    let pending = Some(readiness.pending(INSTALLATION));
    let mut keeper = Keeper {
        shared,
        readiness,
        pending,
        pace: Pace::new(Instant::now()),
        backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
        has_claimed: false,
        file: None,
        repairs: 0,
        is_blind: false,
    };
    loop {
        // Before the folders are read, so that nothing is missed.
        let watcher = keeper.watch();
        let next = match keeper.round().await {
            Ok(next) => next,
            Err(error @ Error::Gone(_)) => return keeper.gone(error),
            Err(error) => Next::In(keeper.failed(&error)),
        };
        next.wait(watcher).await;
    }
}

// === impl Next ===

impl Next {
    async fn wait(self, watcher: Option<Watcher>) {
        sleep(QUIET).await;
        match (self, watcher) {
            (Self::OnChange(longest), Some(mut watcher)) => tokio::select! {
                changed = watcher.changed() => if let Err(error) = changed {
                    tracing::warn!(%error, "cannot hear of changes in the folders of CNI");
                    sleep(FIRST_RETRY).await;
                },
                () = sleep(longest) => {}
            },
            (Self::OnChange(longest), None) => sleep(longest.min(POLL)).await,
            (Self::In(time), _) => sleep(time).await,
        }
    }
}

// === impl Keeper ===

impl Keeper<'_> {
    /// One look, and what follows from it.
    async fn round(&mut self) -> Result<Next, Error> {
        let shared = self.shared;
        let mut stage = shared.stage.lock().await;
        if stage.closed {
            drop(stage);
            return pending().await;
        }
        if let Some(by) = self.claim(&mut stage)? {
            self.stand_by(&by);
            return Ok(Next::OnChange(STAND_BY));
        }
        for folder in [&shared.config.folders.bin, &shared.config.folders.conf] {
            is_mounted(folder)?;
        }
        let mut state = read(&shared.config, true).await?;
        let mut plan = plan::install(&state, &shared.config);
        if self.moves(&plan) {
            sleep(SETTLE).await;
            state = read(&shared.config, true).await?;
            plan = plan::install(&state, &shared.config);
        }
        self.carry_out(&state, &plan, &stage).await
    }

    /// Claims the node at the start, and again when the one who claimed later has ended. Returns the other
    /// one as long as there is one.
    fn claim(&mut self, stage: &mut Stage) -> Result<Option<String>, Error> {
        let config = &self.shared.config;
        match claim::owner(&config.folders.run, stage.claim.as_ref()) {
            Owner::Us => return Ok(None),
            Owner::Other(by) if self.has_claimed => return Ok(Some(by)),
            Owner::Other(by) => tracing::info!(from = by, "take over the installation"),
            Owner::Nobody => {}
        }
        stage.claim = Some(Claim::stake(&config.folders.run, &config.identity)?);
        self.has_claimed = true;
        Ok(None)
    }

    /// Whether our entry is about to go to another file than before.
    fn moves(&self, plan: &Plan) -> bool {
        let next = match &plan.outcome {
            Outcome::Installed { file, .. } => Some(file),
            Outcome::Waiting { .. } => None,
        };
        self.file.is_some() && self.file.as_ref() != next
    }

    async fn carry_out(
        &mut self,
        state: &State,
        plan: &Plan,
        stage: &Stage,
    ) -> Result<Next, Error> {
        if plan.actions.is_empty() {
            let contended = self.pace.is_contended(Instant::now());
            self.backoff.succeeded();
            if self.file.is_none() && matches!(plan.outcome, Outcome::Installed { .. }) {
                self.shared.metrics.installed(Ok(()));
            }
            self.report(&plan.outcome, contended);
            // A fight that has ended is told when the bucket says so.
            return Ok(Next::OnChange(VERIFY));
        }
        let is_repair = self.file.is_some();
        if is_repair && let Turn::In(later) = self.pace.take(Instant::now()) {
            self.held_back(state);
            return Ok(Next::In(later));
        }
        for action in &plan.actions {
            if !stage.claim.as_ref().is_some_and(Claim::is_ours) {
                // The other one plans anew.
                return Ok(Next::In(Duration::ZERO));
            }
            if let Err(error) = act(&self.shared.config, action).await {
                self.pace.give_back();
                return Err(error);
            }
            tracing::info!(file = action.file(), "{}", action.doing());
        }
        self.backoff.succeeded();
        self.shared.metrics.installed(Ok(()));
        if is_repair {
            self.repairs += 1;
            self.shared.metrics.repaired();
            let by = rival::suspect(state);
            tracing::warn!(
                repairs = self.repairs,
                "repaired what {} has changed",
                by.name
            );
        }
        let contended = self.pace.is_contended(Instant::now());
        self.report(&plan.outcome, contended);
        Ok(Next::OnChange(VERIFY))
    }

    // --- what is told ---

    fn report(&mut self, outcome: &Outcome, contended: bool) {
        let (file, reason) = match outcome {
            Outcome::Installed { file, note } => {
                (Some(file.clone()), note.as_ref().map(ToString::to_string))
            }
            Outcome::Waiting { .. } => (None, Some(self.waiting(outcome))),
        };
        if file.is_some() {
            self.file.clone_from(&file);
        }
        self.show(View {
            installed: file.is_some(),
            reason: reason.unwrap_or_default(),
            file,
            repairs: self.repairs,
            contended,
        });
    }

    fn waiting(&self, outcome: &Outcome) -> String {
        let folder = self.shared.config.folders.conf.display();
        format!("{outcome} in {folder}")
    }

    fn held_back(&mut self, state: &State) {
        let by = rival::suspect(state);
        self.show(View {
            installed: false,
            reason: format!(
                "{} changes the plugin's configuration back again and again, so that new pods start outside \
                 of the mesh's plugin; repairs are held back to one in {} s. To end it: {}",
                by.name,
                super::pace::EVERY.as_secs(),
                by.remedy
            ),
            file: self.file.clone(),
            repairs: self.repairs,
            contended: true,
        });
    }

    fn stand_by(&mut self, by: &str) {
        self.show(View {
            installed: true,
            reason: format!("another agent, {by}, has taken over the installation"),
            file: self.file.clone(),
            repairs: self.repairs,
            contended: false,
        });
    }

    fn failed(&mut self, error: &Error) -> Duration {
        self.shared.metrics.installed(Err(error));
        let wait = self.backoff.failed();
        self.show(View {
            installed: false,
            reason: chain(error).to_string(),
            file: self.file.clone(),
            repairs: self.repairs,
            contended: false,
        });
        wait
    }

    fn gone(&mut self, error: Error) -> Error {
        self.failed(&error);
        error
    }

    /// Shows it where it differs from what was shown before.
    fn show(&mut self, view: View) {
        if view.installed {
            if let Some(pending) = self.pending.take() {
                pending.ready();
            }
        } else if self.pending.is_none() {
            self.pending = Some(self.readiness.pending(INSTALLATION));
        }
        self.shared.metrics.show(&view);
        self.shared.view.send_if_modified(|shown| {
            let has_changed = *shown != view;
            if has_changed && view.installed && view.reason.is_empty() {
                tracing::info!(file = view.file, "the plugin is installed");
            } else if has_changed && shown.reason != view.reason {
                tracing::warn!(installed = view.installed, "{}", view.reason);
            }
            *shown = view;
            has_changed
        });
    }

    /// Watches the folders. An installer that cannot hear looks again and again.
    fn watch(&mut self) -> Option<Watcher> {
        let folders = &self.shared.config.folders;
        match Watcher::new(&[&folders.conf, &folders.bin]) {
            Ok(watcher) => {
                self.is_blind = false;
                Some(watcher)
            }
            Err(error) => {
                if !self.is_blind {
                    let every = POLL.as_secs();
                    tracing::warn!("{}; looking every {every} s instead", chain(&error));
                }
                self.is_blind = true;
                None
            }
        }
    }
}

/// A folder that was removed from the host while it was mounted here is still there, and takes no more files.
fn is_mounted(folder: &Path) -> Result<(), Error> {
    if folder.exists() && !durable::is_there(folder) {
        return Err(Error::Gone(folder.to_owned()));
    }
    Ok(())
}
