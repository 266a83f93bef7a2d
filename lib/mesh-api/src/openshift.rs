//! What OpenShift says about a cluster, and the constraints under which it lets pods run.
//!
//! Only fields that somebody reads or writes are here. The kinds belong to the platform: other fields of
//! them are passed over, and [`stand_ins`] are for places without OpenShift.

mod config;
mod constraints;
mod network;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
        CustomResourceDefinitionVersion, CustomResourceValidation, JSONSchemaProps,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::CustomResourceExt as _;

pub use self::{
    config::{
        APIServer, APIServerSpec, ClusterVersion, ClusterVersionSpec, ClusterVersionStatus,
        CustomTlsProfile, Infrastructure, InfrastructureSpec, InfrastructureStatus, Release,
        TlsSecurityProfile,
    },
    constraints::{
        SecurityContextConstraints, Strategy, UserRange, VOLUME_SOURCES, volume_sources,
    },
    network::{
        DefaultNetwork, GatewayConfig, Network, NetworkSpec, OVN_KUBERNETES, OvnKubernetesConfig,
    },
};
use crate::crd::stand_in;

/// The group of [`APIServer`], [`ClusterVersion`] and [`Infrastructure`]. MicroShift does not have it.
pub const CONFIG_GROUP: &str = "config.openshift.io";
/// The group of [`Network`].
pub const OPERATOR_GROUP: &str = "operator.openshift.io";
/// The group of [`SecurityContextConstraints`]. Every OpenShift has it, also MicroShift.
pub const SECURITY_GROUP: &str = "security.openshift.io";

/// The name of the one object of [`APIServer`], [`Infrastructure`] and [`Network`].
pub const CLUSTER: &str = "cluster";
/// The name of the one [`ClusterVersion`].
pub const VERSION: &str = "version";

/// CRDs of the kinds for places without OpenShift, such as tests. They keep whatever an object says.
pub fn stand_ins() -> Vec<CustomResourceDefinition> {
    let kinds = [
        APIServer::crd(),
        ClusterVersion::crd(),
        Infrastructure::crd(),
        Network::crd(),
    ];
    let written = [
        (
            SECURITY_GROUP,
            "SecurityContextConstraints",
            "securitycontextconstraints",
            "Cluster",
        ),
        (
            "k8s.cni.cncf.io",
            "NetworkAttachmentDefinition",
            "network-attachment-definitions",
            "Namespaced",
        ),
    ];
    let kinds = kinds.into_iter().map(stand_in);
    kinds.chain(written.map(open_crd)).collect()
}

/// The CRD of a kind that is written and never read: it takes whatever an object says.
fn open_crd((group, kind, plural, scope): (&str, &str, &str, &str)) -> CustomResourceDefinition {
    let schema = JSONSchemaProps {
        type_: Some("object".to_owned()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    };
    CustomResourceDefinition {
        metadata: ObjectMeta {
            name: Some(format!("{plural}.{group}")),
            ..ObjectMeta::default()
        },
        spec: CustomResourceDefinitionSpec {
            group: group.to_owned(),
            names: CustomResourceDefinitionNames {
                kind: kind.to_owned(),
                plural: plural.to_owned(),
                ..CustomResourceDefinitionNames::default()
            },
            scope: scope.to_owned(),
            versions: vec![CustomResourceDefinitionVersion {
                name: "v1".to_owned(),
                served: true,
                storage: true,
                schema: Some(CustomResourceValidation {
                    open_api_v3_schema: Some(schema),
                }),
                ..CustomResourceDefinitionVersion::default()
            }],
            ..CustomResourceDefinitionSpec::default()
        },
        ..CustomResourceDefinition::default()
    }
}
