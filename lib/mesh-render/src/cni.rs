//! The CNI agent: the DaemonSet that puts pods in the mesh, its configuration and its rights.
//!
//! Names are Istio's and fixed: the plugin that the agent installs, and an agent that ends, look for the
//! DaemonSet and the pods by them.

use k8s_openapi::{
    api::core::v1::{ConfigMap, PodSpec, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use mesh_api::sail::{
    IstioCNISpec,
    values::{Cni, CniValues, Component, Global, Repair},
};
use serde_json::{Map, json};

use crate::{
    Distribution, Error, Note, Object, Rendered, Settings,
    image::{Image, Wanted},
    layers::Layers,
    meta::{Installation, Texts, texts},
    node::{self, first},
    object::{CONFIG_MAP, NETWORK_ATTACHMENT_DEFINITION, SERVICE_ACCOUNT},
    scc,
};

mod config;
mod daemon_set;
mod rights;

/// The name of the DaemonSet.
pub const DAEMON_SET: &str = "istio-cni-node";
/// The account of its pods, their role and their network attachment.
pub const ACCOUNT: &str = "istio-cni";
/// The ConfigMap whose entries are the agent's environment.
pub const CONFIG: &str = "istio-cni-config";
/// The SecurityContextConstraints of its pods on OpenShift.
pub const CONSTRAINTS: &str = "lateen-cni";
/// The quota that admits its pods.
const QUOTA: &str = "istio-cni-resource-quota";
/// Where pods of all namespaces find their network attachments.
pub const ATTACHMENT_NAMESPACE: &str = "default";

const REASONS: scc::Reasons = scc::Reasons {
    purpose: "Lets the mesh's CNI agent put pods in the mesh.",
    capabilities: daemon_set::CAPABILITIES,
    root: "the capabilities take effect for root alone, and the CNI folders belong to root",
    host_path: "the CNI plugin and its configuration are installed on the node, network namespaces of \
                pods are found in /proc and /var/run/netns, and pods are handed to ztunnel through a \
                socket",
    se_linux: "a confined process may neither change CNI folders nor enter the namespaces of pods",
};

/// The agent with all that is known of it.
struct Agent<'a> {
    of: Installation,
    values: &'a Cni,
    global: &'a Global,
    image: Image,
    openshift: bool,
}

/// The objects of the CNI agent.
pub fn render(spec: &IstioCNISpec, settings: &Settings) -> Result<Rendered, Error> {
    let layers = Layers {
        component: Component::Cni,
        defaults: json!({}),
        profile: spec.profile.as_deref().unwrap_or_default(),
        inherited: None,
        user: &spec.values,
    };
    let decoded = layers.read::<CniValues>(settings)?;
    let values = &decoded.values;
    let agent = Agent::new(spec, values, settings)?;
    let mut notes = decoded.notes;
    notes.extend(agent.repair_note());
    notes.extend(agent.dns_note());
    notes.extend(agent.env_notes());
    Ok(Rendered {
        objects: node::scoped(agent.objects(), values.global.resource_scope.as_deref()),
        notes,
    })
}

// === impl Agent ===

impl<'a> Agent<'a> {
    fn new(spec: &IstioCNISpec, values: &'a CniValues, settings: &Settings) -> Result<Self, Error> {
        let (cni, global) = (&values.cni, &values.global);
        let wanted = Wanted {
            image: cni.image.as_deref(),
            hub: first([cni.hub.as_ref(), global.hub.as_ref()]),
            tag: first([cni.tag.as_ref(), global.tag.as_ref()]),
            variant: first([cni.variant.as_ref(), global.variant.as_ref()]),
            distribution: global.distribution.as_deref(),
        };
        let (default, release) = (&settings.images.cni, &settings.release);
        let agent = Self {
            of: Installation {
                component: "cni",
                instance: ACCOUNT.to_owned(),
                version: release.clone(),
                revision: cni.revision.clone().unwrap_or_default(),
                namespace: spec.namespace.clone(),
            },
            values: cni,
            global,
            image: Image::choose(wanted, default, "install-cni", release)?,
            openshift: global.platform.as_deref() == Some("openshift"),
        };
        if agent.is_istio() || agent.ambient() {
            return Ok(agent);
        }
        Err(Error::Value {
            path: "cni.ambient.enabled".to_owned(),
            problem:
                "this distribution's agent does nothing else: leave it out, or use Istio's image"
                    .to_owned(),
        })
    }

    /// All objects, in the order of their application.
    fn objects(&self) -> Vec<Object> {
        let config = self.config_map();
        let (daemon_set, pod) = self.daemon_set(&config);
        let mut granted = self.constraints(&pod).into_iter().flatten();
        let constraints = granted.next();
        let mut objects: Vec<_> = constraints.into_iter().collect();
        objects.push(self.account());
        objects.extend(self.rights());
        objects.extend(granted);
        let quotas = &self.values.resource_quotas;
        objects.extend(node::quota(&self.of, QUOTA, quotas));
        objects.push(Object::new(CONFIG_MAP, &config));
        objects.extend(self.attachment());
        objects.extend(self.network_policy());
        objects.push(daemon_set);
        objects
    }

    /// Whether the agent is Istio's own, which needs and knows more.
    fn is_istio(&self) -> bool {
        self.image.distribution == Distribution::Istio
    }

    fn ambient(&self) -> bool {
        self.values.ambient.enabled.unwrap_or(true)
    }

    /// Whether pods whose sidecar could not start are looked after. Our own agent knows no sidecars.
    fn repairs(&self) -> bool {
        self.is_istio() && self.values.repair.enabled.unwrap_or(true)
    }

    fn repair_note(&self) -> Option<Note> {
        let wanted = self.values.repair != Repair::default();
        (wanted && !self.is_istio()).then(|| Note::WithoutEffect {
            path: "cni.repair".to_owned(),
            why: "this distribution's agent knows no sidecars that could need it",
        })
    }

    /// Somebody may run Istio's ztunnel beside our agent, which the values of a CNI agent do not tell.
    fn dns_note(&self) -> Option<Note> {
        let wanted = self.values.ambient.dns_capture.unwrap_or_default();
        (wanted && !self.is_istio()).then(|| Note::Caution {
            path: "cni.ambient.dnsCapture".to_owned(),
            what: "this distribution's ztunnel does not answer DNS yet, and pods of the mesh resolve no \
                   names with it: leave it out, unless the ztunnel is Istio's",
        })
    }

    fn is_multus(&self) -> bool {
        self.values.provider.as_deref() == Some("multus")
    }

    fn account(&self) -> Object {
        let account = ServiceAccount {
            metadata: self.of.meta(ACCOUNT),
            ..ServiceAccount::default()
        };
        Object::new(SERVICE_ACCOUNT, &account)
    }

    fn config_map(&self) -> ConfigMap {
        ConfigMap {
            metadata: self.of.meta(CONFIG),
            data: Some(self.config()),
            ..ConfigMap::default()
        }
    }

    fn constraints(&self, pod: &PodSpec) -> Option<[Object; 3]> {
        let granted = || scc::grant(&self.of, CONSTRAINTS, ACCOUNT, pod, &REASONS);
        self.openshift.then(granted)
    }

    /// Multus calls the plugin for pods that name this.
    fn attachment(&self) -> Option<Object> {
        let meta = ObjectMeta {
            namespace: Some(ATTACHMENT_NAMESPACE.to_owned()),
            ..self.of.meta(ACCOUNT)
        };
        let object = || Object::untyped(NETWORK_ATTACHMENT_DEFINITION, &meta, Map::new());
        self.is_multus().then(object)
    }

    fn network_policy(&self) -> Option<Object> {
        let wanted = self.global.network_policy.enabled.unwrap_or_default();
        let ports = [
            ("TCP", daemon_set::METRICS_PORT),
            ("TCP", daemon_set::READINESS_PORT),
        ];
        let name = self.of.suffixed(ACCOUNT);
        wanted.then(|| node::network_policy(&self.of, &name, selected(), &ports))
    }
}

/// What the DaemonSet knows its pods by.
fn selected() -> Texts {
    texts([("k8s-app", DAEMON_SET)])
}

#[cfg(test)]
mod tests;
