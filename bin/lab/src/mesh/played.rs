//! What only a mesh does whose control plane the lab plays.

use anyhow::Context as _;
use mesh_core::{policy::Authorization, service::Service, workload::Workload};
use mesh_xds::Change;

use super::{Cni, Mesh, Proxies, Site, dump};
use crate::control_plane::Played;

// === impl Mesh ===

impl Mesh<Played> {
    /// Builds two nodes, each with a proxy that knows all there is to know, under a control plane that says
    /// what it is told to say.
    pub async fn played(proxies: &Proxies, cni: &Cni) -> anyhow::Result<Self> {
        let site = Site::new()?;
        let address = site.topology.fabric_address(false);
        let played = Played::start(site.topology.fabric(), address).await?;
        Self::build(site, played, proxies, cni).await
    }

    /// Describes a pod anew; the change is published and not waited for, see [`Mesh::known`].
    pub fn describe(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Workload),
    ) -> anyhow::Result<()> {
        let pod = self.pods.get_mut(name).context("no such pod")?;
        change(&mut pod.workload);
        self.control_plane
            .publish([Change::Workload(pod.workload.clone())]);
        Ok(())
    }

    /// Publishes what is no pod of the lab; it is not waited for, see [`Mesh::known`].
    pub fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        self.control_plane.publish(changes);
    }

    /// From now on the certificate authority refuses a pod's identity to its node.
    pub fn refuse_certificates(&self, pod: &str) -> anyhow::Result<()> {
        let pod = self.pods.get(pod).context("no such pod")?;
        self.control_plane
            .displace(&pod.node, &pod.workload.identity()?);
        Ok(())
    }

    /// Ends the control plane as a crash would.
    pub fn stop_control_plane(&mut self) {
        self.control_plane.stop();
    }

    /// Starts the control plane again, with what it knew and what was published since.
    pub fn start_control_plane(&mut self) -> anyhow::Result<()> {
        self.control_plane.serve()
    }

    /// Puts a pod behind a service; the change is published and not waited for.
    pub fn put_behind(&mut self, pod: &str, service: &Service) -> anyhow::Result<()> {
        self.describe(pod, |pod| {
            pod.services.insert(service.key(), service.ports.clone());
        })
    }

    /// Publishes a service, and waits until both proxies have it.
    pub async fn add_service(&self, service: Service) -> anyhow::Result<()> {
        let key = service.key();
        self.control_plane.publish([Change::Service(service)]);
        self.known(&format!("service {key}"), |shown| {
            dump::has_service(shown, &key.hostname)
        })
        .await
    }

    /// Publishes a policy, and waits until both proxies have it.
    pub async fn add_policy(&self, policy: Authorization) -> anyhow::Result<()> {
        let (key, name) = (policy.key(), policy.name.clone());
        self.control_plane.publish([Change::Policy(policy)]);
        self.known(&format!("policy {key}"), |shown| {
            dump::has_policy(shown, &name)
        })
        .await
    }

    /// Withdraws a policy, and waits until both proxies have forgotten it.
    pub async fn remove_policy(&self, key: &str) -> anyhow::Result<()> {
        let (_namespace, name) = key.split_once('/').context("a policy's key has a slash")?;
        self.control_plane
            .publish([Change::RemovePolicy(key.into())]);
        self.known(&format!("end of policy {key}"), |shown| {
            !dump::has_policy(shown, name)
        })
        .await
    }
}
