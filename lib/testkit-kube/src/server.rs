//! The server's handle: start, stop, clients and the switches of tests.

mod counts;
mod discovery;
mod duplicate;
mod handler;
mod listener;
mod logs;
mod read;
mod request;
mod respond;
mod watch;
mod write;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch as signal};

use crate::{
    auth::{Authority, User, tls, token::Wanted},
    cluster::{self, Call, Cluster},
    status::Status,
    store::{self, Store},
};

pub use logs::{LogRequest, LogStream, NodeAgent};

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Further names and addresses that clients reach it by.
    pub hosts: Vec<String>,
    /// Changes that are remembered per resource, for watches that start late and for pages of lists.
    pub history: usize,
    /// How often watches that want them get bookmarks.
    pub bookmark_interval: Duration,
    /// Connections at a time; more wait.
    pub max_connections: usize,
}

/// A running API server. Handles are cheap to clone; the server ends with the last one.
///
/// The data lives in memory, as long as there is a handle: it survives [`stop`](Self::stop).
#[derive(Debug, Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

/// Why a server does not start, or a client of it cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keys cannot be made, or used: OpenSSL on this host is at fault.
    #[error("cannot set up TLS for the API server")]
    Tls(#[from] tls::Error),
    /// The acceptor refuses its keys: OpenSSL on this host is at fault.
    #[error("cannot check the keys of the API server")]
    Keys(#[from] openssl::error::ErrorStack),
    /// Somebody else has the address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A further listener was brought to a server that is stopped: start it first.
    #[error("cannot serve on a further listener: the API server is stopped")]
    Stopped,
    /// The kubeconfig that we made is not taken: a bug here.
    #[error("cannot read the kubeconfig that was made for a client")]
    Kubeconfig(#[from] KubeconfigError),
    /// The client cannot be set up: a bug here, or in the TLS of this host.
    #[error("cannot set up a client")]
    Client(#[source] Box<kube::Error>),
    /// A CRD is not accepted: it needs repair.
    #[error("cannot install the CRD {name}")]
    Definition {
        /// Which.
        name: String,
        /// Why not.
        source: Box<Status>,
    },
}

/// What lives as long as a handle.
#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    address: SocketAddr,
    running: Mutex<Option<listener::Running>>,
}

/// What requests need.
#[derive(Debug)]
struct Shared {
    cluster: Cluster,
    options: Options,
    /// Watches end when this changes.
    disconnect: signal::Sender<u64>,
    /// Watches send a bookmark when this changes.
    bookmark: signal::Sender<u64>,
    refusing: AtomicBool,
    counts: counts::Counts,
    agent: RwLock<Option<Arc<dyn NodeAgent>>>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            hosts: Vec::new(),
            history: store::HISTORY,
            bookmark_interval: Duration::from_secs(60),
            max_connections: 1024,
        }
    }
}

// === impl ApiServer ===

impl ApiServer {
    /// Starts a server with its system namespaces. It serves when this returns.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let authority = Authority::generate()?;
        let store = Store::with_history(options.history);
        let shared = Arc::new(Shared {
            cluster: Cluster::new(authority, store),
            disconnect: signal::Sender::new(0),
            bookmark: signal::Sender::new(0),
            refusing: AtomicBool::new(false),
            counts: counts::Counts::default(),
            agent: RwLock::new(None),
            options,
        });
        let wanted = shared.options.address;
        let (running, address) = listener::start(&shared, wanted).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                address,
                running: Mutex::new(Some(running)),
            }),
        })
    }

    /// Where it listens, also while it is stopped.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://{}", self.inner.address)
    }

    /// The certificate authority that clients verify the server with.
    pub fn ca_pem(&self) -> &str {
        self.authority().ca_pem()
    }

    /// Keys, tokens and users.
    pub fn authority(&self) -> &Authority {
        &self.inner.shared.cluster.authority
    }

    /// The objects, past admission and controllers: to seed many fast and to look at them.
    pub fn store(&self) -> &Store {
        &self.inner.shared.cluster.store
    }

    /// A kubeconfig for that user.
    pub fn kubeconfig(&self, user: &User) -> Result<String, Error> {
        Ok(self.authority().kubeconfig(&self.url(), user)?)
    }

    /// A client that is that user.
    pub async fn client(&self, user: &User) -> Result<Client, Error> {
        connect(&self.kubeconfig(user)?).await
    }

    /// A client that may do everything.
    pub async fn admin_client(&self) -> Result<Client, Error> {
        self.client(&User::admin()).await
    }

    /// A client that brings a bearer token.
    pub async fn client_with_token(&self, token: &str) -> Result<Client, Error> {
        connect(&self.authority().kubeconfig_with_token(&self.url(), token)).await
    }

    /// A token of a service account, which must exist.
    pub fn token(&self, namespace: &str, account: &str, wanted: &Wanted) -> Result<String, Status> {
        let issued = self
            .authority()
            .tokens()
            .issue(self.store(), namespace, account, wanted)?;
        Ok(issued.token)
    }

    /// Creates CRDs, or replaces those that are there; they are served when this returns.
    pub fn install_crds(&self, crds: Vec<CustomResourceDefinition>) -> Result<(), Error> {
        for crd in crds {
            let name = crd.metadata.name.clone().unwrap_or_default();
            let installed = serde_json::to_value(crd)
                .map_err(|error| Status::bad_request(error.to_string()))
                .and_then(|crd| self.install(crd));
            installed.map_err(|status| Error::Definition {
                name,
                source: Box::new(status),
            })?;
        }
        Ok(())
    }

    fn install(&self, mut crd: Value) -> Result<(), Status> {
        let cluster = &self.inner.shared.cluster;
        let (group, plural) = ("apiextensions.k8s.io", "customresourcedefinitions");
        let resource = cluster.registry.find(group, "v1", plural);
        let resource = resource.ok_or_else(|| Status::not_implemented(plural))?;
        let name = crate::meta::text(&crd, "name").to_owned();
        let options = cluster::Options {
            manager: "testkit-kube".to_owned(),
            ..cluster::Options::default()
        };
        let mut call = Call {
            user: &User::admin(),
            resource: &resource,
            namespace: "",
            name: "",
            subresource: "",
            options: &options,
            applies: false,
        };
        if let Some(live) = cluster.store.get(&resource.storage, "", &name) {
            call.name = &name;
            crd["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
            cluster.update(&call, crd).map(drop)
        } else {
            cluster.create(&call, crd).map(drop)
        }
    }

    /// Goes away: closes the listener and all connections, and keeps the data.
    pub async fn stop(&self) {
        let running = self.inner.running.lock().take();
        if let Some(running) = running {
            running.stop().await;
        }
    }

    /// Comes back on the same port.
    pub async fn start_again(&self) -> Result<(), Error> {
        self.stop().await;
        let (running, _) = listener::start(&self.inner.shared, self.inner.address).await?;
        *self.inner.running.lock() = Some(running);
        Ok(())
    }

    /// Serves on a further listener too, such as one that was opened in another network namespace. Clients
    /// believe the certificate there if [`Options::hosts`] has the address. It ends with
    /// [`stop`](Self::stop) and does not come back by itself.
    pub fn serve_also(&self, listener: TcpListener) -> Result<(), Error> {
        match &*self.inner.running.lock() {
            Some(running) => {
                running.accept(listener);
                Ok(())
            }
            None => Err(Error::Stopped),
        }
    }

    /// Ends all watches, as a server does from time to time; clients resume them.
    pub fn disconnect_watches(&self) {
        self.inner
            .shared
            .disconnect
            .send_modify(|count| *count += 1);
    }

    /// Sends a bookmark on all watches that want them.
    pub fn send_bookmarks(&self) {
        self.inner.shared.bookmark.send_modify(|count| *count += 1);
    }

    /// Forgets the history: older resource versions and continue tokens are answered with 410 from now on.
    /// Watches that are connected have what they need.
    pub fn compact(&self) {
        self.store().compact();
    }

    /// From now on answers everything with 503, or serves again. Watches that are connected go on.
    pub fn refuse_requests(&self, refuse: bool) {
        self.inner.shared.refusing.store(refuse, Ordering::Relaxed);
    }

    /// How often a user has asked for what since the server was made, by verb and resource: `watch pods`,
    /// `patch pods/status`. Requests of users that are not believed, or may not ask for it, do not count.
    pub fn requests(&self, user: &User) -> BTreeMap<String, u64> {
        self.inner.shared.counts.of(user)
    }

    /// Registers who runs pods: it answers for their logs, and ends them, so that a pod on a node is
    /// deleted only when it has been deleted with no grace.
    pub fn set_node_agent(&self, agent: Arc<dyn NodeAgent>) {
        *self.inner.shared.agent.write() = Some(agent);
        self.inner.shared.cluster.delete_pods_gracefully();
    }
}

async fn connect(kubeconfig: &str) -> Result<Client, Error> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    // A test wants to see what the server says, not what it says after a while.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))
}

impl Shared {
    fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }
}
