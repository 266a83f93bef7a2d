//! Values that Istio has and that have no effect here, each with the reason.

use super::Component;

const SIDECARS: &str = "there are no sidecars in an ambient mesh";
const WAYPOINTS: &str = "waypoints are not deployed by this version";
const GATEWAYS: &str = "gateways are not deployed by this version";
const NO_WEBHOOKS: &str =
    "configuration is validated by the schemas of its CRDs; there is no webhook";
const BASE: &str = "the CRDs come with the operator, and there is no webhook";
const OPERATOR: &str = "the operator sets it itself";
const LONG_GONE: &str = "it has no effect in supported releases of Istio either";
const MESH_CONFIG: &str = "it configures sidecars and gateways, which there are none of";
const PROXIES: &str = "it configures Envoy proxies, which there are none of";
const REMOTE: &str = "a control plane outside of the cluster is not supported";
const SPELT_ANEW: &str = "it is an old spelling: use `resourceQuotas`";
const UPDATE: &str = "it is an old spelling: use `updateStrategy`";

/// Paths and all below them. Later entries do not matter once one fits, so what is more special stands first.
const ISTIO: &[(&str, &str)] = &[
    ("base", BASE),
    ("defaultRevision", OPERATOR),
    ("experimental", NO_WEBHOOKS),
    ("gatewayClasses", GATEWAYS),
    ("gateways", GATEWAYS),
    ("istiodRemote", REMOTE),
    ("pilot.istiodRemote", REMOTE),
    ("ownerName", LONG_GONE),
    ("profile", OPERATOR),
    ("revision", OPERATOR),
    ("revisionTags", OPERATOR),
    ("sidecarInjectorWebhook", SIDECARS),
    ("sidecarInjectorWebhookAnnotations", SIDECARS),
    ("telemetry", SIDECARS),
    ("pilot.traceSampling", PROXIES),
    ("global.agentgateway", GATEWAYS),
    ("global.arch", LONG_GONE),
    ("global.caName", LONG_GONE),
    (
        "global.certSigners",
        "certificates are signed by istiod itself",
    ),
    ("global.configCluster", REMOTE),
    ("global.configValidation", NO_WEBHOOKS),
    ("global.externalIstiod", REMOTE),
    (
        "global.istiod.enableAnalysis",
        "configuration is reported in the status of each object",
    ),
    ("global.jwtPolicy", LONG_GONE),
    ("global.mountMtlsCerts", SIDECARS),
    ("global.multiCluster.enabled", LONG_GONE),
    ("global.multiCluster.includeEnvoyFilter", GATEWAYS),
    ("global.omitSidecarInjectorConfigMap", SIDECARS),
    ("global.operatorManageWebhooks", NO_WEBHOOKS),
    ("global.podDNSSearchNamespaces", SIDECARS),
    ("global.proxy_init", SIDECARS),
    ("global.remotePilotAddress", REMOTE),
    ("global.sds", SIDECARS),
    ("global.sts", SIDECARS),
    ("global.tracer", PROXIES),
    ("global.waypoint", WAYPOINTS),
];

const CNI: &[(&str, &str)] = &[
    ("cni.ambient.configDir", LONG_GONE),
    (
        "cni.privileged",
        "the agent has single capabilities instead",
    ),
    (
        "cni.psp_cluster_role",
        "PodSecurityPolicies are gone from Kubernetes",
    ),
    ("cni.repair", SIDECARS),
    ("cni.resource_quotas", SPELT_ANEW),
    ("cni.rollingMaxUnavailable", UPDATE),
];

const ZTUNNEL: &[(&str, &str)] = &[
    ("ztunnel.multiCluster.enabled", LONG_GONE),
    ("ztunnel.multiCluster.globalDomainSuffix", LONG_GONE),
    ("ztunnel.multiCluster.includeEnvoyFilter", GATEWAYS),
];

/// Parts of `global` that neither node agent reads.
const NODE_GLOBAL: &[&str] = &[
    "hub",
    "tag",
    "variant",
    "imagePullPolicy",
    "imagePullSecrets",
    "platform",
    "logAsJson",
    "logging",
    "networkPolicy",
    "resourceScope",
    "nativeNftables",
    "defaultResources",
    "distribution",
];

/// Parts of `global` that ztunnel reads beside those, where `targetRef` hands them on.
const ZTUNNEL_GLOBAL: &[&str] = &[
    "istioNamespace",
    "revision",
    "network",
    "meshID",
    "multiCluster",
    "caAddress",
    "trustBundleName",
    "proxy.clusterDomain",
];

/// Parts of the mesh configuration that an ambient mesh reads.
const READ_MESH_CONFIG: &[&str] = &[
    "trustDomain",
    "trustDomainAliases",
    "rootNamespace",
    "discoverySelectors",
    "caCertificates",
    "serviceScopeConfigs",
    "serviceEntryVisibility",
    "defaultConfig.discoveryAddress",
    "defaultConfig.proxyMetadata",
];

/// Why a value that Istio has does nothing here, if so. The path is that of the value in `spec.values`, or
/// of anything in it, such as `global.waypoint.resources.limits`; items of lists are not told apart.
pub fn without_effect(component: Component, path: &str) -> Option<&'static str> {
    let table = match component {
        Component::Istio => ISTIO,
        Component::Cni => CNI,
        Component::Ztunnel => ZTUNNEL,
    };
    if let Some((_, why)) = table.iter().find(|(entry, _)| is_at(path, entry)) {
        return Some(why);
    }
    match component {
        Component::Istio => of_istio(path),
        Component::Cni => of_node(path, &[]),
        Component::Ztunnel => of_node(path, ZTUNNEL_GLOBAL),
    }
}

fn of_istio(path: &str) -> Option<&'static str> {
    if is_at(path, "global.proxy") && !is_on(path, "global.proxy.clusterDomain") {
        return Some(SIDECARS);
    }
    let field = path.strip_prefix("meshConfig.")?;
    let read = READ_MESH_CONFIG.iter().any(|read| is_on(field, read));
    (!read).then_some(MESH_CONFIG)
}

fn of_node(path: &str, more: &[&str]) -> Option<&'static str> {
    let field = path.strip_prefix("global.")?;
    let read = NODE_GLOBAL
        .iter()
        .chain(more)
        .any(|read| is_on(field, read));
    (!read).then_some("it concerns the control plane: set it in the Istio resource")
}

/// Whether a path is an entry's or below it.
fn is_at(path: &str, entry: &str) -> bool {
    path.strip_prefix(entry)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether a path is an entry's, below it or above it.
fn is_on(path: &str, entry: &str) -> bool {
    is_at(path, entry) || is_at(entry, path)
}
