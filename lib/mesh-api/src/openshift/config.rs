//! The cluster's version, shape and TLS profile: `config.openshift.io`.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the API servers, of which the TLS profile is meant for all of the cluster.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "config.openshift.io",
    version = "v1",
    kind = "APIServer",
    plural = "apiservers",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
pub struct APIServerSpec {
    /// Which versions and ciphers of TLS are allowed; `Intermediate` if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_security_profile: Option<TlsSecurityProfile>,
    /// Who has to honour the profile. Empty or `LegacyAdheringComponentsOnly`: those that always did;
    /// anything else: everybody. OpenShift 4.22 and later.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls_adherence: String,
}

/// Which versions and ciphers of TLS are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsSecurityProfile {
    /// `Old`, `Intermediate`, `Modern` or `Custom`.
    #[serde(rename = "type")]
    pub type_: String,
    /// What `Custom` means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomTlsProfile>,
}

/// A profile of the administrator's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct CustomTlsProfile {
    /// Cipher suites by their OpenSSL names; those of TLS 1.3 by their own.
    pub ciphers: Vec<String>,
    /// `VersionTLS10` to `VersionTLS13`.
    #[serde(rename = "minTLSVersion")]
    pub min_tls_version: String,
}

/// What the cluster runs.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "config.openshift.io",
    version = "v1",
    kind = "ClusterVersion",
    plural = "clusterversions",
    status = "ClusterVersionStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterVersionSpec {}

/// What the cluster runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterVersionStatus {
    /// What it runs or is on its way to.
    pub desired: Release,
}

/// A release of OpenShift.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Release {
    /// Such as `4.19.3`.
    pub version: String,
}

/// What the cluster runs on.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "config.openshift.io",
    version = "v1",
    kind = "Infrastructure",
    plural = "infrastructures",
    status = "InfrastructureStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
pub struct InfrastructureSpec {}

/// What the cluster runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct InfrastructureStatus {
    /// `External` if the control plane runs in another cluster (HyperShift).
    pub control_plane_topology: String,
}

impl APIServerSpec {
    /// Whether components that did not always follow the profile are to follow it. An adherence that
    /// nobody here knows is taken for a strict one, as OpenShift's own components do.
    pub fn binds_all_components(&self) -> bool {
        !matches!(
            self.tls_adherence.as_str(),
            "" | "NoOpinion" | "LegacyAdheringComponentsOnly"
        )
    }
}
