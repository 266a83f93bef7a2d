//! The program: builds its parts, runs them, and ends them in order.

use std::{
    future::pending,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::FutureExt as _;
use kube::Client;
use mesh_cni::{
    config::PluginConfig,
    enrolment::{Policy, Snapshot},
    protocol::{LOG_SOCKET, SOCKET},
};
use mesh_kube::{
    client, events,
    watch::{self, ObjectKey},
};
use mesh_net::netns::{self, NetNs};
use mesh_redirect::{Families, Family, Options};
use mesh_runtime::{
    error::chain,
    life::{self, Life, Tasks},
    listen::{self, Bound},
    log,
    process::{self, Start},
    readiness::Readiness,
    shutdown::{Quit, Signals},
    stats::{self, Build},
};
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;

use crate::{
    agent::{self, Agent, Handle, Parts, Patience, proxies::Ztunnels},
    config::Config,
    debug,
    degraded::{Degraded, Reason},
    ending::{Ending, Rehearsed},
    enrolment_file::{EnrolmentFile, Source},
    installer::{self, Folders, Installer},
    kernel::{self, Kernel},
    metrics::Metrics,
    platform::{self, Kind, Report, gather},
    readiness::{
        self,
        tasks::{INSTALLATION, SNAPSHOT, SOCKET as PLUGIN_SOCKET, VIEW},
    },
    server::{self, LIMITS, Socket, lines, plugin},
    version,
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
    /// The node's network namespace cannot be opened: `/proc` of the node is not mounted below `HOST_ROOT_DIR`,
    /// or the agent lacks `SYS_PTRACE`.
    #[error("open the node's network namespace")]
    HostNetwork(#[from] netns::Error),
    /// The node has nothing to write rules with.
    #[error("find out what rules are written with")]
    Kernel(#[from] kernel::Error),
    /// The node's state cannot be read.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// The plugin's sockets cannot be had.
    #[error(transparent)]
    Socket(#[from] server::Error),
    /// A port of the program is taken, or not ours.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// A part of the program came to an end, which is our defect, or needs a new container. The only one of
    /// these that is found later than at the start.
    #[error(transparent)]
    Ended(#[from] life::Error),
}

/// A running agent. It goes on when this is dropped only until its runtime ends: stop it.
#[derive(Debug)]
pub struct Running {
    /// Where the metrics are, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Where liveness and readiness are.
    pub probes: SocketAddr,
    /// Where the debug views are, if anywhere.
    pub debug: Option<SocketAddr>,
    life: Life,
    ending: Ending,
}

/// The agent as this program runs it.
pub type NodeAgent = Handle<Kernel, Ztunnels>;

/// How long requests under way may take in the end.
const TERMINATION: Duration = Duration::from_secs(3);

/// Threads of the runtime. What enters namespaces or starts programs has others.
const THREADS: usize = 2;

/// Namespaces that are worked on at once.
const PARALLEL: usize = 8;

/// Runs the agent until it is told to stop. `without_effect` are variables to warn about, and why.
pub fn run(config: Config, without_effect: &[(&str, &str)]) -> Result<(), Error> {
    let log = process::log(&config.log)?;
    tracing::info!(
        version = version::VERSION,
        revision = version::revision(),
        node = config.node,
        pod = config.pod.name,
        namespace = config.pod.namespace,
        "starting"
    );
    for (variable, reason) in without_effect {
        tracing::warn!(variable, reason, "this setting has no effect");
    }
    let runtime = start_runtime()?;
    let build = Build {
        component: "install-cni".to_owned(),
        tag: version::VERSION.to_owned(),
    };
    process::run(runtime, &build, log, async |start| {
        until_stopped(config, start).await
    })
}

pub(crate) fn start_runtime() -> Result<Runtime, process::Error> {
    process::runtime("install-cni", Some(THREADS))
}

async fn until_stopped(config: Config, start: Start) -> Result<(), Error> {
    let options = client::Options {
        kubeconfig: config.kubeconfig.clone(),
        context: None,
        user_agent: format!("install-cni/{}", version::VERSION),
    };
    let client = client::connect(&options).await?;
    let mut signals = start.signals;
    let shown = (start.log, signals.quitter());
    let running = Running::start(config, client, start.registry, shown).await?;
    running.until_told(&mut signals).await
}

/// What the packet filter is used for.
pub(crate) async fn find_kernel(config: &Config) -> Result<Kernel, Error> {
    let host = match &config.paths.host_network {
        Some(path) => NetNs::open(path)?,
        None => NetNs::current()?,
    };
    let wanted = kernel::Config {
        host: Arc::new(host),
        native_nftables: config.rules.native_nftables,
        iptables: config.rules.iptables,
        families: config.rules.families,
        probes: config.rules.probes,
        branch_interfaces: config.rules.branch_interfaces,
        parallel: PARALLEL,
    };
    Ok(Kernel::detect(&wanted).await?)
}

/// What is installed.
pub(crate) fn to_install(config: &Config, platform: Kind) -> installer::Config {
    let (install, paths, enrolment) = (&config.install, &config.paths, &config.enrolment);
    installer::Config {
        folders: Folders {
            plugin: paths.image_bin.join(mesh_cni::config::PLUGIN),
            bin: paths.cni_bin.clone(),
            conf: paths.cni_net.clone(),
            run: paths.run_dir.clone(),
        },
        mode: install.mode.clone(),
        entry: PluginConfig {
            plugin_log_level: install.plugin_log_level.clone(),
            cni_agent_run_dir: paths.run_dir.display().to_string(),
            enablement_selectors: enrolment.selectors.clone(),
            exclude_namespaces: enrolment.excluded.clone(),
            pod_namespace: config.pod.namespace.clone(),
            native_nftables: config.rules.native_nftables.unwrap_or_default(),
            status_needs_agent: install.status_needs_agent,
            ..PluginConfig::default()
        },
        group_read: install.group_read,
        identity: config.pod.name.clone(),
        platform,
    }
}

// === impl Running ===

impl Running {
    /// Starts the agent as tasks of the runtime we are in. Its ports are bound when this returns; new pods are
    /// taken care of once the node's pods have been seen, which `/readyz` tells.
    pub async fn start(
        config: Config,
        client: Client,
        mut registry: Registry,
        (log, quit): (log::Handle, Quit),
    ) -> Result<Self, Error> {
        let (probes, probes_at) = listen::bind("probes", config.listen.probes).await?;
        let metrics = listen::bind_if("metrics", config.listen.metrics).await?;
        let debug = listen::bind_if("debug views", config.listen.debug).await?;
        let kernel = find_kernel(&config).await?;
        let (life, tasks) = life::begin(TERMINATION);
        let counts = Metrics::register(&mut registry);
        counts.backend(kernel.mechanism());
        let mut parts = Program {
            config,
            client,
            registry,
            metrics: counts,
            readiness: Readiness::new(),
            tasks,
            degraded: Degraded::new(),
        };
        let routes = readiness::routes(&parts.readiness);
        parts.tasks.serve_http("probes", probes, routes);
        let handle = parts.look_after(kernel)?;
        parts.answer(&handle, log.clone())?;
        let report = parts.look_around().await;
        let installer = parts.install(&handle, report.kind);
        let ending = parts.ending(&handle, &installer);
        let running = Self {
            metrics: metrics.as_ref().map(|(_, at)| *at),
            probes: probes_at,
            debug: debug.as_ref().map(|(_, at)| *at),
            life,
            ending,
        };
        let views = debug::Views {
            handle,
            installer,
            report,
        };
        parts.show((metrics, debug), views, (log, quit));
        Ok(running)
    }

    /// Resolves when the agent has stopped, because it was told to or because a part failed. Told to, it finds
    /// out first whether it is replaced or removed for good, and then removes what it has installed. Told
    /// again meanwhile, it stops at once and leaves everything.
    pub async fn until_told(mut self, signals: &mut Signals) -> Result<(), Error> {
        let outcome = tokio::select! {
            cause = signals.next() => {
                tracing::info!(%cause, "stopping");
                tokio::select! {
                    () = self.ending.run() => {}
                    cause = signals.next() => {
                        tracing::warn!(%cause, "told again: stopping at once, and leaving everything");
                        return Ok(());
                    }
                }
                Ok(())
            }
            error = self.life.failed() => {
                tracing::error!(part = error.part, "stopping: a part that must not end has ended");
                Err(error.into())
            }
        };
        tokio::select! {
            () = self.life.stop() => {}
            cause = signals.next() => tracing::warn!(%cause, "told again: stopping at once"),
        }
        outcome
    }
}

/// What the parts of the program are built with.
struct Program {
    config: Config,
    client: Client,
    registry: Registry,
    metrics: Metrics,
    readiness: Readiness,
    tasks: Tasks,
    degraded: Degraded,
}

// === impl Program ===

impl Program {
    /// Starts to look after the node's pods, and leaves what the plugin needs without us.
    fn look_after(&mut self, kernel: Kernel) -> Result<NodeAgent, Error> {
        let reporter = events::Reporter {
            controller: "install-cni".to_owned(),
            instance: self.config.pod.name.clone(),
        };
        let (recorder, publisher) = events::channel(self.client.clone(), reporter);
        let stop = self.tasks.drain.clone();
        let publish = async move { publisher.run(stop.signaled().map(|_mode| ())).await };
        drop(self.tasks.background.spawn("events", publish));
        let watches = watch::Metrics::default();
        watches.register(self.registry.sub_registry_with_prefix("lateen_cni"));
        let families = kernel.families();
        let parts = Parts {
            client: self.client.clone(),
            kernel,
            proxies: Ztunnels::new(&self.config.paths.ztunnel),
            events: recorder,
            watches,
        };
        let (agent, handle) = Agent::new(agent_config(&self.config, families), parts)?;
        handle.register(&mut self.registry);
        let (view, snapshot) = (
            self.readiness.pending(VIEW),
            self.readiness.pending(SNAPSHOT),
        );
        let seen = handle.clone();
        self.tasks
            .spawn("agent", async move { match agent.run().await {} });
        self.tasks.spawn("sight", async move {
            seen.synced().await;
            view.ready();
            seen.serving().await;
            snapshot.ready();
            pending::<()>().await;
        });
        let file = EnrolmentFile::new(&self.config.paths.run_dir);
        let (stale, snapshots) = (file.staleness(), handle.snapshots());
        self.tasks.spawn("enrolment file", file.follow(snapshots));
        let (pods, ztunnels, watches) = (handle.clone(), handle.clone(), handle.clone());
        self.check(Reason::Watches, move || watches.has_lost_sight());
        self.check(Reason::EnrolmentFile, move || stale.load(Ordering::Relaxed));
        self.check(Reason::Ztunnel, move || ztunnels.view().ztunnels == 0);
        self.check(Reason::Pods, move || {
            pods.view().pods.values().any(|pod| pod.failure.is_some())
        });
        Ok(handle)
    }

    fn check(&mut self, reason: Reason, holds: impl Fn() -> bool + Send + Sync + 'static) {
        self.degraded = std::mem::take(&mut self.degraded).check(reason, holds);
    }

    /// Starts to answer the plugin and to log for it.
    fn answer(&self, handle: &NodeAgent, log: log::Handle) -> Result<(), Error> {
        let waiting = self.readiness.pending(PLUGIN_SOCKET);
        let run_dir = &self.config.paths.run_dir;
        let logs = Socket::take(run_dir.join(LOG_SOCKET))?;
        let calls = Socket::take(run_dir.join(SOCKET))?;
        let tasks = || (&self.tasks, self.metrics.clone());
        let routes = lines::routes(log, self.metrics.clone());
        server::serve("plugin log", logs, routes, LIMITS, tasks());
        let routes = plugin::routes(&Arc::new(handle.clone()), &self.metrics);
        server::serve("plugin", calls, routes, LIMITS, tasks());
        waiting.ready();
        Ok(())
    }

    /// Finds out what the node is, and tells.
    async fn look_around(&mut self) -> Arc<Report> {
        let sources = gather::Sources {
            bin_folder: self.config.paths.cni_bin.clone(),
            conf_folder: self.config.paths.cni_net.clone(),
            host: self.config.paths.host.clone(),
            ipv6: self.config.rules.families != Families::Only(Family::V4),
            chained: !matches!(self.config.install.mode, installer::Mode::Standalone { .. }),
        };
        let host = tokio::task::spawn_blocking(move || gather::host(&sources));
        let (host, node) = tokio::join!(host, gather::node(&self.client, &self.config.node));
        let mut host = host.unwrap_or_default();
        host.node = node;
        let report = Arc::new(platform::detect(&host));
        report.log();
        platform::metrics::register(&mut self.registry, &report);
        let grave = report
            .findings
            .iter()
            .any(|f| f.severity == platform::Severity::Error);
        self.check(Reason::Platform, move || grave);
        report
    }

    /// Installs the plugin once the node's pods have been seen: an agent that never sees any would only keep new
    /// pods from starting.
    fn install(&mut self, handle: &NodeAgent, platform: Kind) -> Installer {
        let metrics = installer::Metrics::new(&mut self.registry);
        let installer = Installer::new(to_install(&self.config, platform), metrics);
        let waiting = self.readiness.pending(INSTALLATION);
        let (installing, seen) = (installer.clone(), handle.clone());
        let readiness = self.readiness.clone();
        self.tasks.spawn("installer", async move {
            seen.synced().await;
            let error = installing.run(readiness).await;
            tracing::error!(error = %chain(&error), "the plugin cannot be kept installed");
        });
        let mut view = installer.view();
        self.tasks.spawn("installation", async move {
            if view.wait_for(|view| view.installed).await.is_ok() {
                waiting.ready();
            }
            pending::<()>().await;
        });
        let view = installer.view();
        self.check(Reason::Installation, move || {
            let view = view.borrow();
            !view.installed || view.contended
        });
        installer
    }

    /// What is to be done in the end, and a rehearsal of it.
    fn ending(&self, handle: &NodeAgent, installer: &Installer) -> Ending {
        let (pod, node) = (&self.config.pod, &self.config.node);
        let question = Rehearsed::new(self.client.clone(), &pod.namespace, node);
        let rehearsal = question.clone();
        self.tasks.spawn("rehearsal", async move {
            rehearsal.rehearse().await;
            pending::<()>().await;
        });
        Ending {
            question: self.config.safe_upgrade.then_some(question),
            installer: installer.clone(),
            handle: handle.clone(),
            pod: ObjectKey {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
            },
        }
    }

    /// Serves metrics and debug views.
    fn show(
        mut self,
        (metrics, debug): (Option<Bound>, Option<Bound>),
        views: debug::Views,
        (log, quit): (log::Handle, Quit),
    ) {
        self.registry.register_collector(Box::new(self.degraded));
        if let Some((listener, _)) = metrics {
            let routes = stats::routes(Arc::new(self.registry));
            self.tasks.serve_http("metrics", listener, routes);
        }
        if let Some((listener, _)) = debug {
            let routes = debug::routes(views, log, quit);
            self.tasks.serve_http("debug", listener, routes);
        }
    }
}

/// What the agent is told. Rules are made for the families that are asked for and that the node can do.
fn agent_config(config: &Config, able: Families) -> agent::Config {
    let wanted = config.rules.families;
    let [v4, v6] = Family::ALL.map(|family| wanted.contains(family) && able.contains(family));
    let paths = &config.paths;
    agent::Config {
        node: config.node.clone(),
        policy: Policy {
            selectors: config.enrolment.selectors.clone(),
            excluded_namespaces: config.enrolment.excluded.iter().cloned().collect(),
        },
        options: Options {
            families: Families::new(v4, v6).unwrap_or(able),
            dns_capture: config.rules.dns_capture,
            probes: config.rules.probes,
            ..Options::default()
        },
        system_namespace: config.system_namespace.clone(),
        paths: agent::Paths {
            run_dir: paths.run_dir.clone(),
            host: paths.host.clone(),
            proc: paths.host.join(PathBuf::from("proc")),
        },
        patience: Patience::default(),
    }
}

impl Source for agent::Snapshots {
    async fn next(&mut self) -> Option<Snapshot> {
        Self::next(self).await
    }
}
