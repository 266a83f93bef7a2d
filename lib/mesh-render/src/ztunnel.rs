//! The node proxy: its DaemonSet, and on OpenShift the leave to run it.
//!
//! It takes settings from two sides: its own resource, and the control plane that the resource refers to.
//! The resource wins.

use k8s_openapi::api::core::v1::{PodSpec, ServiceAccount};
use mesh_api::sail::{
    Values, ZTunnelSpec,
    values::{Component, Global, ZtunnelChart, ZtunnelValues},
};
use serde_json::{Map, Value, json};

use crate::{
    Distribution, Error, Note, Object, Rendered, Settings,
    image::{Image, Wanted},
    layers::Layers,
    meta::{Installation, Texts, texts},
    node::{self, first},
    object::SERVICE_ACCOUNT,
    scc,
};

mod daemon_set;
mod env;

/// The account of its pods, which the control plane trusts with the certificates of others, and the name
/// of the DaemonSet unless `values.ztunnel.resourceName` says otherwise.
pub const NAME: &str = "ztunnel";
/// The SecurityContextConstraints of its pods on OpenShift.
pub const CONSTRAINTS: &str = "lateen-ztunnel";

/// The profile of every ztunnel: there is none without the ambient mesh.
const PROFILE: &str = "ambient";

/// Ports of the node proxy that others connect to: readiness, metrics, admin, HBONE, outbound, plaintext
/// inbound and DNS.
const PORTS: [(&str, i32); 8] = [
    ("TCP", 15021),
    ("TCP", 15020),
    ("TCP", 15000),
    ("TCP", 15008),
    ("TCP", 15001),
    ("TCP", 15006),
    ("TCP", 15053),
    ("UDP", 15053),
];

const REASONS: scc::Reasons = scc::Reasons {
    purpose: "Lets the mesh's node proxy carry the traffic of pods.",
    capabilities: daemon_set::CAPABILITIES,
    root: "the capabilities take effect for root alone",
    host_path: "the CNI agent hands it pods through a socket in /var/run/ztunnel",
    se_linux: "a confined process may not enter the network namespaces of pods",
};

/// The node proxy with all that is known of it.
struct Proxy<'a> {
    of: Installation,
    values: &'a ZtunnelChart,
    global: &'a Global,
    /// `meshConfig.defaultConfig.proxyMetadata`.
    metadata: &'a Map<String, Value>,
    image: Image,
    openshift: bool,
    fips: bool,
}

/// The objects of the node proxy. `base` has the values of the revision that the resource refers to:
/// `meshConfig`, `revision` and `global`.
pub fn render(
    spec: &ZTunnelSpec,
    base: Option<&Values>,
    settings: &Settings,
) -> Result<Rendered, Error> {
    let layers = Layers {
        component: Component::Ztunnel,
        defaults: json!({}),
        profile: PROFILE,
        inherited: base,
        user: &spec.values,
    };
    let decoded = layers.read::<ZtunnelValues>(settings)?;
    let values = &decoded.values;
    let none = Map::new();
    let metadata = values.mesh_config.get("defaultConfig");
    let metadata = metadata.and_then(|config| config.get("proxyMetadata")?.as_object());
    let proxy = Proxy::new(spec, values, metadata.unwrap_or(&none), settings)?;
    let mut notes = decoded.notes;
    notes.extend(proxy.notes());
    notes.extend(proxy.env_notes());
    Ok(Rendered {
        objects: node::scoped(proxy.objects(), values.global.resource_scope.as_deref()),
        notes,
    })
}

// === impl Proxy ===

impl<'a> Proxy<'a> {
    fn new(
        spec: &ZTunnelSpec,
        values: &'a ZtunnelValues,
        metadata: &'a Map<String, Value>,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let (ztunnel, global) = (&values.ztunnel, &values.global);
        let revision = first([
            ztunnel.revision.as_ref(),
            values.revision.as_ref(),
            global.revision.as_ref(),
        ]);
        let wanted = Wanted {
            image: ztunnel.image.as_deref(),
            hub: first([ztunnel.hub.as_ref(), global.hub.as_ref()]),
            tag: first([ztunnel.tag.as_ref(), global.tag.as_ref()]),
            variant: first([ztunnel.variant.as_ref(), global.variant.as_ref()]),
            distribution: global.distribution.as_deref(),
        };
        let (default, release) = (&settings.images.ztunnel, &settings.release);
        let proxy = Self {
            of: Installation {
                component: "ztunnel",
                instance: NAME.to_owned(),
                version: release.clone(),
                revision: revision.unwrap_or_default().to_owned(),
                namespace: spec.namespace.clone(),
            },
            values: ztunnel,
            global,
            metadata,
            image: Image::choose(wanted, default, NAME, release)?,
            openshift: global.platform.as_deref() == Some("openshift"),
            fips: settings.platform.fips,
        };
        if proxy.reads_revocations() && !proxy.is_istio() {
            return Err(Error::Value {
                path: "ztunnel.peerCaCrl.enabled".to_owned(),
                problem:
                    "this distribution's ztunnel does not check lists of revoked certificates \
                          yet: leave it out, or use Istio's image"
                        .to_owned(),
            });
        }
        Ok(proxy)
    }

    /// All objects, in the order of their application.
    fn objects(&self) -> Vec<Object> {
        let (daemon_set, pod) = self.daemon_set();
        let policy = self.global.network_policy.enabled.unwrap_or_default();
        let policy = policy.then(|| {
            let name = self.of.suffixed(self.name());
            node::network_policy(&self.of, &name, selected(), &PORTS)
        });
        let mut granted = self.constraints(&pod).into_iter().flatten();
        let constraints = granted.next();
        let mut objects: Vec<_> = constraints.into_iter().collect();
        objects.push(self.account());
        objects.extend(granted);
        let quotas = &self.values.resource_quotas;
        objects.extend(node::quota(&self.of, self.name(), quotas));
        objects.extend(policy);
        objects.push(daemon_set);
        objects
            .into_iter()
            .map(|object| self.marked(object))
            .collect()
    }

    /// What is asked for and cannot be had of this release.
    fn notes(&self) -> Vec<Note> {
        let given = [
            ("ztunnel.dnsPolicy", self.values.dns_policy.is_some()),
            ("ztunnel.dnsConfig", self.values.dns_config.is_some()),
        ];
        let late = !self.has_dns_settings();
        let given = given.into_iter().filter(|(_, given)| *given && late);
        given
            .map(|(path, _)| Note::WithoutEffect {
                path: path.to_owned(),
                why: "releases before 1.30 do not have it",
            })
            .collect()
    }

    fn is_istio(&self) -> bool {
        self.image.distribution == Distribution::Istio
    }

    fn has_dns_settings(&self) -> bool {
        node::since(&self.of.version, 30)
    }

    fn reads_revocations(&self) -> bool {
        self.values.peer_ca_crl.enabled.unwrap_or_default()
    }

    fn name(&self) -> &str {
        first([self.values.resource_name.as_ref()]).unwrap_or(NAME)
    }

    /// How long the proxy goes on with open connections, in seconds.
    fn grace(&self) -> i64 {
        self.values.termination_grace_period_seconds.unwrap_or(30)
    }

    fn account(&self) -> Object {
        let account = ServiceAccount {
            metadata: self.of.meta(NAME),
            ..ServiceAccount::default()
        };
        Object::new(SERVICE_ACCOUNT, &account)
    }

    fn constraints(&self, pod: &PodSpec) -> Option<[Object; 3]> {
        let granted = || scc::grant(&self.of, CONSTRAINTS, NAME, pod, &REASONS);
        self.openshift.then(granted)
    }

    /// The object with the labels and annotations that the values have for all of them.
    fn marked(&self, mut object: Object) -> Object {
        let more = [
            ("labels", &self.values.labels),
            ("annotations", &self.values.annotations),
        ];
        for (field, more) in more.into_iter().filter(|(_, more)| !more.is_empty()) {
            let texts = object.body["metadata"][field].as_object().cloned();
            let mut texts = texts.unwrap_or_default();
            texts.extend(more.iter().map(|(key, value)| (key.clone(), json!(value))));
            object.body["metadata"][field] = Value::Object(texts);
        }
        object
    }
}

/// What the DaemonSet knows its pods by.
fn selected() -> Texts {
    texts([("app", NAME)])
}

#[cfg(test)]
mod tests;
