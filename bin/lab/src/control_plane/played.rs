//! The lab in the place of istiod, for what no cluster says: any state of discovery, as a test wants it.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use futures::future::BoxFuture;
use mesh_core::{identity::Identity, workload::Workload};
use mesh_identity::{
    control::{incoming, server_config},
    issuer::{
        Issuer,
        service::{Authorizer, Caller, Denied, Service as Certificates},
    },
    provider::Versions,
};
use mesh_net::socket::{InPodSockets, SocketFactory, TcpOptions};
use mesh_xds::{
    Change,
    server::{Authenticate, Client, Resources, Service as Discovery},
};
use parking_lot::RwLock;
use testkit_net::Namespace;
use tokio::runtime::Runtime;
use tonic::{Extensions, Status, metadata::MetadataMap, transport::Server};

use super::{ControlPlane, Credentials, NAME, PORT, ProxyPod, api::Api};

/// Life of the roots: longer than any demo.
const ROOT_TTL: Duration = Duration::from_secs(24 * 3600);

/// Discovery and certificates over TLS, on the fabric; they end when this is dropped. What it knows and
/// signs with outlives a stop.
#[derive(Debug)]
pub struct Played {
    resources: Resources,
    nodes: Nodes,
    issuer: Arc<Issuer>,
    sockets: InPodSockets,
    address: SocketAddr,
    /// For the agents; the proxies are told of the same pods by what is played.
    api: Api,
    /// Threads of its own: with them all its connections end at once.
    serving: Option<Runtime>,
}

/// Which node holds which token, and whose pods run there. The lab's service accounts.
#[derive(Clone, Debug, Default)]
struct Nodes(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    node_by_token: HashMap<String, String>,
    identities: HashMap<String, Vec<Identity>>,
}

// === impl Played ===

impl Played {
    /// Starts on the fabric's address.
    pub(crate) async fn start(fabric: &Namespace, address: IpAddr) -> anyhow::Result<Self> {
        let issuer = Issuer::self_signed("cluster.local", ROOT_TTL).context("make a root")?;
        let sockets = InPodSockets {
            netns: fabric.handle().clone(),
            mark: None,
            reuse_port: false,
            tcp: TcpOptions::default(),
        };
        // The lab says what there is; there is no cluster to read first.
        let resources = Resources::default();
        resources.ready();
        let mut control_plane = Self {
            resources,
            nodes: Nodes::default(),
            issuer: Arc::new(issuer),
            sockets,
            address: SocketAddr::new(address, PORT),
            api: Api::start(fabric, address).await?,
            serving: None,
        };
        control_plane.serve()?;
        Ok(control_plane)
    }

    /// Serves with what it knows, under the address and the root it always had.
    pub(crate) fn serve(&mut self) -> anyhow::Result<()> {
        self.stop();
        let certificate = self.issuer.server_certificate(&[NAME], ROOT_TTL)?;
        let tls = server_config(&certificate, Versions::Tls13)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control-plane")
            .enable_all()
            .build()?;
        let listener = {
            let _here = runtime.enter();
            self.sockets
                .listen_tcp(self.address)
                .context("listen for the proxies")?
        };
        let discovery = Discovery::new(self.resources.clone(), self.nodes.clone()).into_server();
        let certificates = Certificates::new(self.issuer.clone(), self.nodes.clone()).into_server();
        let server = Server::builder()
            .add_service(discovery)
            .add_service(certificates)
            .serve_with_incoming(incoming(listener, tls));
        drop(runtime.spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the lab's control plane ended");
            }
        }));
        self.serving = Some(runtime);
        Ok(())
    }

    /// Ends it as a crash would: its port is closed and its connections with it.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.serving.take() {
            runtime.shutdown_background();
        }
    }

    /// Notes that no pod with this identity runs on a node any more.
    pub(crate) fn displace(&self, node: &str, identity: &Identity) {
        let mut state = self.nodes.0.write();
        if let Some(here) = state.identities.get_mut(node) {
            here.retain(|other| other != identity);
        }
    }

    /// Publishes changes to the proxies.
    pub(crate) fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        self.resources.apply(changes);
    }
}

impl ControlPlane for Played {
    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn api(&self) -> &Api {
        &self.api
    }

    async fn admit(&self, proxy: &ProxyPod<'_>, _uid: &str) -> anyhow::Result<Credentials> {
        let token = format!("lab-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let mut state = self.nodes.0.write();
        let node = proxy.node.to_owned();
        state.node_by_token.insert(token.clone(), node);
        let roots = self.issuer.roots().to_owned();
        Ok(Credentials { token, roots })
    }

    async fn place(&self, pod: &Workload) -> anyhow::Result<()> {
        let identity = pod.identity()?;
        let node = pod.node.to_string();
        let mut state = self.nodes.0.write();
        state.identities.entry(node).or_default().push(identity);
        drop(state);
        self.publish([Change::Workload(pod.clone())]);
        Ok(())
    }

    async fn announce(&self, pod: &Workload) -> anyhow::Result<()> {
        self.publish([Change::Workload(pod.clone())]);
        Ok(())
    }

    fn log(&self) -> String {
        String::new()
    }

    async fn end(self) -> Vec<anyhow::Error> {
        self.api.stop().await;
        Vec::new()
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl Nodes ===

impl Nodes {
    fn node_of(&self, metadata: &MetadataMap) -> Option<String> {
        let header = metadata.get("authorization")?.to_str().ok()?;
        self.0
            .read()
            .node_by_token
            .get(header.strip_prefix("Bearer ")?)
            .cloned()
    }

    fn decide(&self, caller: Caller<'_>) -> Result<Identity, Denied> {
        let stranger = || Denied::Unauthenticated("no node has this token".to_owned());
        let node = self.node_of(caller.metadata).ok_or_else(stranger)?;
        let itself = || Denied::Forbidden(format!("{node} asks for itself, which has no identity"));
        let wanted = caller.impersonated.ok_or_else(itself)?;
        let state = self.0.read();
        let local = state
            .identities
            .get(&node)
            .is_some_and(|here| here.contains(wanted));
        if local {
            Ok(wanted.clone())
        } else {
            Err(Denied::Forbidden(format!(
                "no pod of {wanted} runs on {node}"
            )))
        }
    }
}

impl Authenticate for Nodes {
    fn authenticate<'a>(
        &'a self,
        metadata: &'a MetadataMap,
        _extensions: &'a Extensions,
    ) -> BoxFuture<'a, Result<Client, Status>> {
        let client = self.node_of(metadata).map(|node| Client {
            identity: format!("the proxy of {node}").into(),
            node: Some(node.into()),
            ..Client::default()
        });
        Box::pin(async move { client.ok_or_else(|| Status::unauthenticated("unknown token")) })
    }
}

impl Authorizer for Nodes {
    fn authorize<'a>(&'a self, caller: Caller<'a>) -> BoxFuture<'a, Result<Identity, Denied>> {
        let decision = self.decide(caller);
        Box::pin(async move { decision })
    }
}
