//! Removes what is installed.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    Action, Error, Shared, Stage, View,
    act::{act, read},
    claim::{self, Claim, Owner},
    plan,
};

/// How often a removal is tried: other programs write to the folders too.
const ROUNDS: usize = 3;
/// How long to wait before the next try.
const PAUSE: Duration = Duration::from_millis(500);
/// How long runtimes take to notice that their configuration has changed. They watch the folder; before they
/// have read it they still call the plugin, also for pods that end.
const RELOAD: Duration = Duration::from_secs(1);

/// Removes all, and ends the installation for good.
pub(super) async fn run(shared: &Shared) -> Result<(), Vec<Error>> {
    let mut stage = shared.stage.lock().await;
    stage.closed = true;
    shared.view.send_replace(View {
        reason: "removed, since the mesh leaves the node".to_owned(),
        ..View::default()
    });
    let mut failures = Vec::new();
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(PAUSE).await;
        }
        failures = match try_once(shared, &mut stage).await {
            Ok(failures) if failures.is_empty() => return Ok(()),
            Ok(failures) => failures,
            Err(taken @ Error::Taken { .. }) => return Err(vec![taken]),
            Err(error) => vec![error],
        };
    }
    Err(failures)
}

/// Does what is to be done now. What failed that others do not depend on is told at the end.
async fn try_once(shared: &Shared, stage: &mut Stage) -> Result<Vec<Error>, Error> {
    let config = &shared.config;
    own(shared, stage)?;
    let actions = plan::remove(&read(config, false).await?, config);
    let mut failures = Vec::new();
    for action in actions {
        own(shared, stage)?;
        if action == Action::LetRuntimesReload {
            sleep(RELOAD).await;
        } else if let Err(error) = act(config, &action).await {
            if action.is_configuration() {
                return Err(error);
            }
            failures.push(error);
        } else {
            tracing::info!(file = action.file(), "{}", action.doing());
        }
    }
    Ok(failures)
}

/// Makes sure that no other agent installs here.
fn own(shared: &Shared, stage: &mut Stage) -> Result<(), Error> {
    let config = &shared.config;
    match claim::owner(&config.folders.run, stage.claim.as_ref()) {
        Owner::Us => {}
        Owner::Other(by) => return Err(Error::Taken { by }),
        // Without a run directory there is no other agent either.
        Owner::Nobody => {
            stage.claim = Claim::stake(&config.folders.run, &config.identity).ok();
        }
    }
    Ok(())
}
