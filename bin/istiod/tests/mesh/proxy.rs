//! A scripted ztunnel: discovery into a store, and a client of the certificate authority.

use std::{net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use mesh_core::{change::Change, identity::Identity};
use mesh_identity::{
    ca::CertificateAuthority as _,
    ca_client,
    control::{Target, roots::RootSource},
    key::PrivateKey,
    token,
};
use mesh_state::store::{Config, Store};
use mesh_xds::{
    client::{self, BoxError, Connect, Connection, Sink, credentials},
    metrics::Metrics,
};
use openssl::x509::X509;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::cluster::{Cluster, DEADLINE, Istiod, SYSTEM, ztunnel};

/// The name on the control plane's certificate.
const NAME: &str = "istiod.istio-system.svc";

/// A proxy; its stream ends when it is dropped.
pub(crate) struct Proxy {
    store: Store,
    changes: watch::Receiver<u64>,
    /// Where its next connections go.
    address: Arc<Mutex<SocketAddr>>,
    token: Arc<str>,
    roots: Arc<str>,
    stream: JoinHandle<()>,
}

struct Way {
    address: Arc<Mutex<SocketAddr>>,
    token: Arc<str>,
    roots: Arc<str>,
}

struct Known {
    store: Store,
    changes: watch::Sender<u64>,
}

impl Proxy {
    /// The ztunnel of a node.
    pub(crate) async fn of(cluster: &Cluster, istiod: &Istiod, node: &str) -> Self {
        let token = cluster.ztunnel_token(node);
        Self::with_token(cluster, istiod, node, &token).await
    }

    /// A proxy that claims to be a node's ztunnel, by some token.
    pub(crate) async fn with_token(
        cluster: &Cluster,
        istiod: &Istiod,
        node: &str,
        token: &str,
    ) -> Self {
        let roots = cluster.roots("demo").await;
        Self::start(istiod, node, token, &roots)
    }

    /// The ztunnel of a node, where not every namespace is told of the roots.
    pub(crate) async fn with_roots_of(
        cluster: &Cluster,
        istiod: &Istiod,
        node: &str,
        namespace: &str,
    ) -> Self {
        let token = cluster.ztunnel_token(node);
        Self::start(istiod, node, &token, &cluster.roots(namespace).await)
    }

    fn start(istiod: &Istiod, node: &str, token: &str, roots: &str) -> Self {
        let address = Arc::new(Mutex::new(istiod.running.secure));
        let (token, roots): (Arc<str>, Arc<str>) = (token.into(), roots.into());
        let store = Store::new(Config::default());
        let (sender, changes) = watch::channel(0);
        let way = Way {
            address: address.clone(),
            token: token.clone(),
            roots: roots.clone(),
        };
        let known = Known {
            store: store.clone(),
            changes: sender,
        };
        let metadata = json!({"NAME": ztunnel(node), "NAMESPACE": SYSTEM, "NODE_NAME": node});
        let config = client::Config::new(client::Node {
            id: format!(
                "ztunnel~10.9.0.1~{}.{SYSTEM}~{SYSTEM}.svc.cluster.local",
                ztunnel(node)
            ),
            metadata: metadata.as_object().unwrap().clone(),
        });
        let stream = tokio::spawn(async move {
            match client::run(way, config, Metrics::default(), known).await {}
        });
        Self {
            store,
            changes,
            address,
            token,
            roots,
            stream,
        }
    }

    /// Leads it to another replica with its next connection.
    pub(crate) fn lead_to(&self, istiod: &Istiod) {
        *self.address.lock() = istiod.running.secure;
    }

    /// Leads its next connections to where nobody answers.
    pub(crate) fn lead_nowhere(&self) {
        self.address.lock().set_port(1);
    }

    /// What it knows, as ztunnel dumps it.
    pub(crate) fn dump(&self) -> Value {
        serde_json::to_value(self.store.snapshot().dump()).unwrap()
    }

    /// Waits until its dump satisfies a condition.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                self.changes.borrow_and_update();
                let dump = self.dump();
                if condition(&dump) {
                    return dump;
                }
                self.changes.changed().await.unwrap();
            }
        };
        let waited = timeout(DEADLINE, waiting).await;
        waited.unwrap_or_else(|_| panic!("it does not learn of {what}: {:#}", self.dump()))
    }

    /// Asks for a workload's certificate; the identity that it holds.
    pub(crate) async fn certificate(&self, identity: &str) -> Result<String, String> {
        let identity: Identity = identity.parse().unwrap();
        let client = self.authority();
        let key = PrivateKey::generate().unwrap();
        let request = key.certificate_request(&identity).unwrap();
        let chain = client.sign(&identity, &request).await;
        let chain = chain.map_err(|error| mesh_runtime::error::chain(&error).to_string())?;
        let leaf = X509::from_pem(chain[0].as_bytes()).unwrap();
        let names = leaf.subject_alt_names().unwrap();
        assert_eq!(names.len(), 1);
        Ok(names[0].uri().unwrap().to_owned())
    }

    fn authority(&self) -> ca_client::Client {
        let target = target(*self.address.lock(), &self.roots);
        let token = token::Source::Literal(self.token.clone());
        ca_client::Client::try_new(ca_client::Config::new(target, token)).unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stream.abort();
    }
}

fn target(address: SocketAddr, roots: &Arc<str>) -> Target {
    let mut target = Target::new(
        format!("https://{address}"),
        RootSource::Inline(roots.clone()),
    );
    target.alternative_names = vec![NAME.to_owned()];
    target
}

impl Connect for Way {
    fn connect(&self) -> BoxFuture<'_, Result<Connection, BoxError>> {
        Box::pin(async {
            let metadata = credentials(Some(&self.token), "Kubernetes", &[])?;
            let channel = target(*self.address.lock(), &self.roots).channel()?;
            Ok(Connection { channel, metadata })
        })
    }
}

impl Sink for Known {
    fn apply(&mut self, changes: Vec<Change>) {
        drop(self.store.apply(changes));
        self.changes.send_modify(|count| *count += 1);
    }

    fn synced(&mut self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// The workload of this uid in a dump.
pub(crate) fn workload<'a>(dump: &'a Value, uid: &str) -> Option<&'a Value> {
    items(dump, "workloads").find(|workload| workload["uid"] == uid)
}

/// The service of this host name in a dump.
pub(crate) fn service<'a>(dump: &'a Value, hostname: &str) -> Option<&'a Value> {
    items(dump, "services").find(|service| service["hostname"] == hostname)
}

/// The policy of this name in a dump.
pub(crate) fn policy<'a>(dump: &'a Value, name: &str) -> Option<&'a Value> {
    items(dump, "policies").find(|policy| policy["name"] == name)
}

fn items<'a>(dump: &'a Value, kind: &str) -> impl Iterator<Item = &'a Value> {
    dump[kind].as_array().into_iter().flatten()
}
