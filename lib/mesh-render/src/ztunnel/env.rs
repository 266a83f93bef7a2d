//! The proxy's environment, by the names that both our ztunnel and Istio's take.

use k8s_openapi::api::core::v1::EnvVar;
use mesh_api::sail::values::EnvValue;
use serde_json::Value;

use super::Proxy;
use crate::{
    Note,
    node::{self, first},
    pod::{
        Env,
        env::{self, source},
    },
};

/// Where the control plane is if nothing says so.
const ISTIO_NAMESPACE: &str = "istio-system";
/// The port of discovery and certificates, over TLS.
const CONTROL_PLANE_PORT: u16 = 15012;
/// The domain of the cluster's services if nothing else is said.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Where the variables are that the revision has for all proxies.
const METADATA: &str = "meshConfig.defaultConfig.proxyMetadata";
/// What the proxy knows of itself and of its node, and that it serves the pods of that node. With other
/// values it would ask for certificates that it does not get, or serve nobody.
const NEEDED: [&str; 6] = [
    "INPOD_ENABLED",
    "INSTANCE_IP",
    "NODE_NAME",
    "POD_NAME",
    "POD_NAMESPACE",
    "SERVICE_ACCOUNT",
];
/// Where lists of revoked certificates are mounted.
pub(super) const REVOCATIONS: &str = "/var/run/secrets/istio/crl";

impl Proxy<'_> {
    /// All variables. The user's win, but for those that the proxy needs.
    pub(super) fn env(&self) -> Vec<EnvVar> {
        let mut env = Env::default();
        self.control_plane(&mut env);
        self.process(&mut env);
        for (name, value) in self.metadata.iter().filter(|(name, _)| !is_needed(name)) {
            env.text(name, in_words(value));
        }
        self.threads(&mut env);
        // Istio's control plane speaks nothing newer in FIPS mode, before 1.31.
        if self.fips && !node::since(&self.of.version, 31) {
            env.text("TLS12_ENABLED", "true");
        }
        if self.reads_revocations() {
            env.text("CRL_PATH", format!("{REVOCATIONS}/ca-crl.pem"));
        }
        for (name, value) in self.values.env.iter().filter(|(name, _)| !is_needed(name)) {
            match value {
                EnvValue::Text(text) => env.text(name, text),
                EnvValue::From(from) => env.set(source(name, (**from).clone())),
            }
        }
        env.into_vec()
    }

    /// What the user's variables cannot change.
    pub(super) fn env_notes(&self) -> impl Iterator<Item = Note> {
        let sources = [
            ("ztunnel.env", self.values.env.keys().collect::<Vec<_>>()),
            (METADATA, self.metadata.keys().collect()),
        ];
        sources.into_iter().flat_map(|(path, names)| {
            let needed = names.into_iter().filter(|name| is_needed(name));
            needed.map(move |name| env::needed(format!("{path}.{name}")))
        })
    }

    fn control_plane(&self, env: &mut Env) {
        let (values, global) = (self.values, self.global);
        let namespace = first([
            values.istio_namespace.as_ref(),
            global.istio_namespace.as_ref(),
        ]);
        let host = self.of.suffixed("istiod");
        let namespace = namespace.unwrap_or(ISTIO_NAMESPACE);
        let own = format!("{host}.{namespace}.svc:{CONTROL_PLANE_PORT}");
        let ca = first([values.ca_address.as_ref(), global.ca_address.as_ref()]);
        let discovery = first([values.xds_address.as_ref()]);
        env.text("CA_ADDRESS", ca.unwrap_or(&own));
        env.text("XDS_ADDRESS", discovery.unwrap_or(&own));
        let network = first([values.network.as_ref(), global.network.as_ref()]);
        if let Some(network) = network {
            env.text("NETWORK", network);
        }
        let domain = first([global.proxy.cluster_domain.as_ref()]);
        if let Some(domain) = domain.filter(|domain| *domain != CLUSTER_DOMAIN) {
            env.text("CLUSTER_DOMAIN", domain);
        }
        let cluster = first([
            values.multi_cluster.cluster_name.as_ref(),
            global.multi_cluster.cluster_name.as_ref(),
        ]);
        env.text("ISTIO_META_CLUSTER_ID", cluster.unwrap_or("Kubernetes"));
    }

    fn process(&self, env: &mut Env) {
        let json = self.values.log_as_json.or(self.global.log_as_json);
        if json.unwrap_or_default() {
            env.text("LOG_FORMAT", "json");
        }
        let level = first([self.values.log_level.as_ref()]);
        env.text("RUST_LOG", level.unwrap_or("info"));
        env.text("RUST_BACKTRACE", "1");
        env.text("INPOD_ENABLED", "true");
        env.text("TERMINATION_GRACE_PERIOD_SECONDS", self.grace().to_string());
        env.field("POD_NAME", "metadata.name");
        env.field("POD_NAMESPACE", "metadata.namespace");
        env.field("NODE_NAME", "spec.nodeName");
        env.field("INSTANCE_IP", "status.podIP");
        env.field("SERVICE_ACCOUNT", "spec.serviceAccountName");
    }

    /// What the proxy takes the number of its threads from.
    fn threads(&self, env: &mut Env) {
        env.resource("ZTUNNEL_CPU_LIMIT", "limits.cpu");
        if !node::since(&self.of.version, 31) {
            return;
        }
        let resources = self.resources();
        let has = |quantities: Option<&std::collections::BTreeMap<_, _>>| {
            quantities.is_some_and(|quantities| quantities.contains_key("cpu"))
        };
        if has(resources.limits.as_ref()) {
            env.resource("ZTUNNEL_RESOURCE_CPU_LIMIT", "limits.cpu");
        }
        if has(resources.requests.as_ref()) {
            env.resource("ZTUNNEL_RESOURCE_CPU_REQUEST", "requests.cpu");
        }
    }
}

fn is_needed(variable: &str) -> bool {
    NEEDED.contains(&variable)
}

fn in_words(value: &Value) -> String {
    let text = value.as_str().map(str::to_owned);
    text.unwrap_or_else(|| value.to_string())
}
