//! Keeps the root: finds or makes it, follows its changes, and replaces it in time.
//!
//! Plug-in certificates go before the Secret. With a Secret every replica follows what stands in it, and
//! the leader alone takes the steps of a [rotation](super::rotation); each write names the version that
//! it is based on, so two replicas that start at once, or two that both think they lead, end with one
//! root. With plug-in certificates every replica takes the steps for itself, at the pace of its mount.

mod held;
mod plugin;
mod shared;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kube::Client;
use mesh_identity::issuer::{self, Current, Issuer, RootKind};
use mesh_kube::watch as collection;
use tokio::sync::watch;

use self::{held::Held, plugin::Plugin, shared::Shared};
use super::{files, files::Files, material, metrics::Metrics, rotation::Rules, secret};

/// How the root is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where plug-in certificates are mounted, if there are any.
    pub files: PathBuf,
    /// The namespace of the Secret: istiod's own.
    pub namespace: String,
    /// Whom a self-signed root names: the trust domain.
    pub organization: String,
    /// The kind of a self-signed root.
    pub kind: RootKind,
    /// How long a self-signed root lives.
    pub root_ttl: Duration,
    /// How often to look at the age of the root.
    pub check_interval: Duration,
    /// Whether to vary that a little, so that replicas do not ask at the same time.
    pub jitter: bool,
    /// Which part of its life, in percent, a root has left when it is replaced.
    pub grace_percent: u32,
    /// The life of a certificate unless another is asked for.
    pub default_ttl: Duration,
    /// The longest life that is granted.
    pub max_ttl: Duration,
    /// Where the time comes from.
    pub clock: Clock,
}

/// Tells the time. A parameter, so that years can pass in tests.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

/// The authority as the rest of the program sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authority {
    held: Arc<Held>,
    shared: Option<Arc<Shared>>,
}

/// Follows and replaces the root for as long as it runs.
#[derive(Debug)]
pub struct Keeper {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Files(Box<Plugin>),
    Secret(Arc<Shared>),
}

/// Why there is no root, or nothing can be issued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Plug-in certificates are mounted but not complete. Whoever made the Secret `cacerts` is at fault.
    #[error("reading the plug-in certificates")]
    Files(#[source] files::Error),
    /// They are complete but make no authority.
    #[error("using the plug-in certificates")]
    Plugin(#[source] material::Error),
    /// The Secret cannot be read or written. The API server is away, or permissions are missing; retry.
    #[error("{0} the Secret of the authority")]
    Api(&'static str, #[source] Box<kube::Error>),
    /// The Secret holds no authority.
    #[error("using the Secret of the authority")]
    Secret(#[source] secret::Error),
    /// A root could not be made or used. The host is at fault.
    #[error("making a root certificate")]
    Root(#[source] issuer::Error),
    /// A root that has just been made cannot be used, which is our defect.
    #[error("using a new root certificate")]
    Material(#[source] material::Error),
    /// Somebody else kept writing the Secret. Retry.
    #[error("writing the Secret of the authority: others keep changing it")]
    Contended,
    /// The Secret has not been seen for so long that the root may have been replaced meanwhile. Nothing
    /// is signed until the API server answers again.
    #[error("the root has not been confirmed for {0:?}, since the API server does not answer")]
    Unconfirmed(Duration),
}

/// What is waited in a rotation in excess of the longest life. It covers the hour for which a replica
/// goes on without having seen the Secret, and clocks that differ.
pub const MARGIN: Duration = Duration::from_secs(2 * 3600);

// === impl Authority ===

impl Authority {
    /// Finds the root, or makes one. What is returned signs at once; the [`Keeper`] keeps it up to date.
    ///
    /// # Errors
    /// [`Error::Api`] and [`Error::Contended`] may pass; the others need somebody to repair the files or
    /// the Secret.
    pub async fn open(
        settings: Settings,
        client: Client,
        metrics: Metrics,
        watches: collection::Metrics,
    ) -> Result<(Self, Keeper), Error> {
        let files = Files::new(&settings.files);
        if let Some(pem) = files.read().map_err(Error::Files)? {
            let plugin = Plugin::start(files, pem, settings, metrics)?;
            let authority = Self {
                held: plugin.held(),
                shared: None,
            };
            let source = Source::Files(Box::new(plugin));
            return Ok((authority, Keeper { source }));
        }
        let shared = Arc::new(Shared::open(settings, client, metrics, watches).await?);
        let authority = Self {
            held: shared.held(),
            shared: Some(Arc::clone(&shared)),
        };
        let source = Source::Secret(shared);
        Ok((authority, Keeper { source }))
    }

    /// What signs.
    pub fn current(&self) -> Current {
        self.held.current()
    }

    /// What signs, for those that have to follow its changes. Its
    /// [roots](mesh_identity::issuer::Issuer::roots) are all that workloads are to trust.
    pub fn changes(&self) -> watch::Receiver<Arc<Issuer>> {
        self.held.changes()
    }

    /// Takes note that a certificate with this life is going to be signed: a rotation has to wait for
    /// its end. A life that is longer than any before is written down first.
    ///
    /// # Errors
    /// If it cannot be written down, or if the root is not known to be in force still.
    pub async fn reserve(&self, lifetime: Duration) -> Result<(), Error> {
        let Some(shared) = &self.shared else {
            self.held.lengthen(lifetime);
            return Ok(());
        };
        shared.reserve(lifetime).await
    }
}

// === impl Keeper ===

impl Keeper {
    /// Runs for ever. `leader` says whether this replica is to take the steps of a rotation.
    pub async fn run(self, leader: watch::Receiver<bool>) {
        match self.source {
            Source::Files(plugin) => plugin.run().await,
            Source::Secret(shared) => Box::pin(shared.run(leader)).await,
        }
    }
}

// === impl Settings ===

impl Settings {
    fn rules(&self) -> Rules {
        Rules {
            grace_percent: self.grace_percent,
            margin: MARGIN,
        }
    }

    /// The life that is written down when `lifetime` is granted: of a few sizes, so that it is seldom
    /// written.
    fn rounded(&self, lifetime: Duration) -> Duration {
        let mut size = self.default_ttl.max(Duration::from_secs(1));
        while size < lifetime && size < self.max_ttl {
            size *= 2;
        }
        size.min(self.max_ttl.max(self.default_ttl))
    }

    /// When to look next: at `due` if that is earlier than the next look would be anyway.
    fn pause(&self, due: Option<SystemTime>) -> Duration {
        let interval = self.check_interval.max(Duration::from_secs(1));
        let interval = if self.jitter {
            interval.mul_f64(0.9 + 0.2 * fastrand::f64())
        } else {
            interval
        };
        let due = due.map(|due| due.duration_since(self.clock.now()).unwrap_or_default());
        // Not at once: whatever should have happened has just failed to.
        due.map_or(interval, |due| due.clamp(Duration::from_secs(1), interval))
    }
}

// === impl Clock ===

impl Clock {
    /// The host's clock.
    pub fn system() -> Self {
        Self::new(SystemTime::now)
    }

    /// Another clock.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock(..)")
    }
}

#[cfg(test)]
mod tests;
