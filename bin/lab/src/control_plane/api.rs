//! The cluster's API server, with what the cluster's own parts write to it: nodes and the state of pods as
//! the kubelets, service accounts and pods as a deployment's controllers, the CNI agent's objects as the
//! operator.

mod client;
mod objects;

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Pod},
};
use mesh_api::{
    annotations::{REDIRECTION, REDIRECTION_ENABLED},
    labels::DATAPLANE_MODE,
    sail::{IstioCNISpec, Values, version},
};
use mesh_core::workload::Workload;
use mesh_net::socket::{InPodSockets, SocketFactory as _, TcpOptions};
use mesh_render::{Platform, Settings, cni};
use serde_json::{Value, json};
use testkit_kube::{
    auth::User,
    server::{ApiServer, Options},
};
use testkit_net::Namespace;

pub(super) use self::client::Objects;
use super::{ProxyPod, ZTUNNEL};

/// The port of the API server on the fabric.
pub(crate) const API_PORT: u16 = 6443;

/// The namespace of the CNI agents.
pub(crate) const CNI: &str = "istio-cni";

/// The user at a terminal, to the API server.
pub(super) const USER: &str = "kubectl";

/// An API server in this process, which can be reached from the fabric.
#[derive(Debug)]
pub struct Api {
    pub(super) objects: Objects,
    server: ApiServer,
    host: IpAddr,
}

// === impl Api ===

impl Api {
    /// Starts it on an address of the fabric, with the CNI agent's objects.
    pub(super) async fn start(fabric: &Namespace, host: IpAddr) -> anyhow::Result<Self> {
        let options = Options {
            hosts: vec![host.to_string()],
            ..Options::default()
        };
        let server = ApiServer::start(options).await?;
        let sockets = InPodSockets {
            netns: fabric.handle().clone(),
            mark: None,
            reuse_port: false,
            tcp: TcpOptions::default(),
        };
        let listener = sockets.listen_tcp(SocketAddr::new(host, API_PORT));
        server.serve_also(listener.context("listen for clients of the API server")?)?;
        let objects = Objects::new(server.admin_client().await?);
        let agent = agent_objects()?;
        for text in [objects::NAMESPACES, objects::ZTUNNEL, &agent] {
            objects.apply(USER, text).await?;
        }
        Ok(Self {
            objects,
            server,
            host,
        })
    }

    /// Adds the kinds of the mesh.
    pub(super) fn install_crds(&self) -> anyhow::Result<()> {
        let crds = mesh_api::crds().into_iter();
        let all = crds.chain(mesh_api::gateway_stand_ins()).collect();
        Ok(self.server.install_crds(all)?)
    }

    /// Everything is allowed to its holder, from where this process is.
    pub(super) fn kubeconfig_of_admin(&self) -> anyhow::Result<String> {
        Ok(self.server.kubeconfig(&User::admin())?)
    }

    /// A service account's, from the fabric.
    pub(crate) async fn kubeconfig_of(
        &self,
        namespace: &str,
        account: &str,
    ) -> anyhow::Result<String> {
        let token = self.objects.token((namespace, account), None, None).await?;
        let url = format!("https://{}", SocketAddr::new(self.host, API_PORT));
        Ok(self.server.authority().kubeconfig_with_token(&url, &token))
    }

    /// The configuration of the CNI agent, as variables.
    pub(crate) async fn agent_config(&self) -> anyhow::Result<Vec<(String, String)>> {
        let there = |map: &Value| map["data"].is_object();
        let map = self.objects.until::<ConfigMap>(CNI, cni::CONFIG, there);
        let map = map.await?;
        let data = map["data"].as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(data.map(|(k, v)| (k.clone(), text(v))).collect())
    }

    /// Takes in a node.
    pub(crate) async fn add_node(&self, name: &str) -> anyhow::Result<()> {
        let node = objects::node(name);
        self.objects.create(&node).await?;
        self.objects.report(&node).await
    }

    /// Takes in the pod of a proxy that is to start, and says what its uid is.
    pub(crate) async fn admit(&self, proxy: &ProxyPod<'_>) -> anyhow::Result<String> {
        let pod = self.objects.create(&objects::proxy(proxy)).await?;
        let uid = pod.metadata.uid;
        uid.context("the API server gave the pod no uid")
    }

    /// A proxy's pod runs.
    pub(crate) async fn proxy_runs(&self, proxy: &ProxyPod<'_>) -> anyhow::Result<()> {
        self.objects.report(&objects::proxy(proxy)).await
    }

    /// A token of the proxies' account, for one of them.
    pub(super) async fn proxy_token(&self, pod: &str, uid: &str) -> anyhow::Result<String> {
        let account = (super::NAMESPACE, ZTUNNEL);
        let uid = Some(uid.to_owned());
        self.objects.token(account, Some(pod), uid).await
    }

    /// Takes in a pod that is to start, and says what its uid is.
    pub(crate) async fn place(&self, pod: &Workload) -> anyhow::Result<String> {
        self.objects.put(USER, objects::account(pod)).await?;
        let pod = self.objects.create(&objects::pod(pod)).await?;
        let uid = pod.metadata.uid;
        uid.context("the API server gave the pod no uid")
    }

    /// A pod runs, and has its addresses.
    pub(crate) async fn runs(&self, pod: &Workload) -> anyhow::Result<()> {
        self.objects.report(&objects::pod(pod)).await
    }

    /// Labels a pod as one of the mesh, or as one outside of it, whatever its namespace.
    pub(crate) async fn set_mode(&self, pod: &Workload, mode: &str) -> anyhow::Result<()> {
        let labels = json!({"metadata": {"labels": {DATAPLANE_MODE: mode}}});
        let (namespace, name) = (&pod.namespace, &pod.name);
        self.objects.merge::<Pod>(namespace, name, labels).await
    }

    /// Waits until the node's agent says that a pod is in the mesh, or that it is not.
    pub(crate) async fn until_enrolled(&self, pod: &Workload, is: bool) -> anyhow::Result<()> {
        let enrolled =
            |pod: &Value| pod["metadata"]["annotations"][REDIRECTION] == REDIRECTION_ENABLED;
        let (namespace, name) = (&pod.namespace, &pod.name);
        let waited = self
            .objects
            .until::<Pod>(namespace, name, |pod| enrolled(pod) == is);
        waited.await.map(drop)
    }

    /// Deletes the DaemonSet of the CNI agents, which then clean up when they end.
    pub(crate) async fn delete_agents(&self) -> anyhow::Result<()> {
        self.objects.delete::<DaemonSet>(CNI, cni::DAEMON_SET).await
    }

    /// Ends it.
    pub(super) async fn stop(&self) {
        self.server.stop().await;
    }
}

/// What the operator makes of the CNI agent.
fn agent_objects() -> anyhow::Result<String> {
    let release = version::resolve(version::default_version())?;
    let spec = IstioCNISpec {
        version: version::default_version().to_owned(),
        namespace: CNI.to_owned(),
        profile: Some("ambient".to_owned()),
        values: Values::new(),
    };
    let settings = Settings::released(release, Platform::default());
    Ok(cni::render(&spec, &settings)?.to_yaml())
}
