//! Wires the certificate authority: who may call, where the root is, who is told of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::Client;
use mesh_api::selector::Selector;
use mesh_identity::{
    control::ServerTls,
    issuer::{RootKind, service::Service as Certificates},
    provider::Versions,
};
use mesh_kube::{error::Explained, watch};
use mesh_runtime::life::Tasks;
use prometheus_client::registry::Registry;
use tokio::{sync::watch as news, time};

use crate::{
    authn::{
        self, Authenticator, TokenReviews, TrustDomains,
        node::{NodeAccounts, Nodes, NotAnAccount, Placements},
        review::ApiServer,
    },
    ca::{
        self, Authority, Keeper, NodeAuthorizer,
        keeper::{Clock, Settings},
        namespaces::{Controller, Scope},
        serving,
    },
    config::Config,
    mesh::{InForce, Mesh},
    program::Error,
    world::World,
};

/// Who calls, and what a node's proxy may. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Callers {
    pub(crate) authenticator: Authenticator,
    pub(crate) nodes: Nodes,
    /// Counts who is not admitted.
    pub(crate) metrics: authn::metrics::Metrics,
}

/// The namespaces that the mesh configuration selects.
struct Selected(news::Receiver<Mesh>);

/// What it takes to open the authority.
pub(crate) struct Opening {
    pub(crate) config: Arc<Config>,
    pub(crate) client: Client,
    pub(crate) callers: Callers,
    pub(crate) in_force: InForce,
    pub(crate) watch_metrics: watch::Metrics,
    pub(crate) metrics: ca::Metrics,
}

/// An authority with its root.
pub(crate) struct Opened {
    opening: Opening,
    authority: Authority,
    keeper: Keeper,
}

/// What signs, and what it is served with.
pub(crate) struct Signing {
    pub(crate) certificates: Certificates<NodeAuthorizer>,
    pub(crate) tls: ServerTls,
}

/// Pause after a root could not be found or made, for want of an API server.
const RETRY: Duration = Duration::from_secs(2);

/// Life of the control plane's own certificate, which is renewed at half of it.
const SERVING_TTL: Duration = Duration::from_secs(24 * 3600);

/// Signatures at a time: as many as there are processors would leave none for streams.
const SIGNATURES: usize = 4;

/// Who may call, by tokens that the API server reviews and by what is known of the pods.
pub(crate) fn callers(
    config: &Config,
    client: &Client,
    world: &World,
    domains: news::Receiver<TrustDomains>,
    registry: &mut Registry,
) -> Result<Callers, Error> {
    let accounts = config.callers.trusted_node_accounts.join(",");
    let accounts: NodeAccounts = accounts
        .parse::<NodeAccounts>()
        .map_err(|e: NotAnAccount| e)?;
    let audiences = config.callers.token_audiences.clone();
    let reviewer = Arc::new(ApiServer::new(client.clone(), audiences.clone()));
    let metrics = authn::metrics::Metrics::register(registry);
    let reviews = TokenReviews::new(reviewer, audiences, metrics.clone());
    Ok(Callers {
        metrics,
        authenticator: Authenticator::new(reviews, domains),
        nodes: Nodes::new(accounts, Placements::new(world.placement(), world.placed())),
    })
}

// === impl Opening ===

impl Opening {
    /// Finds the root or makes one, however long the API server is away.
    pub(crate) async fn open(self) -> Opened {
        loop {
            let settings = self.settings();
            let (client, metrics) = (self.client.clone(), self.metrics.clone());
            let watches = self.watch_metrics.clone();
            let opened = Authority::open(settings, client, metrics, watches).await;
            match opened {
                Ok((authority, keeper)) => {
                    return Opened {
                        opening: self,
                        authority,
                        keeper,
                    };
                }
                // Also where somebody has to repair files or the Secret: then it goes on by itself.
                Err(error) => {
                    let reason = Explained(&error).to_string();
                    tracing::error!(reason, again_in = ?RETRY, "there is no certificate authority");
                }
            }
            time::sleep(RETRY).await;
        }
    }

    fn settings(&self) -> Settings {
        let authority = &self.config.authority;
        Settings {
            files: authority.directory.clone(),
            namespace: self.config.pod.namespace.to_string(),
            organization: self.in_force.mesh().borrow().config.trust_domain.clone(),
            kind: authority.rsa_bits.map_or(RootKind::EcP256, RootKind::Rsa),
            root_ttl: authority.root_ttl,
            check_interval: authority.check_interval,
            jitter: authority.jitter,
            grace_percent: authority.grace_percent.into(),
            default_ttl: authority.workload_ttl,
            max_ttl: authority.max_workload_ttl,
            clock: Clock::system(),
        }
    }
}

// === impl Opened ===

impl Opened {
    /// Starts what keeps the root, the serving certificate and the namespaces up to date.
    pub(crate) fn start(
        self,
        tasks: &Tasks,
        leads: news::Receiver<bool>,
    ) -> Result<Signing, serving::Error> {
        let Self {
            opening,
            authority,
            keeper,
        } = self;
        let config = &opening.config;
        let namespace = &config.pod.namespace;
        let names =
            serving::dns_names(namespace, &config.revision, &config.authority.further_names);
        let serving = serving::Settings {
            names,
            ttl: SERVING_TTL,
            versions: Versions::Tls12AndTls13,
        };
        let (tls, renewal) = serving::serve(serving, authority.changes())?;
        tasks.spawn("serving certificate", renewal.run());
        tasks.spawn("root", keeper.run(leads.clone()));
        let controller = Controller::new(
            opening.client,
            authority.changes(),
            Arc::new(Selected(opening.in_force.mesh())),
            opening.in_force.generation(),
            opening.watch_metrics,
        );
        tasks.spawn("roots in namespaces", controller.run(leads));
        let Callers {
            authenticator,
            nodes,
            metrics: _,
        } = opening.callers;
        let authorizer = NodeAuthorizer::new(authenticator, nodes, authority.clone());
        let offload = |job| drop(tokio::task::spawn_blocking(job));
        let certificates = Certificates::new(authority.current(), authorizer)
            .with_default_ttl(config.authority.workload_ttl)
            .signing_on(offload, SIGNATURES)
            .observed_by(Arc::new(opening.metrics));
        Ok(Signing { certificates, tls })
    }
}

// === impl Selected ===

impl Scope for Selected {
    fn covers(&self, _namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let selectors = &self.0.borrow().config.discovery_selectors;
        // They were looked at when the configuration was read: none of them is faulty.
        let mut usable = selectors.iter().filter_map(|s| Selector::try_new(s).ok());
        selectors.is_empty() || usable.any(|selector| selector.matches(labels))
    }
}
