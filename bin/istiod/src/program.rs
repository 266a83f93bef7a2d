//! The program: builds its parts, runs them, and ends them in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use kube::Client;
use mesh_api::control_plane::{NAMESPACE_LOCK, STATUS_LOCK, suffixed};
use mesh_kube::{client, error::Explained, lease, watch};
use mesh_runtime::{
    drain,
    life::{self, Life, Tasks},
    listen,
    process::{self, Start},
    readiness::{Pending, Readiness},
    stats::{self, Build},
};
use mesh_xds::server::{Resources, Streams};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch as news};

use crate::{
    authority::{self, Opening, Signing},
    config::Config,
    debug::Routes,
    dump,
    mesh::{self, Follower, InForce},
    metrics::Metrics,
    publish::Publisher,
    serving::Serving,
    status, streams, version,
    watches::{States, Watches},
    world::World,
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
    /// The mesh file is no mesh configuration.
    #[error(transparent)]
    Mesh(#[from] mesh::Error),
    /// `CA_TRUSTED_NODE_ACCOUNTS` is not usable.
    #[error(transparent)]
    Accounts(#[from] crate::authn::node::NotAnAccount),
    /// A port of the program is taken, or not ours.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// A part of the program came to an end, which is our defect. The only one of these that is found
    /// later than at the start.
    #[error(transparent)]
    Ended(#[from] life::Error),
}

/// A running control plane. It goes on when this is dropped only until its runtime ends: stop it.
#[derive(Debug)]
pub struct Running {
    /// Where discovery and certificates are served over TLS.
    pub secure: SocketAddr,
    /// Where readiness and the debug views are.
    pub http: SocketAddr,
    /// Where the metrics are.
    pub monitoring: SocketAddr,
    /// What ends it, and tells of its failure.
    pub life: Life,
}

/// How long connections may take to end once the program was told to stop.
const TERMINATION: Duration = Duration::from_secs(20);

/// Runs the control plane until it is told to stop.
pub fn run(config: Config) -> Result<(), Error> {
    let log = process::log(&config.log)?;
    tracing::info!(
        version = version::VERSION,
        revision = version::revision(),
        crypto = openssl::version::version(),
        pod = config.pod.name,
        namespace = &*config.pod.namespace,
        "starting"
    );
    let runtime = process::runtime("istiod", None)?;
    let build = Build {
        component: "pilot".to_owned(),
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
        user_agent: format!("istiod/{}", version::VERSION),
    };
    let client = client::connect(&options).await?;
    let mut signals = start.signals;
    let running = Running::start(config, client, start.registry).await?;
    Ok(running.life.until_told(&mut signals).await?)
}

// === impl Running ===

impl Running {
    /// Starts the control plane as tasks of the runtime we are in. Its ports are bound when this
    /// returns; proxies are served once the cluster has been seen, which `/ready` tells.
    pub async fn start(config: Config, client: Client, registry: Registry) -> Result<Self, Error> {
        let config = Arc::new(config);
        let secure = listen::bind("discovery", config.listen.secure).await?;
        let http = listen::bind("readiness", config.listen.http).await?;
        let monitoring = listen::bind("metrics", config.listen.monitoring).await?;
        let (life, tasks) = life::begin(TERMINATION);
        let mut parts = Parts::new(config, client, registry, tasks)?;
        let running = Self {
            secure: secure.1,
            http: http.1,
            monitoring: monitoring.1,
            life,
        };
        parts.watch();
        let serving = parts.serve(secure.0)?;
        parts.listen(http.0, monitoring.0, serving);
        Ok(running)
    }
}

/// What the parts of the program are built with.
struct Parts {
    config: Arc<Config>,
    client: Client,
    registry: Registry,
    metrics: Metrics,
    watch_metrics: watch::Metrics,
    readiness: Readiness,
    tasks: Tasks,
    in_force: InForce,
    world: World,
    resources: Resources,
    states: Option<States>,
}

// === impl Parts ===

impl Parts {
    fn new(
        config: Arc<Config>,
        client: Client,
        mut registry: Registry,
        tasks: Tasks,
    ) -> Result<Self, Error> {
        let metrics = Metrics::new(&mut registry);
        let watch_metrics = watch::Metrics::default();
        watch_metrics.register(registry.sub_registry_with_prefix("pilot"));
        let mesh = mesh::initial(&config)?;
        let settings = mesh::settings(&config, &mesh.config);
        let world = World::new(&settings, metrics.clone());
        Ok(Self {
            config,
            client,
            registry,
            metrics,
            watch_metrics,
            readiness: Readiness::new(),
            tasks,
            in_force: InForce::new(mesh),
            world,
            resources: Resources::default(),
            states: None,
        })
    }

    /// Starts to learn of the cluster.
    fn watch(&mut self) {
        let mut watches = Watches::new(self.client.clone(), self.watch_metrics.clone());
        watches.discovery(&self.world);
        let follower = Follower::new(
            self.config.clone(),
            self.world.clone(),
            self.in_force.clone(),
            self.metrics.clone(),
        );
        let name = mesh::config_map(&self.config);
        watches.config_map(&self.config.pod.namespace, &name, follower);
        let (running, states) = watches.into_parts();
        for (name, watch) in running {
            self.tasks.spawn(name, watch);
        }
        self.states = Some(states);
    }

    /// Starts what proxies talk to, and what only a leader does.
    fn serve(&mut self, listener: TcpListener) -> Result<Streams, Error> {
        let namespaces = self.stand_for(NAMESPACE_LOCK);
        let statuses = status::Outbox::default();
        if self.config.features.status {
            let writer = status::Writer {
                client: self.client.clone(),
                world: self.world.clone(),
                outbox: statuses.clone(),
                metrics: self.metrics.clone(),
            };
            let leads = self.stand_for(STATUS_LOCK);
            self.tasks.spawn("statuses", writer.run(leads));
        }
        let callers = authority::callers(
            &self.config,
            &self.client,
            &self.world,
            self.in_force.trust_domains(),
            &mut self.registry,
        )?;
        let serving = Serving::new(
            &self.config,
            self.resources.clone(),
            callers.clone(),
            &mut self.registry,
        );
        let proxies = serving.streams();
        let opening = Opening {
            config: self.config.clone(),
            client: self.client.clone(),
            callers,
            in_force: self.in_force.clone(),
            watch_metrics: self.watch_metrics.clone(),
            metrics: crate::ca::Metrics::register(&mut self.registry),
        };
        let publisher = Publisher {
            world: self.world.clone(),
            resources: self.resources.clone(),
            statuses,
            metrics: self.metrics.clone(),
        };
        let pending = Waiting {
            authority: self.readiness.pending("certificate authority"),
            cluster: self.readiness.pending("view of the cluster"),
        };
        let states = self.states.clone();
        let drain = self.tasks.drain.clone();
        let begin = Beginning {
            opening,
            leads: namespaces,
            states,
            publisher,
            pending,
        };
        let begin = begin.run(self.tasks.clone()).boxed();
        self.tasks.essential.spawn("serving", async move {
            if let Some(signing) = unless_stopped(begin, drain.clone()).await {
                serving.run(listener, signing, drain).await;
            }
        });
        Ok(proxies)
    }

    /// Stands for a lock; the receiver says whether we hold it.
    fn stand_for(&self, lock: &'static str) -> news::Receiver<bool> {
        let (leads, receiver) = news::channel(false);
        let name = suffixed(lock, &self.config.revision);
        let times = lease::Config::new(&*self.config.pod.namespace, name, &self.config.pod.name);
        let (client, drain) = (self.client.clone(), self.tasks.drain.clone());
        let standing = async move {
            let stop = drain.signaled().map(|_mode| ());
            if let Err(error) = lease::run(client, times, leads, stop).await {
                tracing::error!(%error, lock, "cannot stand for election");
            }
        };
        drop(self.tasks.background.spawn("election", standing));
        let observing = status::observe(receiver.clone(), lock, self.metrics.clone());
        drop(self.tasks.background.spawn("leadership", observing));
        receiver
    }

    /// Serves the program's own plain HTTP ports.
    fn listen(self, http: TcpListener, monitoring: TcpListener, proxies: Streams) {
        let (world, mesh) = (self.world.clone(), self.in_force.mesh());
        let (states, resources) = (self.states.clone(), self.resources.clone());
        let routes = Routes::new(self.readiness.clone())
            .view(
                "/debug/syncz",
                "connected proxies and what they have",
                move || streams::show(&proxies),
            )
            .view(
                "/debug/registryz",
                "what is known of the cluster",
                move || world.dump(),
            )
            .view(
                "/debug/ambientz",
                "what is published, as a ztunnel dumps it",
                move || dump::published(&resources),
            )
            .view(
                "/debug/mesh",
                "the mesh configuration in force",
                move || mesh.borrow().dump(),
            )
            .view("/debug/watchz", "how the watches do", move || {
                states.as_ref().map(States::show)
            });
        self.tasks.serve_http("debug", http, routes.into_router());
        let stats = stats::routes(Arc::new(self.registry));
        self.tasks.serve_http("metrics", monitoring, stats);
    }
}

/// What readiness waits for.
struct Waiting {
    authority: Pending,
    cluster: Pending,
}

/// What has to happen before proxies are served.
struct Beginning {
    opening: Opening,
    leads: news::Receiver<bool>,
    states: Option<States>,
    publisher: Publisher,
    pending: Waiting,
}

// === impl Beginning ===

impl Beginning {
    /// Finds the root and sees the whole cluster, however long that takes. Nothing if a part fails that
    /// must not.
    async fn run(self, tasks: Tasks) -> Option<Signing> {
        let opened = self.opening.open().await;
        let signing = opened.start(&tasks, self.leads);
        let signing = signing.inspect_err(|error| {
            tracing::error!(error = %Explained(error), "there is no certificate to serve with");
        });
        let signing = signing.ok()?;
        self.pending.authority.ready();
        if let Some(mut states) = self.states {
            states.synced().await;
        }
        self.publisher.first().await.ok()?;
        tasks.spawn("publisher", self.publisher.run());
        self.pending.cluster.ready();
        tracing::info!("the cluster has been seen: serving proxies");
        Some(signing)
    }
}

/// What comes of `beginning`, or nothing if the program stops before.
async fn unless_stopped<T>(
    beginning: BoxFuture<'static, Option<T>>,
    drain: drain::Watch,
) -> Option<T> {
    tokio::select! {
        outcome = beginning => outcome,
        _mode = drain.signaled() => None,
    }
}
