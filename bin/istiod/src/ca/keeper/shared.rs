//! The authority that replicas share in a Secret.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _, api::PostParams};
use mesh_identity::issuer::Root;
use mesh_kube::{
    error::{Explained, Fault},
    watch::{self as collection, Event},
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{Error, Held, Settings};
use crate::ca::{
    material::{Pem, Signer, timestamp},
    metrics::{Metrics, Outcome},
    rotation::{Action, State},
    secret,
};

/// The Secret, and what was last seen in it.
pub(super) struct Shared {
    api: Api<Secret>,
    settings: Settings,
    held: Arc<Held>,
    seen: Mutex<Seen>,
    /// One write of ours at a time; others' are found out by their version.
    writing: tokio::sync::Mutex<()>,
    watches: collection::Metrics,
}

/// Hears of the Secret.
struct Follower(Arc<Shared>);

struct Seen {
    /// The last Secret with an authority in it.
    secret: Secret,
    /// When it was last known to be the present one.
    confirmed: Instant,
    /// Whether it has been deleted since.
    missing: bool,
}

/// How often the Secret is read although the watch has nothing to tell, to know that it still is so.
const CONFIRM: Duration = Duration::from_secs(10 * 60);
/// For how long the root is taken for the present one without having been seen. With [`super::MARGIN`]
/// it bounds what a replica that is cut off can do to a rotation.
const CONFIRMED: Duration = Duration::from_secs(60 * 60);
/// How often a write is tried anew when somebody else was faster.
const ATTEMPTS: usize = 5;
/// How long to wait after a step that failed.
const RETRY: Duration = Duration::from_secs(10);
/// How long a request to the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

// === impl Shared ===

impl Shared {
    /// Takes the root that is there, or makes one. If two replicas do so at once, the one that is second
    /// takes the root of the first.
    pub(super) async fn open(
        settings: Settings,
        client: Client,
        metrics: Metrics,
        watches: collection::Metrics,
    ) -> Result<Self, Error> {
        let api = Api::namespaced(client, &settings.namespace);
        let secret = match bounded("reading", api.get_opt(secret::NAME)).await? {
            Some(secret) => secret,
            None => create(&api, &settings).await?,
        };
        let state = decode(&settings, &secret)?;
        tracing::info!(
            secret = secret::NAME,
            not_after = %timestamp(state.signing.not_after),
            "certificates are signed by the self-signed root"
        );
        let held = Held::new(state, &settings, metrics).map_err(Error::Root)?;
        Ok(Self {
            api,
            settings,
            held: Arc::new(held),
            seen: Mutex::new(Seen {
                secret,
                confirmed: Instant::now(),
                missing: false,
            }),
            writing: tokio::sync::Mutex::default(),
            watches,
        })
    }

    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    pub(super) async fn run(self: Arc<Self>, leader: watch::Receiver<bool>) {
        tokio::join!(
            Arc::clone(&self).follow(),
            self.confirm(),
            self.lead(leader)
        );
    }

    pub(super) async fn reserve(&self, lifetime: Duration) -> Result<(), Error> {
        let unseen = self.seen.lock().confirmed.elapsed();
        if unseen > CONFIRMED {
            return Err(Error::Unconfirmed(unseen));
        }
        // What is longer is refused by the issuer.
        if lifetime > self.settings.max_ttl || lifetime <= self.held.state().longest {
            return Ok(());
        }
        let longest = self.settings.rounded(lifetime);
        let _turn = self.writing.lock().await;
        for _ in 0..ATTEMPTS {
            self.refresh().await?;
            let mut state = self.held.state();
            if lifetime <= state.longest {
                return Ok(());
            }
            state.longest = longest;
            if self.write(&state).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// Takes the step that is due, if one is, and says when the next will be.
    pub(super) async fn step(&self) -> Result<Option<SystemTime>, Error> {
        self.restore().await?;
        let _turn = self.writing.lock().await;
        for _ in 0..ATTEMPTS {
            let (now, rules) = (self.settings.clock.now(), self.settings.rules());
            let mut state = self.held.state();
            match state.step(now, rules) {
                Action::Wait(due) if !self.is_behind(&state) => return Ok(due),
                Action::Wait(_) => {}
                Action::Announce => state.announce(new_root(&self.settings).await?, now),
                Action::Withdraw => state.withdraw(now),
                Action::Switch => state.switch(now),
                Action::Retire => state.retire(now, rules),
            }
            if !self.write(&state).await? {
                self.refresh().await?;
            }
        }
        Err(Error::Contended)
    }

    /// Follows what stands in the Secret.
    async fn follow(self: Arc<Self>) {
        let options = collection::Options {
            fields: Some(format!("metadata.name={}", secret::NAME)),
            ..collection::Options::default()
        };
        let (state, _) = watch::channel(collection::State::default());
        let (api, metrics) = (self.api.clone(), self.watches.clone());
        collection::run(api, options, metrics, state, Follower(self)).await;
    }

    /// Sees to it that we know that the root is still the present one.
    async fn confirm(&self) {
        loop {
            sleep(CONFIRM).await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(error = %Explained(&error), "the root cannot be confirmed");
            }
        }
    }

    /// Takes the steps of rotations whenever we lead.
    async fn lead(&self, mut leader: watch::Receiver<bool>) {
        let mut stirred = self.held.stirred();
        while leader.wait_for(|leads| *leads).await.is_ok() {
            stirred.mark_unchanged();
            let pause = match self.step().await {
                Ok(due) => self.settings.pause(due),
                Err(error) => {
                    tracing::error!(error = %Explained(&error), "the root cannot be looked after");
                    RETRY
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                // The sender lives as long as we do.
                _ = stirred.changed() => {}
            }
        }
    }

    /// Reads the Secret and takes what stands in it.
    async fn refresh(&self) -> Result<(), Error> {
        match bounded("reading", self.api.get_opt(secret::NAME)).await? {
            Some(secret) => self.adopt(secret),
            None => self.missing(),
        }
        Ok(())
    }

    /// Notes that the Secret is gone. What is in force stays, and the leader writes it again.
    fn missing(&self) {
        let name = secret::NAME;
        tracing::warn!(
            secret = name,
            "the Secret was deleted, the last good root stays"
        );
        self.seen.lock().missing = true;
        self.held.stir();
    }

    /// Puts the state of a Secret in force. If it cannot be read, the last good one stays.
    fn adopt(&self, secret: Secret) {
        let mut seen = self.seen.lock();
        seen.confirmed = Instant::now();
        seen.missing = false;
        if !is_news(&seen.secret, &secret) {
            return;
        }
        match decode(&self.settings, &secret).and_then(|state| self.put(state)) {
            Ok(()) => self.held.metrics().reloaded(Outcome::Accepted),
            Err(error) => {
                self.held.metrics().reloaded(Outcome::Refused);
                tracing::error!(error = %Explained(&error), "the last good root stays");
                return;
            }
        }
        seen.secret = secret;
    }

    fn put(&self, mut state: State) -> Result<(), Error> {
        let (now, rules) = (self.settings.clock.now(), self.settings.rules());
        state.remember(&self.held.state(), now, rules);
        self.held.put(state).map_err(Error::Root)
    }

    /// Writes the Secret anew if it was deleted, as it was.
    async fn restore(&self) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        let mut secret = {
            let seen = self.seen.lock();
            if !seen.missing {
                return Ok(());
            }
            seen.secret.clone()
        };
        secret.metadata.resource_version = None;
        secret.metadata.uid = None;
        secret.metadata.creation_timestamp = None;
        let params = PostParams::default();
        match bounded("writing", self.api.create(&params, &secret)).await {
            Ok(secret) => self.adopt(secret),
            Err(Error::Api(_, error)) if Fault::of(&error) == Fault::Exists => {
                self.refresh().await?;
            }
            Err(error) => return Err(error),
        }
        tracing::warn!(
            secret = secret::NAME,
            "the Secret that was deleted is there again"
        );
        Ok(())
    }

    /// Whether the Secret lacks something that is in force.
    fn is_behind(&self, state: &State) -> bool {
        let secret = self.seen.lock().secret.clone();
        secret::encode(state, &self.settings.namespace, Some(&secret)) != secret
    }

    /// Writes a state over the Secret that was last seen and puts it in force. False if somebody else
    /// has written meanwhile.
    async fn write(&self, state: &State) -> Result<bool, Error> {
        let base = self.seen.lock().secret.clone();
        let secret = secret::encode(state, &self.settings.namespace, Some(&base));
        let params = PostParams::default();
        let written = self.api.replace(secret::NAME, &params, &secret);
        match timeout(TIMEOUT, written).await {
            Ok(Ok(secret)) => {
                self.adopt(secret);
                Ok(true)
            }
            Ok(Err(error)) if Fault::of(&error) == Fault::Conflict => Ok(false),
            Ok(Err(error)) => Err(Error::Api("writing", Box::new(error))),
            Err(_elapsed) => Err(Error::Api("writing", Box::new(silent()))),
        }
    }
}

impl collection::Index<Secret> for Follower {
    fn update(&mut self, events: Vec<Event<Secret>>) {
        for event in events {
            match event {
                Event::Apply(secret) => self.0.adopt(secret),
                Event::Delete(_) => self.0.missing(),
                Event::Invalid(invalid) => {
                    self.0.held.metrics().reloaded(Outcome::Refused);
                    let reason = invalid.reason;
                    tracing::error!(
                        reason,
                        "the Secret cannot be read, the last good root stays"
                    );
                }
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

/// Whether `other` is a later version. A watch may tell of a version older than the answer to our own
/// write. Kubernetes' versions are numbers that grow; others are taken for news if they are different.
fn is_news(seen: &Secret, other: &Secret) -> bool {
    let (seen, other) = (seen.resource_version(), other.resource_version());
    let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
    match (number(&seen), number(&other)) {
        (Some(seen), Some(other)) => seen < other,
        _ => seen != other,
    }
}

fn decode(settings: &Settings, secret: &Secret) -> Result<State, Error> {
    let unknown = settings.max_ttl;
    secret::decode(secret, unknown, settings.clock.now()).map_err(Error::Secret)
}

/// Makes a root and its Secret, or reads the one that another replica has just made.
async fn create(api: &Api<Secret>, settings: &Settings) -> Result<Secret, Error> {
    let state = State::new(new_root(settings).await?, settings.default_ttl);
    let secret = secret::encode(&state, &settings.namespace, None);
    let params = PostParams::default();
    match bounded("writing", api.create(&params, &secret)).await {
        Err(Error::Api(_, error)) if Fault::of(&error) == Fault::Exists => {
            bounded("reading", api.get(secret::NAME)).await
        }
        created => created,
    }
}

async fn new_root(settings: &Settings) -> Result<Arc<Signer>, Error> {
    let (kind, ttl) = (settings.kind, settings.root_ttl);
    let organization = settings.organization.clone();
    // A large RSA key takes seconds.
    let root = spawn_blocking(move || Root::generate(kind, &organization, ttl)).await;
    let root = root
        .map_err(|_ended| Error::Contended)?
        .map_err(Error::Root)?;
    let pem = Pem {
        roots: root.certificate.clone(),
        certificate: root.certificate,
        key: root.key,
        chain: String::new(),
    };
    let signer = Signer::try_new(pem, SystemTime::now()).map_err(Error::Material)?;
    Ok(Arc::new(signer))
}

async fn bounded<T>(
    task: &'static str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    let answer = timeout(TIMEOUT, request).await;
    let answer = answer.unwrap_or_else(|_elapsed| Err(silent()));
    answer.map_err(|error| Error::Api(task, Box::new(error)))
}

fn silent() -> kube::Error {
    let reason = format!("the API server does not answer within {TIMEOUT:?}");
    kube::Error::Service(reason.into())
}
