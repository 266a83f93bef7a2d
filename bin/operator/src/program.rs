//! The program: builds its parts, runs them, and ends them in order.

use std::{future::ready, net::SocketAddr, sync::Arc, time::Duration};

use ::http::StatusCode;
use futures::FutureExt as _;
use kube::Client;
use mesh_kube::{client, events, lease, watch};
use mesh_runtime::{
    http::{self, Limits, Router, text},
    life::{self, Life, Tasks},
    listen,
    process::{self, Start},
    readiness::{Pending, Readiness},
    stats::Build,
};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch as news};

use crate::{
    config::Config,
    engine::{Engine, writer::Writer},
    metrics::Metrics,
    names::{LOCK, MANAGER},
    outcome::Reconcilers,
    reconcile,
    secure::{self, Tls},
    store::Store,
    version,
    watches::{States, Watches},
};

/// Why the program cannot run. All but the last are found at the start, and the host or whoever
/// configured the program is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no log, no threads or no signals.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// There is no API server to talk to.
    #[error("find the API server")]
    Client(#[from] client::Error),
    /// The metrics port cannot speak TLS.
    #[error(transparent)]
    Tls(#[from] secure::Error),
    /// A port of the program is taken, or not ours.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// A part of the program came to an end, which is our defect. The only one of these that is found
    /// later than at the start.
    #[error(transparent)]
    Ended(#[from] life::Error),
}

/// A running operator. It goes on when this is dropped only until its runtime ends: stop it.
#[derive(Debug)]
pub struct Running {
    /// Where the metrics are, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Where liveness and readiness are.
    pub probes: SocketAddr,
    /// What ends it, and tells of its failure.
    pub life: Life,
}

/// How long requests under way and the release of the lock may take in the end.
const TERMINATION: Duration = Duration::from_secs(8);

/// Threads: the work is waiting for the API server.
const THREADS: usize = 2;

/// Runs the operator until it is told to stop. `without_effect` are flags to warn about.
pub fn run(config: Config, without_effect: &[&str]) -> Result<(), Error> {
    let log = process::log(&config.log)?;
    tracing::info!(
        version = version::VERSION,
        revision = version::revision(),
        crypto = openssl::version::version(),
        pod = config.pod,
        namespace = config.defaults.namespace,
        "starting"
    );
    for flag in without_effect {
        tracing::warn!(flag, "this flag has no effect");
    }
    let runtime = process::runtime("operator", Some(THREADS))?;
    let build = Build {
        component: "operator".to_owned(),
        tag: version::VERSION.to_owned(),
    };
    process::run(runtime, &build, log, async |start| {
        until_stopped(config, start).await
    })
}

async fn until_stopped(config: Config, start: Start) -> Result<(), Error> {
    let options = client::Options {
        kubeconfig: config.kubeconfig.clone(),
        context: None,
        user_agent: format!("lateen-operator/{}", version::VERSION),
    };
    let client = client::connect(&options).await?;
    let reconcilers = reconcile::reconcilers();
    let mut signals = start.signals;
    let running = Running::start(config, client, start.registry, reconcilers).await?;
    Ok(running.life.until_told(&mut signals).await?)
}

// === impl Running ===

impl Running {
    /// Starts the operator as tasks of the runtime we are in. Its ports are bound when this returns; it
    /// works once the cluster has been seen and, where there is an election, while it leads.
    pub async fn start(
        config: Config,
        client: Client,
        mut registry: Registry,
        reconcilers: Reconcilers,
    ) -> Result<Self, Error> {
        let (probes, at) = listen::bind("probes", config.listen.probes).await?;
        let metrics = listen::bind_if("metrics", config.listen.metrics).await?;
        let (life, tasks) = life::begin(TERMINATION);
        let store = Store::new(config.pace.clone());
        let running = Self {
            metrics: metrics.as_ref().map(|(_, address)| *address),
            probes: at,
            life,
        };
        let counts = Metrics::register(&mut registry, &store);
        let parts = Parts {
            config,
            client,
            store,
            metrics: counts,
            readiness: Readiness::new(),
            tasks,
        };
        let states = parts.watch(&mut registry);
        parts.work(&states, reconcilers);
        parts.listen(probes, metrics.map(|(listener, _)| listener), registry)?;
        Ok(running)
    }
}

/// What the parts of the program are built with.
struct Parts {
    config: Config,
    client: Client,
    store: Store,
    metrics: Metrics,
    readiness: Readiness,
    tasks: Tasks,
}

// === impl Parts ===

impl Parts {
    /// Starts to learn of the cluster.
    fn watch(&self, registry: &mut Registry) -> States {
        let metrics = watch::Metrics::default();
        metrics.register(registry.sub_registry_with_prefix("lateen_operator"));
        let mut watches = Watches::new(self.client.clone(), metrics, self.store.clone());
        watches.everything();
        watches.platform(&self.config.defaults.namespace);
        let (running, states) = watches.into_parts();
        for watch in running {
            self.tasks.spawn("watch", watch);
        }
        states
    }

    /// Starts what only a leader does.
    fn work(&self, states: &States, reconcilers: Reconcilers) {
        let leads = self.stand();
        let reporter = events::Reporter {
            controller: MANAGER.to_owned(),
            instance: self.config.pod.clone(),
        };
        let (recorder, publisher) = events::channel(self.client.clone(), reporter);
        let stop = self.tasks.drain.clone();
        let publish = async move { publisher.run(stop.signaled().map(|_mode| ())).await };
        drop(self.tasks.background.spawn("events", publish));
        let writer = Writer {
            client: self.client.clone(),
            leads: leads.clone(),
            metrics: self.metrics.clone(),
        };
        let engine = Arc::new(Engine::new(
            self.store.clone(),
            (reconcilers, self.config.defaults.clone()),
            (writer, recorder),
            (self.metrics.clone(), states.clone()),
            self.config.patience,
        ));
        self.tasks
            .spawn("leadership", Arc::clone(&engine).lead(leads.clone()));
        let sight = self.readiness.pending("view of the cluster");
        let seen = self.seen(states.clone(), sight);
        self.tasks.spawn("sight", seen);
        for _ in 0..self.config.workers {
            let (engine, leads, mut states) = (Arc::clone(&engine), leads.clone(), states.clone());
            let patience = self.config.patience.sight;
            self.tasks.spawn("worker", async move {
                // What cannot be seen by then is reported instead of waited for.
                states.synced_within(patience).await;
                Box::pin(engine.work(leads)).await;
            });
        }
    }

    /// Waits for the whole view, says so, and has everything looked at with it. Goes on for ever.
    fn seen(&self, mut states: States, sight: Pending) -> impl Future<Output = ()> + Send + use<> {
        let store = self.store.clone();
        async move {
            if states.synced().await {
                tracing::info!("the cluster has been seen");
                sight.ready();
                store.wake_all();
            }
            std::future::pending::<()>().await;
        }
    }

    /// Stands for election; the receiver says whether we lead. Without an election we do, until we stop.
    fn stand(&self) -> news::Receiver<bool> {
        let (leads, receiver) = news::channel(false);
        let (client, drain) = (self.client.clone(), self.tasks.drain.clone());
        let times = lease::Config::new(&self.config.defaults.namespace, LOCK, &self.config.pod);
        let elect = self.config.elect;
        let standing = async move {
            let stop = drain.signaled().map(|_mode| ());
            if !elect {
                leads.send_replace(true);
                stop.await;
                leads.send_replace(false);
            } else if let Err(error) = lease::run(client, times, leads, stop).await {
                tracing::error!(%error, "cannot stand for election");
            }
        };
        drop(self.tasks.background.spawn("election", standing));
        receiver
    }

    /// Serves the program's own ports.
    fn listen(
        self,
        probes: TcpListener,
        metrics: Option<TcpListener>,
        registry: Registry,
    ) -> Result<(), Error> {
        let routes = probe_routes(&self.readiness);
        self.tasks.serve_http("probes", probes, routes);
        if let Some(listener) = metrics {
            let store = self.store.clone();
            let profile = move || {
                store.read(|world| world.platform.as_ref().and_then(|found| found.tls.clone()))
            };
            let tls = Tls::new(self.config.listen.certificate.clone(), profile)?;
            let routes = Arc::new(secure::routes(Arc::new(registry), self.client.clone()));
            let (tasks, drain) = (self.tasks.background.clone(), self.tasks.drain.clone());
            let listener = (listener, tls);
            let serving = http::serve_over(listener, routes, Limits::default(), tasks, drain);
            drop(self.tasks.background.spawn("metrics", serving));
        }
        Ok(())
    }
}

/// `/healthz` says that the process answers, `/readyz` that it has seen the cluster. A replica that does
/// not lead is ready.
fn probe_routes(readiness: &Readiness) -> Router {
    let readiness = readiness.clone();
    Router::new()
        .get("/healthz", "whether the process answers", |_| {
            ready(text(StatusCode::OK, "ok\n"))
        })
        .get("/readyz", "whether the cluster has been seen", move |_| {
            let waiting = readiness.waiting_for();
            ready(if waiting.is_empty() {
                text(StatusCode::OK, "ok\n")
            } else {
                let waiting = waiting.join(", ");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                text(status, format!("not ready, pending: {waiting}\n"))
            })
        })
}
