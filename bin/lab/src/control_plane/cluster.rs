//! A cluster as its API server shows it, with istiod for a control plane.
//!
//! The lab writes what the cluster's own parts would write: nodes and the state of pods as the kubelets,
//! service accounts and pods as a deployment's controllers, the annotation of enrolment as the CNI agent.
//! Everything else is applied by its user.

mod client;
mod objects;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::Resource;
use mesh_api::{
    annotations::{REDIRECTION, REDIRECTION_ENABLED},
    sail::{Values, version},
};
use mesh_core::workload::{TunnelProtocol, Workload};
use mesh_net::{
    netns::NetNs,
    socket::{InPodSockets, SocketFactory as _, TcpOptions},
};
use mesh_render::{
    Platform, Settings,
    istiod::{self, Revision},
    object::RIGHTS,
};
use serde_json::{Value, json};
use testkit_kube::{
    auth::User,
    server::{ApiServer, Options},
};

use self::client::Objects;
use super::{ControlPlane, Credentials, Istiod, NAMESPACE, PORT, ProxyPod, ZTUNNEL};
use crate::{mesh::Site, program::Program};

/// The port of the API server on the fabric.
pub(crate) const API_PORT: u16 = 6443;

/// The ConfigMap in each namespace that has the roots of the mesh.
const ROOTS: (&str, &str) = ("istio-ca-root-cert", "root-cert.pem");

/// The user at a terminal, to the API server.
const USER: &str = "kubectl";

/// An API server in this process, and istiod on the fabric.
#[derive(Debug)]
pub struct Cluster {
    // Goes before what it talks to: fields are dropped in this order.
    istiod: Istiod,
    objects: Objects,
    server: ApiServer,
    address: SocketAddr,
}

/// What the operator grants to the control plane, and nothing else.
fn rights() -> anyhow::Result<String> {
    let release = version::resolve(version::default_version())?;
    let revision = Revision {
        name: "default",
        namespace: NAMESPACE,
        values: &Values::new(),
    };
    let settings = Settings::released(release, Platform::default());
    let rendered = istiod::control_plane(revision, &settings)?;
    Ok(rendered.only(RIGHTS).to_yaml())
}

// === impl Cluster ===

impl Cluster {
    /// Starts both. The API server can be reached from the fabric, and from where this process is.
    pub(crate) async fn start(site: &Site, program: &Program) -> anyhow::Result<Self> {
        let fabric = site.topology.fabric();
        let host = site.topology.fabric_address(false);
        let server = serve(fabric.handle().clone(), host).await?;
        let everything = server.kubeconfig(&User::admin())?;
        fs::write(site.dir.path().join("kubeconfig"), everything)?;
        let objects = Objects::new(server.admin_client().await?);
        let rights = rights()?;
        for text in [objects::NAMESPACES, &rights, objects::ZTUNNEL] {
            objects.apply(USER, text).await?;
        }
        let dir = site.dir.path().join("istiod");
        fs::create_dir(&dir)?;
        let token = objects.token("istiod", None, None).await?;
        let url = format!("https://{}", SocketAddr::new(host, API_PORT));
        let kubeconfig = server.authority().kubeconfig_with_token(&url, &token);
        fs::write(Istiod::kubeconfig(&dir), kubeconfig)?;
        let address = SocketAddr::new(host, PORT);
        let istiod = Istiod::start(program, fabric.handle(), address, &dir).await?;
        Ok(Self {
            istiod,
            objects,
            server,
            address,
        })
    }

    /// The control plane's process.
    pub fn istiod(&self) -> &Istiod {
        &self.istiod
    }

    /// The control plane's process, to end and to restart it.
    pub fn istiod_mut(&mut self) -> &mut Istiod {
        &mut self.istiod
    }

    /// Applies objects, written as YAML, as a user does.
    pub async fn apply(&self, text: &str) -> anyhow::Result<()> {
        self.objects.apply(USER, text).await
    }

    /// Deletes an object. One without a namespace has an empty one.
    pub async fn delete<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<()> {
        self.objects.delete::<K>(namespace, name).await
    }

    /// Sets a label of a namespace, or removes it.
    pub async fn label_namespace(
        &self,
        name: &str,
        label: &str,
        value: Option<&str>,
    ) -> anyhow::Result<()> {
        let labels = json!({"metadata": {"labels": {label: value}}});
        self.objects.merge::<Namespace>("", name, labels).await
    }

    /// Waits until an object satisfies a condition, and returns it.
    pub async fn until<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        self.objects.until::<K>(namespace, name, condition).await
    }
}

impl ControlPlane for Cluster {
    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    async fn add_node(&self, name: &str) -> anyhow::Result<()> {
        self.objects.report(&objects::node(name)).await?;
        Ok(())
    }

    async fn admit(&self, proxy: &ProxyPod<'_>) -> anyhow::Result<Credentials> {
        let pod = self.objects.report(&objects::proxy(proxy)).await?;
        let uid = pod.metadata.uid;
        let token = self.objects.token(ZTUNNEL, Some(proxy.name), uid).await?;
        let (name, key) = ROOTS;
        let told = |map: &Value| map["data"][key].is_string();
        let map = self
            .objects
            .until::<ConfigMap>(NAMESPACE, name, told)
            .await?;
        let roots = map["data"][key].as_str().unwrap_or_default().to_owned();
        Ok(Credentials { token, roots })
    }

    async fn place(&self, pod: &Workload) -> anyhow::Result<Arc<str>> {
        self.objects.put(USER, objects::account(pod)).await?;
        let pod = self.objects.report(&objects::pod(pod)).await?;
        let uid = pod
            .metadata
            .uid
            .context("the API server gave the pod no uid")?;
        Ok(uid.into())
    }

    async fn announce(&self, pod: &Workload) -> anyhow::Result<()> {
        let enrolled = pod.protocol == TunnelProtocol::Hbone;
        let enabled = enrolled.then_some(REDIRECTION_ENABLED);
        let patch = json!({"metadata": {"annotations": {REDIRECTION: enabled}}});
        let (namespace, name) = (&pod.namespace, &pod.name);
        self.objects.merge::<Pod>(namespace, name, patch).await
    }

    fn log(&self) -> String {
        self.istiod.log()
    }

    async fn end(mut self) -> Vec<anyhow::Error> {
        let ended = self.istiod.terminate().await;
        self.server.stop().await;
        ended.err().into_iter().collect()
    }
}

/// An API server that listens on the fabric too, with the kinds of the mesh.
async fn serve(netns: Arc<NetNs>, host: IpAddr) -> anyhow::Result<ApiServer> {
    let options = Options {
        hosts: vec![host.to_string()],
        ..Options::default()
    };
    let server = ApiServer::start(options).await?;
    let sockets = InPodSockets {
        netns,
        mark: None,
        reuse_port: false,
        tcp: TcpOptions::default(),
    };
    let listener = sockets.listen_tcp(SocketAddr::new(host, API_PORT));
    server.serve_also(listener.context("listen for clients of the API server")?)?;
    let crds = mesh_api::crds().into_iter();
    server.install_crds(crds.chain(mesh_api::gateway_stand_ins()).collect())?;
    Ok(server)
}
