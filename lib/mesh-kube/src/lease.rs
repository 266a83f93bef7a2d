//! Leader election over a `coordination.k8s.io/v1` Lease, as all Kubernetes components do it.
//!
//! Candidates agree through one object: its holder renews it, and whoever has watched it for a whole
//! lease duration without seeing a renewal may take it. Only one write to a version of the object
//! succeeds, so two candidates cannot both take it. Clocks are never compared: a candidate measures by
//! its own clock how long the record has not changed.
//!
//! A leader stops claiming to be one [`Config::renew_deadline`] after it *sent* its last renewal that
//! succeeded, whether the API server answers, refuses or hangs. Others wait [`Config::duration`], which
//! is longer, from when they first see that renewal. So there is never a second leader while the first
//! still claims, as long as clocks run at about the same speed.
//!
//! The record is that of client-go: programs of both kinds may stand for the same lease.

use std::{future::Future, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use thiserror::Error;
use tokio::sync::watch;

mod driver;
mod machine;

/// Which lease, who stands for it, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease; all candidates for one task name the same.
    pub name: String,
    /// Who we are, different for every process: the pod's name. A restarted process of the same
    /// identity takes its lease back at once.
    pub identity: String,
    /// How long others wait after our last renewal before they take over. Whole seconds, as the record
    /// holds no others.
    pub duration: Duration,
    /// How long after our last renewal we go on claiming to lead. Shorter than `duration`: the
    /// difference is what may go wrong with timers.
    pub renew_deadline: Duration,
    /// How long to wait between two attempts. A candidate adds up to 1.2 times as much at random.
    pub retry: Duration,
}

/// Why a candidate does not start. All are defects of the program's configuration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// With such times there could be two leaders, or none.
    #[error(
        "checking the times of the lease {0}: the retry period, the renew deadline and the duration \
         must each be longer than the one before, and the duration a whole number of seconds"
    )]
    Times(String),
    /// Two processes without identity would both think they hold the lease.
    #[error("checking the lease {0}: the identity is empty")]
    Identity(String),
}

/// Stands for the lease until `stop` completes. `leader` says at any time whether we lead; it is false
/// in the beginning and in the end.
///
/// At the end a lease that we hold is released, so that another candidate has it at its next attempt
/// rather than when it expires. `stop` should therefore complete after what only a leader may do has
/// ended.
pub async fn run(
    client: Client,
    config: Config,
    leader: watch::Sender<bool>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    config.check()?;
    let api = kube::Api::<Lease>::namespaced(client, &config.namespace);
    let driver = driver::Driver::new(api, config, leader);
    // Large, as several requests are alive in it.
    Box::pin(driver.run(stop)).await;
    Ok(())
}

// === impl Config ===

impl Config {
    /// The times that Kubernetes' own components use: 15 s, 10 s, 2 s.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let name = format!("{}/{}", self.namespace, self.name);
        if self.identity.is_empty() {
            return Err(Error::Identity(name));
        }
        let ordered = self.renew_deadline < self.duration
            && self.retry < self.renew_deadline
            && !self.retry.is_zero();
        let whole =
            self.duration.subsec_nanos() == 0 && i32::try_from(self.duration.as_secs()).is_ok();
        if ordered && whole {
            Ok(())
        } else {
            Err(Error::Times(name))
        }
    }
}

#[cfg(test)]
mod tests;
