//! Asks the API server what there is to know of the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Debug},
    path::PathBuf,
};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::ConfigMap,
    rbac::v1::PolicyRule,
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, ListParams, ObjectList, ObjectMeta, Request},
};
use mesh_api::openshift::{
    APIServer, CLUSTER, CONFIG_GROUP, ClusterVersion, Infrastructure, Network, OPERATOR_GROUP,
    SECURITY_GROUP, VERSION,
};
use mesh_kube::error::{Explained, Fault};
use mesh_render::rbac::{READ, named, rule};
use serde::{Deserialize, de::DeserializeOwned};

use super::facts::{Facts, Mark, Neighbour, Nodes, Role, Unread};
use crate::names::{MANAGED_BY, MANAGED_BY_SAIL, MANAGER, SAIL};

/// Where the kernel says whether it is in FIPS mode.
const FIPS: &str = "/proc/sys/crypto/fips_enabled";
/// The group of OpenShift Service Mesh 2.
const MAISTRA: &str = "maistra.io";
/// Nodes that are asked for at a time. A node is some ten thousand bytes.
const NODES: u32 = 100;
/// Programs of other meshes that are asked for of each kind; more are not named.
const NEIGHBOURS: u32 = 20;
/// Operators for our custom resources, by the label that Sail's and OpenShift Service Mesh's carry.
const OPERATORS: &str = "control-plane in (sail-operator,servicemesh-operator3)";

/// Asks the API server what there is to know of the cluster.
#[derive(Clone)]
pub struct Reader {
    client: Client,
    namespace: String,
    fips: PathBuf,
}

/// Why the cluster cannot be read at present. Ask again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server is not there, or overloaded.
    #[error("reading {what}")]
    Unavailable {
        /// What was asked for.
        what: &'static str,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What one question is about.
#[derive(Clone, Copy, Debug)]
struct Question {
    what: &'static str,
    unclear: &'static str,
    permission: &'static str,
}

/// A node, as far as it is looked at.
#[derive(Clone, Debug, Deserialize)]
struct Node {
    metadata: ObjectMeta,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeStatus {
    node_info: NodeInfo,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeInfo {
    architecture: String,
    os_image: String,
    container_runtime_version: String,
}

const DISCOVERY: Question = Question {
    what: "the API groups and the version of the cluster",
    unclear: "what kind of cluster this is",
    permission: "get /apis, /version",
};
const NODE_LIST: Question = Question {
    what: "the nodes",
    unclear: "which folders their CNI plugins are in",
    permission: "list nodes",
};
const NETWORK: Question = Question {
    what: "the network settings of OpenShift",
    unclear: "whether the kubelet's probes reach pods in the mesh",
    permission: "get networks.operator.openshift.io",
};
const API_SERVER: Question = Question {
    what: "the TLS profile of OpenShift",
    unclear: "which versions and ciphers of TLS are allowed",
    permission: "get apiservers.config.openshift.io",
};
const CLUSTER_VERSION: Question = Question {
    what: "the version of OpenShift",
    unclear: "whether it is supported",
    permission: "get clusterversions.config.openshift.io",
};
const INFRASTRUCTURE: Question = Question {
    what: "the shape of OpenShift",
    unclear: "whether its control plane is hosted elsewhere",
    permission: "get infrastructures.config.openshift.io",
};
const MICROSHIFT: Question = Question {
    what: "the ConfigMap microshift-version in kube-public",
    unclear: "whether this is MicroShift",
    permission: "get configmaps",
};
const CILIUM: Question = Question {
    what: "the ConfigMap cilium-config in kube-system",
    unclear: "whether Cilium leaves room for the mesh",
    permission: "get configmaps",
};
const PROGRAMS: Question = Question {
    what: "the Deployments and DaemonSets of the cluster",
    unclear: "whether another mesh is installed",
    permission: "list deployments.apps, daemonsets.apps",
};
const SERVICE_MESH_2: Question = Question {
    what: "the control planes of OpenShift Service Mesh 2",
    unclear: "whether it is in use",
    permission: "list servicemeshcontrolplanes.maistra.io",
};

/// What the operator has to be allowed for this.
pub fn rights() -> Vec<PolicyRule> {
    vec![
        rule("", &["nodes"], &["list"]),
        named(
            "",
            "configmaps",
            &["microshift-version", "cilium-config"],
            &["get"],
        ),
        rule("apps", &["deployments", "daemonsets"], &["list"]),
        named(CONFIG_GROUP, "apiservers", &[CLUSTER], READ),
        named(CONFIG_GROUP, "clusterversions", &[VERSION], &["get"]),
        named(CONFIG_GROUP, "infrastructures", &[CLUSTER], &["get"]),
        named(OPERATOR_GROUP, "networks", &[CLUSTER], READ),
        rule(MAISTRA, &["servicemeshcontrolplanes"], &["list"]),
    ]
}

// === impl Reader ===

impl Reader {
    /// A reader for an operator that runs in `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            fips: FIPS.into(),
        }
    }

    /// Takes the kernel's FIPS mode from another file.
    #[must_use]
    pub fn with_fips_from(mut self, file: impl Into<PathBuf>) -> Self {
        self.fips = file.into();
        self
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Everything. What is not there is no error, and neither is what is denied or makes no sense.
    pub async fn read(&self) -> Result<Facts, Error> {
        let mut facts = Facts {
            fips: self.fips(),
            ..Facts::default()
        };
        self.discover(&mut facts).await?;
        self.nodes(&mut facts).await?;
        self.openshift(&mut facts).await?;
        self.config_maps(&mut facts).await?;
        self.neighbours(&mut facts).await?;
        Ok(facts)
    }

    /// A kernel without the file has no FIPS mode.
    fn fips(&self) -> bool {
        let text = std::fs::read_to_string(&self.fips).unwrap_or_default();
        text.trim() == "1"
    }

    async fn discover(&self, facts: &mut Facts) -> Result<(), Error> {
        let groups = self.client.list_api_groups().await;
        if let Some(groups) = answer(facts, DISCOVERY, groups)? {
            let names = groups.groups.into_iter().map(|group| group.name);
            facts.groups = names.collect();
        }
        let version = self.client.apiserver_version().await;
        if let Some(version) = answer(facts, DISCOVERY, version)? {
            facts.kubernetes = version.git_version;
        }
        Ok(())
    }

    async fn nodes(&self, facts: &mut Facts) -> Result<(), Error> {
        let mut page = ListParams::default().limit(NODES);
        loop {
            let request = Request::new("/api/v1/nodes").list(&page);
            let nodes = match request.map_err(kube::Error::BuildRequest) {
                Ok(request) => self.client.request::<ObjectList<Node>>(request).await,
                Err(error) => Err(error),
            };
            let Some(nodes) = answer(facts, NODE_LIST, nodes)? else {
                return Ok(());
            };
            for node in nodes.items {
                facts.nodes.add(node);
            }
            match nodes.metadata.continue_ {
                Some(next) if !next.is_empty() => page = page.continue_token(&next),
                _ => return Ok(()),
            }
        }
    }

    async fn openshift(&self, facts: &mut Facts) -> Result<(), Error> {
        if facts.groups.contains(OPERATOR_GROUP) {
            let network = self.one::<Network>(facts, NETWORK, CLUSTER).await?;
            facts.network = network.map(|network| network.spec);
        }
        if facts.groups.contains(CONFIG_GROUP) {
            let server = self.one::<APIServer>(facts, API_SERVER, CLUSTER).await?;
            facts.api_server = server.map(|server| server.spec);
            let version = self.one::<ClusterVersion>(facts, CLUSTER_VERSION, VERSION);
            let version = version.await?.and_then(|version| version.status);
            let version = version.map(|status| status.desired.version);
            facts.openshift = version.filter(|version| !version.is_empty());
            let shape = self.one::<Infrastructure>(facts, INFRASTRUCTURE, CLUSTER);
            let status = shape.await?.and_then(|shape| shape.status);
            facts.topology = status.unwrap_or_default().control_plane_topology;
        }
        Ok(())
    }

    /// The one object of this name of a kind of the cluster.
    async fn one<K>(
        &self,
        facts: &mut Facts,
        question: Question,
        name: &str,
    ) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let found = Api::<K>::all(self.client.clone()).get_opt(name).await;
        Ok(answer(facts, question, found)?.flatten())
    }

    async fn config_maps(&self, facts: &mut Facts) -> Result<(), Error> {
        // MicroShift has OpenShift's constraints and none of its settings.
        let maybe = facts.groups.contains(SECURITY_GROUP) && !facts.groups.contains(CONFIG_GROUP);
        if maybe {
            let name = "microshift-version";
            let found = self.config_map(facts, MICROSHIFT, "kube-public", name);
            let found = found.await?;
            facts.microshift = found.map(|mut data| data.remove("version").unwrap_or_default());
        }
        facts.cilium = self
            .config_map(facts, CILIUM, "kube-system", "cilium-config")
            .await?;
        Ok(())
    }

    async fn config_map(
        &self,
        facts: &mut Facts,
        question: Question,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, Error> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let found = answer(facts, question, api.get_opt(name).await)?.flatten();
        Ok(found.map(|map| map.data.unwrap_or_default()))
    }

    async fn neighbours(&self, facts: &mut Facts) -> Result<(), Error> {
        let deployments = Api::<Deployment>::all(self.client.clone());
        let daemon_sets = Api::<DaemonSet>::all(self.client.clone());
        let mut all = BTreeSet::new();
        for (role, labels) in [
            (Role::Operator, OPERATORS),
            (Role::ControlPlane, "app=istiod"),
        ] {
            let found = deployments.list_metadata(&selected(labels)).await;
            let found = answer(facts, PROGRAMS, found)?;
            all.extend(self.foreign(
                role,
                found.into_iter().flatten().map(|found| found.metadata),
            ));
        }
        for (role, labels) in [
            (Role::Agent, "k8s-app=istio-cni-node"),
            (Role::Proxy, "app=ztunnel"),
        ] {
            let found = daemon_sets.list_metadata(&selected(labels)).await;
            let found = answer(facts, PROGRAMS, found)?;
            all.extend(self.foreign(
                role,
                found.into_iter().flatten().map(|found| found.metadata),
            ));
        }
        if facts.groups.contains(MAISTRA) {
            let kind = service_mesh_2();
            let api = Api::<DynamicObject>::all_with(self.client.clone(), &kind);
            let found = api.list_metadata(&selected("")).await;
            let found = answer(facts, SERVICE_MESH_2, found)?;
            let found = found.into_iter().flatten().map(|found| found.metadata);
            all.extend(self.foreign(Role::ServiceMesh2, found));
        }
        facts.neighbours = all.into_iter().collect();
        Ok(())
    }

    /// Those that others have made and that get in the way.
    fn foreign(
        &self,
        role: Role,
        found: impl Iterator<Item = ObjectMeta>,
    ) -> impl Iterator<Item = Neighbour> {
        found.filter_map(move |meta| {
            let namespace = meta.namespace.clone().unwrap_or_default();
            let label = |name: &str| meta.labels.as_ref()?.get(name).map(String::as_str);
            let ours = label(MANAGED_BY) == Some(MANAGER);
            // The operator's own Deployment may be labelled as Sail's is.
            let itself = role == Role::Operator && namespace == self.namespace;
            // OpenShift's ingress operator keeps a control plane for gateways alone.
            let gateways = label(MANAGED_BY_SAIL) == Some("sail-library");
            (!ours && !itself && !gateways).then(|| Neighbour {
                role,
                namespace,
                name: meta.name.clone().unwrap_or_default(),
                maker: maker(&meta),
            })
        })
    }
}

impl Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("namespace", &self.namespace)
            .field("fips", &self.fips)
            .finish_non_exhaustive()
    }
}

/// Who made an object, as far as it tells.
fn maker(meta: &ObjectMeta) -> Option<&'static str> {
    let label = |name: &str| meta.labels.as_ref()?.get(name).map(String::as_str);
    if label(MANAGED_BY_SAIL) == Some(SAIL) {
        return Some("the Sail operator");
    }
    if label(MANAGED_BY) == Some("Helm") {
        return Some("Helm");
    }
    label("install.operator.istio.io/owning-resource").map(|_| "istioctl")
}

fn selected(labels: &str) -> ListParams {
    ListParams::default().labels(labels).limit(NEIGHBOURS)
}

fn service_mesh_2() -> ApiResource {
    ApiResource {
        group: MAISTRA.to_owned(),
        version: "v2".to_owned(),
        api_version: format!("{MAISTRA}/v2"),
        kind: "ServiceMeshControlPlane".to_owned(),
        plural: "servicemeshcontrolplanes".to_owned(),
    }
}

/// What was answered; `None` if there is nothing, or if the answer is of no use, which is noted once.
fn answer<T>(
    facts: &mut Facts,
    question: Question,
    result: Result<T, kube::Error>,
) -> Result<Option<T>, Error> {
    let error = match result {
        Ok(found) => return Ok(Some(found)),
        Err(error) => error,
    };
    let permission = match Fault::of(&error) {
        Fault::Missing => return Ok(None),
        Fault::Denied => Some(question.permission),
        Fault::Invalid | Fault::Protocol => None,
        _ => {
            return Err(Error::Unavailable {
                what: question.what,
                source: Box::new(error),
            });
        }
    };
    let known = facts
        .unread
        .iter()
        .any(|unread| unread.what == question.what);
    if !known {
        facts.unread.push(Unread {
            what: question.what,
            unclear: question.unclear,
            permission,
            why: Explained(&error).to_string(),
        });
    }
    Ok(None)
}

// === impl Nodes ===

impl Nodes {
    fn add(&mut self, node: Node) {
        let labels = node.metadata.labels.unwrap_or_default();
        // No program of the mesh runs on Windows.
        if labels
            .get("kubernetes.io/os")
            .is_some_and(|os| os != "linux")
        {
            return;
        }
        let info = node.status.node_info;
        let properties = [
            (&mut self.architectures, info.architecture),
            (&mut self.operating_systems, info.os_image),
            (&mut self.runtimes, info.container_runtime_version),
        ];
        for (all, property) in properties {
            if !property.is_empty() {
                all.insert(property);
            }
        }
        let name = node.metadata.name.unwrap_or_default();
        let marks = [
            (Mark::Minikube, labels.contains_key("minikube.k8s.io/name")),
            (Mark::Microk8s, labels.contains_key("microk8s.io/cluster")),
            (Mark::K3d, name.starts_with("k3d-")),
        ];
        let set = marks.into_iter().filter(|(_, set)| *set);
        self.marks.extend(set.map(|(mark, _)| mark));
    }
}
