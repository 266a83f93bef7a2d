//! A cluster as its API server shows it, with istiod for a control plane.

use std::{fs, net::SocketAddr};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Resource;
use mesh_api::sail::{Values, version};
use mesh_core::workload::Workload;
use mesh_render::{
    Platform, Settings,
    istiod::{self, Revision},
    object::RIGHTS,
};
use serde_json::{Value, json};

use super::{
    ControlPlane, Credentials, Istiod, NAMESPACE, PORT, ProxyPod,
    api::{Api, USER},
};
use crate::{mesh::Site, program::Program};

/// The ConfigMap in each namespace that has the roots of the mesh.
const ROOTS: (&str, &str) = ("istio-ca-root-cert", "root-cert.pem");

/// An API server in this process, and istiod on the fabric.
#[derive(Debug)]
pub struct Cluster {
    // Goes before what it talks to: fields are dropped in this order.
    istiod: Istiod,
    api: Api,
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
        let api = Api::start(fabric, host).await?;
        api.install_crds()?;
        fs::write(
            site.dir.path().join("kubeconfig"),
            api.kubeconfig_of_admin()?,
        )?;
        api.objects.apply(USER, &rights()?).await?;
        let dir = site.dir.path().join("istiod");
        fs::create_dir(&dir)?;
        let kubeconfig = api.kubeconfig_of(NAMESPACE, "istiod").await?;
        fs::write(Istiod::kubeconfig(&dir), kubeconfig)?;
        let address = SocketAddr::new(host, PORT);
        let istiod = Istiod::start(program, fabric.handle(), address, &dir).await?;
        Ok(Self {
            istiod,
            api,
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
        self.api.objects.apply(USER, text).await
    }

    /// Deletes an object. One without a namespace has an empty one.
    pub async fn delete<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<()> {
        self.api.objects.delete::<K>(namespace, name).await
    }

    /// Sets a label of a namespace, or removes it.
    pub async fn label_namespace(
        &self,
        name: &str,
        label: &str,
        value: Option<&str>,
    ) -> anyhow::Result<()> {
        let labels = json!({"metadata": {"labels": {label: value}}});
        self.api.objects.merge::<Namespace>("", name, labels).await
    }

    /// Waits until an object satisfies a condition, and returns it.
    pub async fn until<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        self.api
            .objects
            .until::<K>(namespace, name, condition)
            .await
    }
}

impl ControlPlane for Cluster {
    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn api(&self) -> &Api {
        &self.api
    }

    async fn admit(&self, proxy: &ProxyPod<'_>, uid: &str) -> anyhow::Result<Credentials> {
        let token = self.api.proxy_token(proxy.name, uid).await?;
        let (name, key) = ROOTS;
        let told = |map: &Value| map["data"][key].is_string();
        let objects = &self.api.objects;
        let map = objects.until::<ConfigMap>(NAMESPACE, name, told).await?;
        let roots = map["data"][key].as_str().unwrap_or_default().to_owned();
        Ok(Credentials { token, roots })
    }

    /// istiod sees what is placed in the API server.
    async fn place(&self, _pod: &Workload) -> anyhow::Result<()> {
        Ok(())
    }

    /// istiod sees what the agent says of a pod.
    async fn announce(&self, _pod: &Workload) -> anyhow::Result<()> {
        Ok(())
    }

    fn log(&self) -> String {
        self.istiod.log()
    }

    async fn end(mut self) -> Vec<anyhow::Error> {
        let ended = self.istiod.terminate().await;
        self.api.stop().await;
        ended.err().into_iter().collect()
    }
}
