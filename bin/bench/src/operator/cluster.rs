//! A large cluster: an API server in this process, and one that stands for the controllers of workloads.

use std::{collections::BTreeMap, sync::Arc};

use ::operator::rights;
use anyhow::Context as _;
use kube::{Client, Resource};
use serde_json::{Value, json};
use testkit_kube::{
    auth::{User, token::Wanted},
    server::{ApiServer, Options},
    store::{GroupResource, Store},
};

use super::within;

/// How large.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Size {
    /// Namespaces, four of five of them in the mesh.
    #[arg(long, default_value_t = 500)]
    pub(crate) namespaces: u32,
    /// Pods, evenly in all namespaces.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) pods: u32,
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
    pub(crate) size: Size,
}

/// The last change of each kind, without that of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versions(BTreeMap<String, u64>);

/// Nodes of the cluster, each with a pod of every DaemonSet.
const NODES: i64 = 20;
/// Says that the node's proxy carries a pod's traffic.
const ENROLLED: &str = "ambient.istio.io/redirection";
/// A token of somebody who may do everything.
pub(crate) const TOKEN: &str = "bench";

// === impl Cluster ===

impl Cluster {
    /// Starts one that remembers so many changes of each kind.
    pub(crate) async fn start(size: Size, history: usize) -> anyhow::Result<Self> {
        let options = Options {
            history,
            ..Options::default()
        };
        let server = ApiServer::start(options).await?;
        let client = server.admin_client().await?;
        let crds = mesh_api::sail::crds().into_iter();
        server.install_crds(crds.chain(mesh_api::gateway_stand_ins()).collect())?;
        server.authority().agree(TOKEN, User::admin());
        let cluster = Self {
            server,
            client,
            size,
        };
        cluster.fill();
        Ok(cluster)
    }

    /// A kubeconfig with the operator's rights and no others, such as they are printed.
    pub(crate) fn kubeconfig(&self) -> anyhow::Result<String> {
        for object in rights::objects(rights::NAME)? {
            let kind = GroupResource::named(object.kind.group, object.kind.plural);
            self.server.store().put(&kind, object.body);
        }
        let wanted = Wanted {
            audiences: Vec::new(),
            lifetime: jiff::SignedDuration::from_hours(1),
            bound: None,
        };
        let token = self.server.token(rights::NAME, rights::NAME, &wanted);
        let token = token.context("make a token for the operator")?;
        let authority = self.server.authority();
        Ok(authority.kubeconfig_with_token(&self.server.url(), &token))
    }

    /// Has all workloads run, for as long as this runs.
    pub(crate) async fn roll_out(store: &Store) {
        let kinds = ["deployments", "daemonsets"].map(|name| GroupResource::named("apps", name));
        let [mut one, mut other] = kinds.each_ref().map(|kind| store.subscribe(kind));
        loop {
            for kind in &kinds {
                for object in store.list(kind, None) {
                    roll(store, kind, &object);
                }
            }
            tokio::select! {
                _ = one.changed() => {}
                _ = other.changed() => {}
            }
        }
    }

    /// Waits until a resource without a namespace is in a state.
    pub(crate) async fn until<K: Resource<DynamicType = ()>>(
        &self,
        condition: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let (store, kind) = (self.server.store(), GroupResource::of::<K>());
        let mut news = store.subscribe(&kind);
        let waiting = async {
            loop {
                news.borrow_and_update();
                let object = store.get(&kind, "", super::NAME);
                if object.is_some_and(|object| condition(&object)) {
                    return anyhow::Ok(());
                }
                news.changed().await?;
            }
        };
        let kind = K::kind(&());
        within(&format!("the {kind} is not as it should be"), waiting).await?
    }

    /// Changes a pod in a way that only its owner cares for.
    pub(crate) fn touch(&self, number: u32) {
        let mut pod = self.pod(number, self.is_ambient(number));
        pod["metadata"]["annotations"]["touched"] = number.to_string().into();
        self.put_pod(pod);
    }

    /// Takes a pod into the mesh, or out of it.
    pub(crate) fn enroll(&self, number: u32, enrolled: bool) {
        self.put_pod(self.pod(number, enrolled));
    }

    pub(crate) fn versions(&self) -> Versions {
        let store = self.server.store();
        let kinds = store.resources(None).into_iter();
        let kinds = kinds.filter(|kind| &*kind.resource != "leases");
        Versions(
            kinds
                .map(|kind| (kind.resource.to_string(), store.last_changed(&kind)))
                .collect(),
        )
    }

    fn fill(&self) {
        let store = self.server.store();
        let namespaces = GroupResource::named("", "namespaces");
        let ours = [rights::NAME, "istio-system", "istio-cni", "ztunnel"];
        let namespace = |name: &str, labels: Value| {
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": labels},
            })
        };
        for name in ours {
            store.put(&namespaces, namespace(name, json!({})));
        }
        for number in 0..self.size.namespaces {
            let mut labels = json!({"team": format!("team-{number}")});
            if self.is_ambient(number) {
                labels["istio.io/dataplane-mode"] = "ambient".into();
            }
            store.put(&namespaces, namespace(&format!("ns-{number}"), labels));
        }
        for number in 0..self.size.pods {
            self.enroll(number, self.is_ambient(number));
        }
    }

    /// Whether a pod, or a namespace, is in the mesh at first.
    fn is_ambient(&self, number: u32) -> bool {
        !(number % self.size.namespaces).is_multiple_of(5)
    }

    fn put_pod(&self, pod: Value) {
        let pods = GroupResource::named("", "pods");
        self.server.store().put(&pods, pod);
    }

    /// With as much about it as such a pod has in a cluster.
    fn pod(&self, number: u32, enrolled: bool) -> Value {
        let namespace = format!("ns-{}", number % self.size.namespaces);
        let service = format!("service-{number}");
        let fields = json!({"f:metadata": {
            "f:labels": {".": {}, "f:app": {}, "f:pod-template-hash": {}},
            "f:annotations": {".": {}, "f:kubernetes.io/config.source": {}},
            "f:ownerReferences": {".": {}, "k:{\"uid\":\"0\"}": {}},
        }});
        let manager = |name: &str| {
            json!({
                "manager": name, "operation": "Update", "apiVersion": "v1",
                "fieldsType": "FieldsV1", "fieldsV1": fields,
            })
        };
        let mut annotations = json!({"kubernetes.io/config.source": "api"});
        if enrolled {
            annotations[ENROLLED] = "enabled".into();
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{service}-6d5f8b7c9-x{number}"),
                "namespace": namespace,
                "uid": format!("00000000-0000-4000-8000-{number:012}"),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"app": service, "pod-template-hash": "6d5f8b7c9"},
                "annotations": annotations,
                "managedFields": [manager("kube-controller-manager"), manager("kubelet")],
            },
            "spec": {
                "nodeName": format!("node-{}", i64::from(number) % NODES),
                "containers": [{"name": "c", "image": "i"}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        })
    }
}

/// Reports the workload ready, unless that has been done.
fn roll(store: &Store, kind: &GroupResource, object: &Arc<Value>) {
    let generation = &object["metadata"]["generation"];
    if object["status"]["observedGeneration"] == *generation {
        return;
    }
    let mut rolled = Value::clone(object);
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
    rolled["status"] = json!({
        "observedGeneration": generation,
        "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": replicas, "availableReplicas": replicas,
        "desiredNumberScheduled": NODES, "currentNumberScheduled": NODES,
        "updatedNumberScheduled": NODES, "numberReady": NODES,
        "numberAvailable": NODES, "numberMisscheduled": 0,
    });
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let now = store.get(kind, text("namespace"), text("name"));
    // If it has changed since, there is news of it.
    if now.is_some_and(|now| Arc::ptr_eq(&now, object)) {
        store.put(kind, rolled);
    }
}

// === impl Versions ===

impl Versions {
    /// Takes note of a change that was our own.
    pub(crate) fn note<K: Resource<DynamicType = ()>>(&mut self, version: u64) {
        self.0.insert(K::plural(&()).into_owned(), version);
    }

    /// Kinds of objects that have changed.
    pub(crate) fn changed(&self, now: &Self) -> Vec<String> {
        let kinds = now.0.iter();
        let changed = kinds.filter(|(kind, version)| self.0.get(*kind) != Some(version));
        changed.map(|(kind, _)| kind.clone()).collect()
    }
}
