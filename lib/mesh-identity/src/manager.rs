//! The certificates of all workloads of this node: obtained when wanted, kept, and renewed in time.
//!
//! [`CertManager`] is the handle that everybody asks; [`Worker`] is the loop behind it, which the
//! program runs. A certificate that is there is handed out without a lock and without the loop; only
//! the first demand for an identity, or one after its certificate ran out, waits for a fetch. Demands
//! for the same identity share one fetch.

pub mod fetch;
mod schedule;

use std::{
    collections::HashMap,
    fmt, future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use mesh_core::identity::Identity;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use self::{
    fetch::Fetcher,
    schedule::{Action, Event, Priority, Schedule, Ticket},
};
use crate::{WorkloadCertificate, ca::CertificateAuthority, chain::chain, tls};

/// The handle to the certificates of this node. Cheap to clone.
///
/// When all handles are gone the [`Worker`] ends.
#[derive(Clone, Debug)]
pub struct CertManager {
    published: Published,
    commands: mpsc::UnboundedSender<Command>,
}

/// The loop that fetches and renews; nothing is fetched unless it runs.
#[derive(Debug)]
#[must_use = "no certificate is fetched unless the worker runs"]
pub struct Worker {
    published: Published,
    commands: mpsc::UnboundedReceiver<Command>,
    schedule: Schedule<fetch::Error>,
    waiters: HashMap<Identity, Vec<Waiter>>,
    fetcher: Arc<Fetcher>,
    fetches: FuturesUnordered<BoxFuture<'static, Outcome>>,
}

/// How certificates are obtained and used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the certificates' owners speak TLS.
    pub tls: tls::Settings,
    /// Most fetches at a time. The default, 8, is upstream's: a node that starts with hundreds of pods
    /// must not be the one that overwhelms the control plane.
    pub concurrency: usize,
    /// Longest time for one fetch, so that a silent authority does not hold a slot for ever. The
    /// default is 20 s: longer than a connection attempt and a slow answer together.
    pub fetch_timeout: Duration,
}

/// Why there is no certificate to hand out. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The last attempt failed and no valid certificate is left. It is retried by itself; ask again
    /// later.
    #[error("no valid certificate for {identity}, next attempt in {retry_in:?}")]
    Unavailable {
        /// Whose certificate.
        identity: Identity,
        /// How long until the next attempt.
        retry_in: Duration,
        /// Why the last one failed.
        #[source]
        source: fetch::Error,
    },
    /// The last workload of the identity left this node while somebody waited. Nothing is wrong.
    #[error("the certificate for {0} is no longer needed on this node")]
    Forgotten(Identity),
    /// The program is going down, or never ran the worker: the latter is our defect.
    #[error("certificates are no longer managed")]
    Stopped,
}

/// What is known about one identity, for dumps.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose certificate.
    pub identity: Identity,
    /// How things stand.
    pub state: State,
    /// The last certificate, even if it is expired.
    pub certificate: Option<Arc<WorkloadCertificate>>,
}

/// How things stand with one identity's certificate.
#[derive(Clone, Debug)]
pub enum State {
    /// It is being fetched for the first time.
    Initializing,
    /// There is a valid one.
    Available,
    /// There is no valid one, for this reason if an attempt has failed already.
    Unavailable(Option<fetch::Error>),
}

enum Command {
    Certificate(Identity, Waiter),
    Warm(Identity),
    Forget(Identity),
}

type Waiter = oneshot::Sender<Result<Arc<WorkloadCertificate>, Error>>;

#[derive(Clone, Debug, Default)]
struct Published(Arc<ArcSwap<HashMap<Identity, Slot>>>);

#[derive(Clone, Debug, Default)]
struct Slot {
    current: Option<Current>,
    /// Why the last attempt failed, if it did.
    failure: Option<fetch::Error>,
}

#[derive(Clone, Debug)]
struct Current {
    certificate: Arc<WorkloadCertificate>,
    expires: Instant,
}

type Outcome = (Ticket, Result<WorkloadCertificate, fetch::Error>);

// === impl CertManager ===

impl CertManager {
    /// A manager without certificates that will ask `authority`, and the loop that does so.
    pub fn new(authority: Arc<dyn CertificateAuthority>, settings: Settings) -> (Self, Worker) {
        let published = Published::default();
        let (sender, receiver) = mpsc::unbounded_channel();
        let worker = Worker {
            published: published.clone(),
            commands: receiver,
            schedule: Schedule::new(settings.concurrency, fastrand::Rng::new()),
            waiters: HashMap::new(),
            fetcher: Arc::new(Fetcher {
                authority,
                tls: settings.tls,
                timeout: settings.fetch_timeout,
            }),
            fetches: FuturesUnordered::new(),
        };
        let manager = Self {
            published,
            commands: sender,
        };
        (manager, worker)
    }

    /// A valid certificate for `identity`: at once if there is one, else after a fetch that comes
    /// before all others.
    ///
    /// # Errors
    /// While the authority fails, the error of the last attempt is returned at once: demands neither
    /// queue up nor shorten the back-off.
    pub async fn certificate(
        &self,
        identity: &Identity,
    ) -> Result<Arc<WorkloadCertificate>, Error> {
        if let Some(certificate) = self.published.valid(identity) {
            return Ok(certificate);
        }
        let (waiter, answer) = oneshot::channel();
        let command = Command::Certificate(identity.clone(), waiter);
        self.commands
            .send(command)
            .map_err(|_closed| Error::Stopped)?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Says that a workload of `identity` runs here, so that its certificate is there before its first
    /// connection and is kept fresh. Returns at once.
    pub fn warm(&self, identity: &Identity) {
        // A worker that has ended has nothing to warm.
        self.commands.send(Command::Warm(identity.clone())).ok();
    }

    /// Says that no workload of `identity` runs here any more: its key and certificate are dropped.
    /// Connections that use them live on. Returns at once.
    pub fn forget(&self, identity: &Identity) {
        self.commands.send(Command::Forget(identity.clone())).ok();
    }

    /// All identities with their certificates, ordered by identity.
    pub fn dump(&self) -> Vec<Entry> {
        let slots = self.published.0.load_full();
        let mut entries: Vec<_> = slots
            .iter()
            .map(|(identity, slot)| slot.describe(identity))
            .collect();
        entries.sort_unstable_by(|a, b| a.identity.cmp(&b.identity));
        entries
    }
}

// === impl Worker ===

impl Worker {
    /// Runs until all handles are gone; fetches under way are then given up.
    pub async fn run(mut self) {
        loop {
            let due = self.schedule.next_due();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(outcome) = self.fetches.next() => self.on_outcome(outcome),
                () = until(due) => self.step(Event::Elapsed),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Certificate(identity, waiter) => self.on_demand(identity, waiter),
            Command::Warm(identity) => {
                self.published.update(|slots| {
                    slots.entry(identity.clone()).or_default();
                });
                self.step(Event::Wanted(identity, Priority::Warm));
            }
            Command::Forget(identity) => {
                self.published.update(|slots| drop(slots.remove(&identity)));
                self.tell(&identity, &Err(Error::Forgotten(identity.clone())));
                self.step(Event::Forgotten(identity));
            }
        }
    }

    fn on_demand(&mut self, identity: Identity, waiter: Waiter) {
        // It may have been published while the demand was on its way.
        if let Some(certificate) = self.published.valid(&identity) {
            waiter.send(Ok(certificate)).ok();
            return;
        }
        let waiters = self.waiters.entry(identity.clone()).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(waiter);
        self.step(Event::Wanted(identity, Priority::RealTime));
    }

    fn on_outcome(&mut self, (ticket, result): Outcome) {
        let event = match result {
            Ok(certificate) => {
                let left = certificate.not_after().duration_since(SystemTime::now());
                Event::Fetched {
                    ticket,
                    certificate: Arc::new(certificate),
                    remaining: left.unwrap_or_default(),
                }
            }
            Err(error) => {
                tracing::warn!(
                    identity = %ticket.identity,
                    kept = self.published.valid(&ticket.identity).is_some(),
                    error = %chain(&error),
                    "no certificate could be obtained"
                );
                Event::Failed { ticket, error }
            }
        };
        self.step(event);
    }

    fn step(&mut self, event: Event<Arc<WorkloadCertificate>, fetch::Error>) {
        for action in self.schedule.step(Instant::now(), event) {
            match action {
                Action::Fetch(ticket) => self.start(ticket),
                Action::Publish {
                    identity,
                    certificate,
                    expires,
                } => self.publish(&identity, certificate, expires),
                Action::Refuse {
                    identity,
                    error,
                    retry,
                } => self.refuse(&identity, error, retry),
            }
        }
    }

    fn start(&mut self, ticket: Ticket) {
        let fetcher = Arc::clone(&self.fetcher);
        let fetch = async move {
            let result = fetcher.fetch(&ticket.identity).await;
            (ticket, result)
        };
        self.fetches.push(Box::pin(fetch));
    }

    fn publish(
        &mut self,
        identity: &Identity,
        certificate: Arc<WorkloadCertificate>,
        expires: Instant,
    ) {
        tracing::debug!(
            %identity,
            serial = certificate.serial(),
            lifetime = ?expires.saturating_duration_since(Instant::now()),
            "certificate obtained"
        );
        let slot = Slot {
            current: Some(Current {
                certificate: Arc::clone(&certificate),
                expires,
            }),
            failure: None,
        };
        self.published
            .update(|slots| drop(slots.insert(identity.clone(), slot.clone())));
        self.tell(identity, &Ok(certificate));
    }

    fn refuse(&mut self, identity: &Identity, error: fetch::Error, retry: Instant) {
        let retry_in = retry.saturating_duration_since(Instant::now());
        let failure = error.clone();
        self.published.update(|slots| {
            slots.entry(identity.clone()).or_default().failure = Some(failure.clone());
        });
        self.tell(
            identity,
            &Err(Error::Unavailable {
                identity: identity.clone(),
                retry_in,
                source: error,
            }),
        );
    }

    /// Answers all who wait for `identity`. Those who no longer listen do not matter.
    fn tell(&mut self, identity: &Identity, answer: &Result<Arc<WorkloadCertificate>, Error>) {
        for waiter in self.waiters.remove(identity).unwrap_or_default() {
            waiter.send(answer.clone()).ok();
        }
    }
}

// === impl Published ===

impl Published {
    /// The certificate of `identity`, unless it is over.
    fn valid(&self, identity: &Identity) -> Option<Arc<WorkloadCertificate>> {
        let slots = self.0.load();
        slots.get(identity)?.valid().cloned()
    }

    /// Replaces the map; only the worker does so. Copying it is cheap next to a fetch, and readers
    /// never wait.
    fn update(&self, change: impl FnOnce(&mut HashMap<Identity, Slot>)) {
        let mut slots = HashMap::clone(&self.0.load());
        change(&mut slots);
        self.0.store(Arc::new(slots));
    }
}

// === impl Slot ===

impl Slot {
    fn valid(&self) -> Option<&Arc<WorkloadCertificate>> {
        self.valid_at(Instant::now(), SystemTime::now())
    }

    /// The certificate, unless either clock says that it is over: the monotonic one is not fooled by a
    /// clock that is set back, the system's not by a machine that slept.
    fn valid_at(&self, now: Instant, date: SystemTime) -> Option<&Arc<WorkloadCertificate>> {
        let current = self.current.as_ref()?;
        let valid = now < current.expires && !current.certificate.is_expired(date);
        valid.then_some(&current.certificate)
    }

    fn describe(&self, identity: &Identity) -> Entry {
        let state = match (self.valid(), &self.failure, &self.current) {
            (Some(_), _, _) => State::Available,
            (None, None, None) => State::Initializing,
            (None, failure, _) => State::Unavailable(failure.clone()),
        };
        Entry {
            identity: identity.clone(),
            state,
            certificate: self.current.as_ref().map(|c| Arc::clone(&c.certificate)),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tls: tls::Settings::default(),
            concurrency: 8,
            fetch_timeout: Duration::from_secs(20),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(identity, _) => write!(f, "Certificate({identity})"),
            Self::Warm(identity) => write!(f, "Warm({identity})"),
            Self::Forget(identity) => write!(f, "Forget({identity})"),
        }
    }
}

/// Waits until `due`, or for ever if there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests;
