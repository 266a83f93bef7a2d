//! What the pods of all components are made of.

use k8s_openapi::{
    api::core::v1::{
        ConfigMapVolumeSource, ContainerPort, HTTPGetAction, Probe, ProjectedVolumeSource,
        ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

pub(crate) mod env;

pub(crate) use self::env::Env;

/// The volume with the token that a component shows the control plane.
pub(crate) const TOKEN: &str = "istio-token";

/// For whom that token is.
const TOKEN_AUDIENCE: &str = "istio-ca";
/// How long it is valid, in seconds. The kubelet renews it before.
const TOKEN_SECONDS: i64 = 43200;

/// The token that a component shows the control plane.
pub(crate) fn token() -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(TOKEN_AUDIENCE.to_owned()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "istio-token".to_owned(),
    };
    Volume {
        name: TOKEN.to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(token),
                ..VolumeProjection::default()
            }]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The entries of a ConfigMap as files.
pub(crate) fn config_map(
    volume: &str,
    name: impl Into<String>,
    optional: impl Into<Option<bool>>,
) -> Volume {
    Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.into(),
            optional: optional.into(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Where a volume is found in the container.
pub(crate) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

/// The same, for a volume that is not written to.
pub(crate) fn read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount(volume, path)
    }
}

/// A port that the container listens on.
pub(crate) fn port(name: &str, number: impl Into<i32>) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// Asks over HTTP whether the container is ready.
pub(crate) fn ready_at(path: &str, port: impl Into<i32>) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port.into()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}
