//! The program: builds its parts, runs them, and ends them in order.

use std::{io, sync::Arc, time::Duration};

use mesh_identity::{CertManager, ca_client, manager, tls};
use mesh_net::{
    limits,
    netns::{self, NetNs},
    socket::{InPodSockets, SocketFactory, TcpOptions},
};
use mesh_proxy::{proxy::Shared, telemetry::metrics::Metrics};
use mesh_runtime::{
    life::{self, Tasks},
    listen, log, process,
    readiness::{Pending, Readiness},
    shutdown::{self, Quit},
    stats::{self, Build},
    task::Tracker,
};
use mesh_state::store::Store;
use mesh_xds::client;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{runtime, sync::watch};

use crate::{
    certificates::Managed,
    config::Config,
    discovery::{IntoState, ToControlPlane, View},
    dump::Sources,
    pods::{Pods, Sockets, Views},
    servers::Servers,
    settings,
    version::Version,
};

/// Why the program cannot run. All of these are found at the start, and the host or whoever configured
/// the program is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no log, no threads or no signals.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The limit of open files cannot be raised.
    #[error("raise the limit of open files")]
    Limits(#[from] limits::Error),
    /// The program may not enter network namespaces.
    #[error("enter a network namespace: CAP_SYS_ADMIN is needed")]
    Namespace(#[from] netns::Error),
    /// The program may not mark its sockets; without marks its own traffic would be captured.
    #[error("mark a socket with {mark}: CAP_NET_ADMIN is needed")]
    Mark {
        /// The mark.
        mark: u32,
        /// What the system says.
        source: io::Error,
    },
    /// `ENABLE_ORIG_SRC=true`, and the system does not allow it.
    #[error("keep the clients' addresses (ENABLE_ORIG_SRC=true): CAP_NET_ADMIN is needed")]
    OriginalSource(#[source] io::Error),
    /// The control plane's address or headers cannot be used.
    #[error("set up the certificate authority's client")]
    Authority(#[from] ca_client::Error),
    /// A port of the program itself is taken, or not ours.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// A part of the program came to an end, which is our defect. The only one of these that is found
    /// later than at the start.
    #[error(transparent)]
    Ended(#[from] life::Error),
}

/// What readiness waits for until the agent has named all pods and all are served.
const AGENT: &str = "workload proxy manager";

/// How long a series of traffic metrics without connections is kept.
const METRICS_RETENTION: Duration = Duration::from_secs(3600);

/// Runs the proxy until it is told to stop, and its connections had their time to end.
pub fn run(config: Config) -> Result<(), Error> {
    let log = process::log(&log::Config {
        format: log::Format::json_if(config.log.json),
        filter: config.log.filter.clone(),
    })?;
    let version = Version::of_this_build();
    tracing::info!(
        version = version.version,
        revision = version.git_revision,
        crypto = version.crypto_provider,
        workers = config.worker_threads,
        node = &*config.node.name,
        "starting"
    );
    let descriptors = limits::raise_open_files()?;
    tracing::debug!(descriptors, "limit of open files");
    let workers = worker_runtime(config.worker_threads).map_err(process::Error::Runtime)?;
    let main = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(process::Error::Runtime)?;
    let serving = run_in(Arc::new(config), workers.handle().clone(), log.clone());
    let outcome = main.block_on(serving);
    // What is left has been told to stop; it must not hold up the end.
    workers.shutdown_background();
    // The admin port's log is gone since the drain began; this one sees that the last lines are written.
    drop(log);
    outcome
}

fn worker_runtime(threads: usize) -> io::Result<runtime::Runtime> {
    let counter = std::sync::atomic::AtomicUsize::new(0);
    runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name_fn(move || {
            let number = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            format!("ztunnel-{number}")
        })
        .enable_all()
        .build()
}

/// The program within its main runtime.
async fn run_in(
    config: Arc<Config>,
    workers: runtime::Handle,
    log: log::Handle,
) -> Result<(), Error> {
    let mut signals = shutdown::signals().map_err(process::Error::Signals)?;
    let original_source = check_privileges(&config)?;
    let (life, tasks) = life::begin(config.termination_deadline);
    let mut parts = Parts::new(config.clone(), workers, tasks, &log);
    let (certificates, store, synced) = parts.discover()?;
    let pods = parts.serve_pods(&certificates, &store, synced, original_source);
    let sources = Sources {
        config: config.clone(),
        store,
        certificates,
        pods,
    };
    parts.listen(sources, log, signals.quitter())?;
    Ok(life.until_told(&mut signals).await?)
}

/// What the parts of the program are built with.
struct Parts {
    config: Arc<Config>,
    registry: Registry,
    readiness: Readiness,
    workers: runtime::Handle,
    /// Tasks of the data plane.
    worker_tasks: Tracker,
    /// Tasks of the main thread.
    tasks: Tasks,
}

// === impl Parts ===

impl Parts {
    fn new(config: Arc<Config>, workers: runtime::Handle, tasks: Tasks, log: &log::Handle) -> Self {
        let mut registry = Registry::default();
        let build = Build {
            component: "ztunnel".to_owned(),
            tag: Version::of_this_build().version.to_owned(),
        };
        stats::register(&mut registry, &build, log);
        stats::register_runtime(&mut registry, &workers);
        Self {
            config,
            registry,
            readiness: Readiness::new(),
            worker_tasks: Tracker::on(workers.clone()),
            workers,
            tasks,
        }
    }

    /// Starts discovery and the upkeep of certificates. The last value says whether discovery is
    /// complete.
    fn discover(&mut self) -> Result<(CertManager, Store, watch::Receiver<bool>), Error> {
        let config = &*self.config;
        let (certificates, fetching) = certificates(config)?;
        self.tasks.essential.spawn("certificates", fetching.run());
        let store = Store::new(settings::state(config));
        let synced = watch::Sender::new(config.discovery.is_none());
        let known = synced.subscribe();
        if let Some(control_plane) = &config.discovery {
            let pending = self.readiness.pending("state manager");
            drop(
                self.tasks
                    .background
                    .spawn("readiness", ready_when(known.clone(), pending)),
            );
            let metrics = mesh_xds::metrics::Metrics::default();
            metrics.register(self.registry.sub_registry_with_prefix("istio"));
            let way = ToControlPlane {
                target: settings::target(config, control_plane),
                token: settings::token(&config.token),
                cluster_id: config.node.cluster_id.clone(),
                headers: settings::headers(control_plane),
            };
            let sink = IntoState {
                store: store.clone(),
                certificates: certificates.clone(),
                synced,
            };
            let client = client::Config::new(settings::xds_node(config));
            self.tasks.essential.spawn("discovery", async move {
                match client::run(way, client, metrics, sink).await {}
            });
        }
        Ok((certificates, store, known))
    }

    /// Starts to serve the pods that the CNI agent names.
    fn serve_pods(
        &mut self,
        certificates: &CertManager,
        store: &Store,
        synced: watch::Receiver<bool>,
        original_source: bool,
    ) -> Views {
        let config = &*self.config;
        let shared = Shared {
            discover: Arc::new(View {
                store: store.clone(),
                localhost_app_tunnel: config.localhost_app_tunnel,
            }),
            certs: Arc::new(Managed(certificates.clone())),
            metrics: Metrics::new(&mut self.registry, METRICS_RETENTION),
            settings: Arc::new(settings::engine(config, original_source)),
            tasks: self.worker_tasks.clone(),
        };
        let sockets = Sockets {
            mark: config.sockets.packet_mark,
            reuse_port: config.sockets.reuse_port,
            tcp: settings::tcp(config),
        };
        let pods = Pods::new(
            shared,
            sockets,
            self.workers.clone(),
            synced,
            self.tasks.drain.clone(),
        );
        let pods_pending = pods.register(&mut self.registry);
        let views = pods.views();
        let mut agent = mesh_zds::proxy::Client::new(config.zds_socket.clone(), pods);
        let following = follow_agent(
            agent.status(),
            self.readiness.clone(),
            self.readiness.pending(AGENT),
            pods_pending,
        );
        drop(self.tasks.background.spawn("readiness", following));
        let drain = self.tasks.drain.clone();
        self.tasks.essential.spawn("pods", async move {
            tokio::select! {
                never = agent.run() => match never {},
                // The connection ends with the future: the agent gives new pods to the next proxy.
                _mode = drain.signaled() => {}
            }
        });
        views
    }

    /// Opens the program's own ports.
    fn listen(self, sources: Sources, log: log::Handle, quit: Quit) -> Result<(), Error> {
        let servers = Servers {
            config: &self.config,
            readiness: self.readiness,
            registry: Arc::new(self.registry),
            log,
            quit,
            sources,
            workers: self.workers,
            worker_tasks: self.worker_tasks,
            tasks: self.tasks,
        };
        Ok(servers.start()?)
    }
}

/// What the data plane will do later must be allowed now: better no start than plain text later.
/// Returns whether clients' addresses can be kept.
fn check_privileges(config: &Config) -> Result<bool, Error> {
    let mark = config.sockets.packet_mark;
    let factory = InPodSockets {
        netns: Arc::new(NetNs::current()?),
        mark: Some(mark),
        reuse_port: false,
        tcp: TcpOptions::default(),
    };
    factory.netns.run(|| ())?;
    factory
        .connect_socket(false, None)
        .map_err(|source| Error::Mark { mark, source })?;
    if config.sockets.original_source == Some(false) {
        return Ok(false);
    }
    // An address of a documentation range: nobody's, so only a transparent socket may have it.
    let foreign = ([192, 0, 2, 1], 0).into();
    match (
        factory.connect_socket(false, Some(foreign)),
        config.sockets.original_source,
    ) {
        (Ok(_socket), _) => Ok(true),
        (Err(error), Some(true)) => Err(Error::OriginalSource(error)),
        (Err(error), _) => {
            tracing::warn!(%error, "applications will see the proxy's address, not the client's");
            Ok(false)
        }
    }
}

fn certificates(config: &Config) -> Result<(CertManager, manager::Worker), Error> {
    let mut client = ca_client::Config::new(
        settings::target(config, &config.ca),
        settings::token(&config.token),
    );
    client.cluster_id = config.node.cluster_id.to_string();
    client.ttl = config.certificate_ttl;
    client.headers = settings::headers(&config.ca);
    let authority = ca_client::Client::try_new(client)?;
    let settings = manager::Settings {
        tls: tls::Settings {
            versions: settings::versions(config),
            ..tls::Settings::default()
        },
        ..manager::Settings::default()
    };
    Ok(CertManager::new(Arc::new(authority), settings))
}

async fn ready_when(mut synced: watch::Receiver<bool>, pending: Pending) {
    if synced.wait_for(|synced| *synced).await.is_ok() {
        pending.ready();
    }
}

/// Readiness follows the agent: it is taken back while the agent is away or a pod could not be served.
async fn follow_agent(
    mut status: watch::Receiver<mesh_zds::proxy::Status>,
    readiness: Readiness,
    first: Pending,
    pods_pending: Gauge,
) {
    let mut pending = Some(first);
    loop {
        let now = *status.borrow_and_update();
        pods_pending.set(i64::try_from(now.pending).unwrap_or(i64::MAX));
        if now.is_ready() {
            if let Some(pending) = pending.take() {
                pending.ready();
            }
        } else if pending.is_none() {
            pending = Some(readiness.pending(AGENT));
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
