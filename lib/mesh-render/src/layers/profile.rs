//! The layers between a component's defaults and its user, as data.
//!
//! Values that concern sidecars or gateways are left out: nothing here would read them.

use serde_json::{Value, json};

use crate::{Error, PlatformKind};

/// The names of the profiles that can be asked for.
pub const PROFILES: &[&str] = &[
    "ambient",
    "default",
    "demo",
    "empty",
    "openshift",
    "openshift-ambient",
    "preview",
    "stable",
];

/// What every mesh of this distribution is: ambient. A user may still say otherwise to a control plane that
/// can do more.
pub(super) fn ambient() -> Value {
    json!({
        "meshConfig": {"defaultConfig": {"proxyMetadata": {"ISTIO_META_ENABLE_HBONE": "true"}}},
        "pilot": {"env": {"PILOT_ENABLE_AMBIENT": "true"}},
        "cni": {"ambient": {"enabled": true}},
    })
}

/// The layers of the profile called `name`.
pub(super) fn layers(name: &str) -> Result<Vec<Value>, Error> {
    Ok(match name {
        "" | "default" | "empty" | "openshift" => vec![],
        "ambient" | "openshift-ambient" => vec![json!({
            "global": {"variant": "distroless"},
            "meshConfig": {
                "serviceScopeConfigs": [{
                    "scope": "GLOBAL",
                    "servicesSelector": {"matchExpressions": [
                        {"key": mesh_api::labels::GLOBAL, "operator": "In", "values": ["true"]},
                    ]},
                }],
            },
        })],
        "demo" => vec![json!({
            "meshConfig": {"accessLogFile": "/dev/stdout"},
            "pilot": {
                "autoscaleEnabled": false,
                "traceSampling": 100,
                "resources": {"requests": {"cpu": "10m", "memory": "100Mi"}},
            },
            "cni": {"resources": {"requests": {"cpu": "10m", "memory": "40Mi"}}},
            "ztunnel": {"resources": {"requests": {"cpu": "10m", "memory": "40Mi"}}},
        })],
        "preview" => vec![json!({
            "meshConfig": {"defaultConfig": {"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}}},
        })],
        "stable" => vec![json!({"experimental": {"stableValidationPolicy": true}})],
        "remote" | "external" => return Err(Error::ProfileRefused(name.to_owned())),
        unknown => return Err(Error::Profile(unknown.to_owned())),
    })
}

/// Whether the profile is for OpenShift, wherever it is rendered.
pub(super) fn is_openshift(profile: &str) -> bool {
    ["openshift", "openshift-ambient"].contains(&profile)
}

/// The platform of this name, as `global.platform` takes it.
pub(super) fn platform_named(name: &str) -> Result<PlatformKind, Error> {
    PlatformKind::named(name).ok_or_else(|| Error::Value {
        path: "global.platform".to_owned(),
        problem: format!(
            "there is no platform `{name}`: use gke, k3d, k3s, microk8s, minikube, openshift or leave it out"
        ),
    })
}

/// Where the platform keeps what, and what it needs.
pub(super) fn platform(kind: PlatformKind) -> Value {
    match kind {
        PlatformKind::Kubernetes => json!({}),
        PlatformKind::OpenShift => json!({
            "global": {"platform": "openshift"},
            "cni": {
                "cniBinDir": "/var/lib/cni/bin",
                "cniConfDir": "/etc/cni/multus/net.d",
                "cniConfFileName": "istio-cni.conf",
                "chained": false,
                "provider": "multus",
                "seLinuxOptions": {"type": "spc_t"},
            },
            "ztunnel": {"seLinuxOptions": {"type": "spc_t"}},
            "pilot": {"cni": {"enabled": true, "provider": "multus"}},
        }),
        PlatformKind::Gke => json!({
            "global": {"platform": "gke"},
            "cni": {"cniBinDir": "", "resourceQuotas": {"enabled": true}},
            "ztunnel": {"resourceQuotas": {"enabled": true}},
        }),
        PlatformKind::K3d => json!({
            "global": {"platform": "k3d"},
            "cni": {"cniConfDir": "/var/lib/rancher/k3s/agent/etc/cni/net.d", "cniBinDir": "/bin"},
        }),
        PlatformKind::K3s => json!({
            "global": {"platform": "k3s"},
            "cni": {
                "cniConfDir": "/var/lib/rancher/k3s/agent/etc/cni/net.d",
                "cniBinDir": "/var/lib/rancher/k3s/data/cni",
            },
        }),
        PlatformKind::Microk8s => json!({
            "global": {"platform": "microk8s"},
            "cni": {
                "cniConfDir": "/var/snap/microk8s/current/args/cni-network",
                "cniBinDir": "/var/snap/microk8s/current/opt/cni/bin",
            },
        }),
        PlatformKind::Minikube => json!({
            "global": {"platform": "minikube"},
            "cni": {"cniNetnsDir": "/var/run/docker/netns"},
        }),
    }
}

/// What brings back the behaviour of an older minor release: the layers of that release and of all since.
pub(super) fn compatibility(version: &str) -> Result<Vec<Value>, Error> {
    let minor = minor(version).ok_or_else(|| Error::Value {
        path: "compatibilityVersion".to_owned(),
        problem: format!("`{version}` is not of the form 1.<minor>, such as 1.28"),
    })?;
    let changes = [
        (
            25,
            json!({"cni": {"ambient": {"shareHostNetworkNamespace": true}}}),
        ),
        (
            26,
            json!({"pilot": {"env": {"ENABLE_NATIVE_SIDECARS": "false"}}}),
        ),
        (
            27,
            json!({"pilot": {"env": {
                "DISABLE_SHADOW_HOST_SUFFIX": "false",
                "PILOT_SPAWN_UPSTREAM_SPAN_FOR_GATEWAY": "false",
            }}}),
        ),
        (
            28,
            json!({
                "pilot": {"env": {"DISABLE_TRACK_REMAINING_CB_METRICS": "false"}},
                "cni": {"ambient": {"reconcileIptablesOnStartup": false}},
            }),
        ),
        (
            29,
            json!({"pilot": {"env": {"PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE": "false"}}}),
        ),
    ];
    let kept = changes.into_iter().filter(|(last, _)| minor <= *last);
    Ok(kept.map(|(_, layer)| layer).collect())
}

fn minor(version: &str) -> Option<u32> {
    let (major, rest) = version.split_once('.')?;
    let minor = rest.split('.').next()?;
    (major == "1").then(|| minor.parse().ok()).flatten()
}
