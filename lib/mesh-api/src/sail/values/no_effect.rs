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
const CONTROL_PLANE: &str = "it concerns the control plane: set it in the Istio resource";
const SPELT_ANEW: &str = "it is an old spelling: use `resourceQuotas`";
const UPDATE: &str = "it is an old spelling: use `updateStrategy`";

/// The path of a value of Istio's, and why it and everything below it does nothing here unless our types
/// have it.
type Reason = (&'static str, &'static str);

const ISTIO: &[Reason] = &[
    ("base", BASE),
    ("defaultRevision", OPERATOR),
    ("experimental", NO_WEBHOOKS),
    ("gatewayClasses", GATEWAYS),
    ("gateways", GATEWAYS),
    ("istiodRemote", REMOTE),
    ("pilot.istiodRemote", REMOTE),
    ("ownerName", LONG_GONE),
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
        "global.istiod",
        "configuration is reported in the status of each object",
    ),
    ("global.jwtPolicy", LONG_GONE),
    ("global.mountMtlsCerts", SIDECARS),
    ("global.multiCluster.enabled", LONG_GONE),
    ("global.multiCluster.globalDomainSuffix", LONG_GONE),
    ("global.multiCluster.includeEnvoyFilter", GATEWAYS),
    ("global.omitSidecarInjectorConfigMap", SIDECARS),
    ("global.operatorManageWebhooks", NO_WEBHOOKS),
    ("global.podDNSSearchNamespaces", SIDECARS),
    ("global.proxy", SIDECARS),
    ("global.proxy_init", SIDECARS),
    ("global.remotePilotAddress", REMOTE),
    ("global.sds", SIDECARS),
    ("global.sts", SIDECARS),
    ("global.tracer", PROXIES),
    ("global.waypoint", WAYPOINTS),
];

const CNI: &[Reason] = &[
    ("cni.ambient.configDir", LONG_GONE),
    (
        "cni.privileged",
        "the agent has single capabilities instead",
    ),
    (
        "cni.psp_cluster_role",
        "PodSecurityPolicies are gone from Kubernetes",
    ),
    ("cni.repair.hub", LONG_GONE),
    ("cni.repair.image", LONG_GONE),
    ("cni.repair.tag", LONG_GONE),
    ("cni.resource_quotas", SPELT_ANEW),
    ("cni.rollingMaxUnavailable", UPDATE),
];

const ZTUNNEL: &[Reason] = &[
    ("ztunnel.multiCluster.enabled", LONG_GONE),
    ("ztunnel.multiCluster.globalDomainSuffix", LONG_GONE),
    ("ztunnel.multiCluster.includeEnvoyFilter", GATEWAYS),
];

/// What only the control plane reads.
const CONTROL_PLANE_ONLY: &[Reason] = &[
    ("global.configValidation", CONTROL_PLANE),
    ("global.defaultNodeSelector", CONTROL_PLANE),
    ("global.defaultPodDisruptionBudget", CONTROL_PLANE),
    ("global.defaultTolerations", CONTROL_PLANE),
    ("global.enableReaderRBAC", CONTROL_PLANE),
    ("global.ipFamilies", CONTROL_PLANE),
    ("global.ipFamilyPolicy", CONTROL_PLANE),
    ("global.meshNetworks", CONTROL_PLANE),
    ("global.pilotCertProvider", CONTROL_PLANE),
    ("global.priorityClassName", CONTROL_PLANE),
    ("global.proxy", CONTROL_PLANE),
    ("global.readerServiceAccount", CONTROL_PLANE),
];

/// What the control plane and ztunnel read, and the node agent does not.
const NOT_OF_CNI: &[Reason] = &[
    ("global.caAddress", CONTROL_PLANE),
    ("global.istioNamespace", CONTROL_PLANE),
    ("global.meshID", CONTROL_PLANE),
    ("global.multiCluster", CONTROL_PLANE),
    ("global.network", CONTROL_PLANE),
    ("global.revision", CONTROL_PLANE),
    ("global.trustBundleName", CONTROL_PLANE),
];

/// What has an effect among what has none.
const EXCEPTIONS: &[&str] = &[
    "global.proxy.clusterDomain",
    "sidecarInjectorWebhook.enableNamespacesByDefault",
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

/// The reasons for what the values of a component have in Istio and do nothing here. Where our types have a
/// path below one of these, that one has an effect.
pub(super) fn reasons(component: Component) -> Vec<Reason> {
    let global = ISTIO.iter().filter(|(path, _)| path.starts_with("global."));
    let tables: [&[Reason]; 3] = match component {
        Component::Istio => return ISTIO.to_vec(),
        Component::Cni => [CNI, CONTROL_PLANE_ONLY, NOT_OF_CNI],
        Component::Ztunnel => [ZTUNNEL, CONTROL_PLANE_ONLY, &[]],
    };
    tables
        .into_iter()
        .flatten()
        .chain(global)
        .copied()
        .collect()
}

/// Why a value that Istio has does nothing here, if so. The path is that of the value in `spec.values`, or
/// of anything in it, such as `global.waypoint.resources.limits`.
pub fn without_effect(component: Component, path: &str) -> Option<&'static str> {
    let excepted = EXCEPTIONS.iter().any(|exception| is_on(path, exception));
    if excepted && component == Component::Istio {
        return None;
    }
    let reasons = reasons(component);
    let reason = reasons.iter().find(|(entry, _)| is_at(path, entry));
    reason
        .map(|(_, why)| *why)
        .or_else(|| of_mesh_config(component, path))
}

/// The mesh configuration is no type here but goes on as it is.
fn of_mesh_config(component: Component, path: &str) -> Option<&'static str> {
    let field = path.strip_prefix("meshConfig.")?;
    let read = READ_MESH_CONFIG.iter().any(|read| is_on(field, read));
    (component == Component::Istio && !read).then_some(MESH_CONFIG)
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
