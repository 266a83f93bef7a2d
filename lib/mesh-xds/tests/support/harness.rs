//! A control plane and a client on loopback, each on its own threads.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use mesh_core::workload::Workload;
use mesh_proto::{
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    type_url::ADDRESS,
};
use mesh_xds::{
    Change,
    client::{self, BoxError, Connect, Connection, Sink},
    convert,
    metrics::Metrics,
    server::{self, Limits, Readable, Resources, Service, Streams},
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    runtime,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Extensions, Status, Streaming,
    metadata::MetadataMap,
    transport::{Endpoint, Server},
};

/// How long any condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A control plane; dropping it breaks every connection.
pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    pub(crate) resources: Resources,
    pub(crate) streams: Streams,
    metrics: Registry,
    runtime: Option<runtime::Runtime>,
}

/// What a client was told, as the program would see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Content by name.
    pub(crate) held: BTreeMap<Arc<str>, Change>,
    /// All changes in order of arrival.
    pub(crate) log: Vec<Change>,
    pub(crate) synced: usize,
}

/// A running client.
pub(crate) struct Client {
    pub(crate) view: watch::Receiver<View>,
    pub(crate) target: Arc<Target>,
    metrics: Registry,
    task: tokio::task::JoinHandle<std::convert::Infallible>,
}

/// Where a client connects, with which token, and how often it did.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: Mutex<SocketAddr>,
    pub(crate) token: Mutex<String>,
    pub(crate) attempts: watch::Sender<usize>,
}

struct Collect(watch::Sender<View>);

pub(crate) fn mk_workload(uid: &str, node: &str) -> Change {
    Change::Workload(Workload {
        node: node.into(),
        ..Workload::with_uid(uid)
    })
}

/// Admits everyone, and nobody to policies, so that a stream need not ask for them.
#[expect(
    clippy::unnecessary_wraps,
    reason = "an authenticator, which could refuse"
)]
pub(crate) fn addresses_only(_: &MetadataMap, _: &Extensions) -> Result<server::Client, Status> {
    Ok(server::Client {
        may_read: Readable::Only(&[ADDRESS]),
        ..server::Client::default()
    })
}

pub(crate) fn mk_request(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.into(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// A stream by hand: what is sent, and what arrives.
pub(crate) type RawStream = (
    mpsc::Sender<DeltaDiscoveryRequest>,
    Streaming<DeltaDiscoveryResponse>,
);

/// A client that reads and acknowledges only when told to.
pub(crate) async fn mk_raw_stream(
    server: &ControlPlane,
    first: impl IntoIterator<Item = DeltaDiscoveryRequest>,
) -> RawStream {
    try_raw_stream(server, first).await.unwrap()
}

/// The same, which may be refused.
pub(crate) async fn try_raw_stream(
    server: &ControlPlane,
    first: impl IntoIterator<Item = DeltaDiscoveryRequest>,
) -> Result<RawStream, Status> {
    let channel = Endpoint::from_shared(format!("http://{}", server.address));
    let channel = channel.unwrap().connect().await.unwrap();
    let (requests, queue) = mpsc::channel(4);
    for first in first {
        requests.send(first).await.unwrap();
    }
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let opened = client
        .delta_aggregated_resources(ReceiverStream::new(queue))
        .await;
    Ok((requests, opened?.into_inner()))
}

fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

// === impl ControlPlane ===

impl ControlPlane {
    pub(crate) fn start(changes: impl IntoIterator<Item = Change>) -> Self {
        Self::start_with(changes, |_: &MetadataMap, _: &Extensions| {
            Ok(server::Client::default())
        })
    }

    pub(crate) fn start_with<F>(changes: impl IntoIterator<Item = Change>, admit: F) -> Self
    where
        F: Fn(&MetadataMap, &Extensions) -> Result<server::Client, Status> + Send + Sync + 'static,
    {
        let resources = Resources::default();
        resources.apply(changes);
        resources.ready();
        Self::serve(resources, admit, Limits::default())
    }

    pub(crate) fn serve<F>(resources: Resources, admit: F, limits: Limits) -> Self
    where
        F: Fn(&MetadataMap, &Extensions) -> Result<server::Client, Status> + Send + Sync + 'static,
    {
        let counters = server::Metrics::default();
        let mut metrics = Registry::default();
        counters.register(&mut metrics);
        let service = Service::with_limits(resources.clone(), admit, limits, counters);
        let streams = service.streams();
        let service = service.into_server();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let incoming = TcpListenerStream::new(listener);
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
        });
        Self {
            address,
            resources,
            streams,
            metrics,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn metrics(&self) -> String {
        exposition(&self.metrics)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

// === impl Client ===

impl Client {
    pub(crate) fn start(server: &ControlPlane) -> Self {
        Self::start_with(server, |_| {})
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        Self::start_configured(address, |_| {})
    }

    pub(crate) fn start_with(
        server: &ControlPlane,
        change: impl FnOnce(&mut client::Config),
    ) -> Self {
        Self::start_configured(server.address, change)
    }

    fn start_configured(address: SocketAddr, change: impl FnOnce(&mut client::Config)) -> Self {
        let mut config = client::Config::new(client::Node {
            id: "ztunnel~127.0.0.1~z.istio-system~istio-system.svc.cluster.local".into(),
            metadata: serde_json::Map::new(),
        });
        change(&mut config);
        let target = Arc::new(Target {
            address: Mutex::new(address),
            token: Mutex::new("first".into()),
            attempts: watch::Sender::new(0),
        });
        let counters = Metrics::default();
        let mut metrics = Registry::with_prefix("istio");
        counters.register(&mut metrics);
        let (sender, view) = watch::channel(View::default());
        let task = tokio::spawn(client::run(
            target.clone(),
            config,
            counters,
            Collect(sender),
        ));
        Self {
            view,
            target,
            metrics,
            task,
        }
    }

    /// The view, as soon as it is as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&View) -> bool) -> View {
        let waited = timeout(DEADLINE, self.view.wait_for(wanted)).await;
        let in_time = waited.is_ok();
        drop(waited);
        let view = self.view.borrow_and_update().clone();
        assert!(in_time, "the client still sees {view:?}");
        view
    }

    /// Waits for so many attempts to connect, counted from the start; all but the last have ended.
    pub(crate) async fn attempts(&self, wanted: usize) {
        let mut attempts = self.target.attempts.subscribe();
        let waited = attempts.wait_for(|attempts| *attempts >= wanted);
        timeout(DEADLINE, waited).await.unwrap().unwrap();
    }

    pub(crate) fn metrics(&self) -> String {
        exposition(&self.metrics)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connect for Target {
    fn connect(&self) -> BoxFuture<'_, Result<Connection, BoxError>> {
        self.attempts.send_modify(|attempts| *attempts += 1);
        let address = *self.address.lock();
        let token = self.token.lock().clone();
        Box::pin(async move {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            Ok(Connection {
                channel: endpoint.connect().await?,
                metadata: client::credentials(Some(&token), "Kubernetes", &[])?,
            })
        })
    }
}

impl Sink for Collect {
    fn apply(&mut self, changes: Vec<Change>) {
        self.0.send_modify(|view| {
            for change in changes {
                view.log.push(change.clone());
                match change {
                    Change::RemoveAddress(name) | Change::RemovePolicy(name) => {
                        view.held.remove(&name);
                    }
                    change => {
                        let (_, name, _) = convert::change_to_proto(&change);
                        view.held.insert(name, change);
                    }
                }
            }
        });
    }

    fn synced(&mut self) {
        self.0.send_modify(|view| view.synced += 1);
    }
}

// === impl View ===

impl View {
    pub(crate) fn names(&self) -> Vec<&str> {
        self.held.keys().map(AsRef::as_ref).collect()
    }
}
