//! What is rendered into golden files: each platform with the profiles that people use, and values that reach
//! what these do not.

use mesh_api::sail::{IstioCNISpec, Values, ZTunnelSpec, version};
use mesh_render::{
    Error, Platform, PlatformKind, Rendered, Settings, TlsProfile, cni,
    istiod::{self, Revision},
    ztunnel,
};
use serde_json::{Value, json};

/// One golden file.
pub(crate) struct Case {
    /// Its name, without `.yaml`.
    pub(crate) name: &'static str,
    /// What is in it.
    pub(crate) rendered: Rendered,
}

const KUBERNETES: PlatformKind = PlatformKind::Kubernetes;
const OPENSHIFT: PlatformKind = PlatformKind::OpenShift;

/// All of them.
pub(crate) fn all() -> Result<Vec<Case>, Error> {
    let case =
        |name, rendered: Result<Rendered, Error>| rendered.map(|rendered| Case { name, rendered });
    [
        case("kubernetes-ambient", mesh("ambient", KUBERNETES)),
        case("kubernetes-default", mesh("default", KUBERNETES)),
        case("openshift-ambient", mesh("ambient", OPENSHIFT)),
        case("openshift-default", mesh("default", OPENSHIFT)),
        case(
            "istiod-demo",
            revision(
                "default",
                &json!({"profile": "demo"}),
                &settings(KUBERNETES),
            ),
        ),
        case(
            "istiod-canary",
            revision("canary", &canary(), &settings(KUBERNETES)),
        ),
        case(
            "istiod-of-istio",
            revision("default", &of_istio(), &locked_down()),
        ),
        case("tag", tag()),
    ]
    .into_iter()
    .collect()
}

/// A release on a platform.
pub(crate) fn settings(kind: PlatformKind) -> Settings {
    let release = version::resolve("v1.30.3").expect("the release is in the table");
    let platform = Platform {
        kind,
        ..Platform::default()
    };
    Settings::released(release, platform)
}

/// OpenShift in FIPS mode with a TLS profile.
pub(crate) fn locked_down() -> Settings {
    let mut settings = settings(OPENSHIFT);
    settings.platform.fips = true;
    settings.platform.tls = Some(TlsProfile {
        min_version: "TLSV1_2".to_owned(),
        ciphers: vec!["ECDHE-RSA-AES128-GCM-SHA256".to_owned()],
    });
    settings
}

/// The objects of a revision.
pub(crate) fn revision(name: &str, values: &Value, settings: &Settings) -> Result<Rendered, Error> {
    let revision = Revision {
        name,
        namespace: "istio-system",
        values: values.as_object().expect("values are an object"),
    };
    istiod::control_plane(revision, settings)
}

/// Values that reach what no profile does.
pub(crate) fn canary() -> Value {
    json!({
        "profile": "ambient",
        "revision": "canary",
        "global": {
            "imagePullPolicy": "Always",
            "imagePullSecrets": ["registry"],
            "ipFamilyPolicy": "PreferDualStack",
            "ipFamilies": ["IPv4", "IPv6"],
            "logAsJson": true,
            "logging": {"level": "default:info,ca:debug"},
            "meshID": "mesh1",
            "multiCluster": {"clusterName": "east"},
            "networkPolicy": {"enabled": true},
            "priorityClassName": "system-cluster-critical",
            "proxy": {"clusterDomain": "corp.example"},
        },
        "meshConfig": {
            "trustDomain": "corp.example",
            "discoverySelectors": [{"matchLabels": {"istio-discovery": "enabled"}}],
        },
        "pilot": {
            "autoscaleBehavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
            "autoscaleMin": 2,
            "memory": {"targetAverageUtilization": 70},
            "deploymentLabels": {"team": "mesh"},
            "env": {"WAYPOINT_UNREADY": "bypass"},
            "envVarFrom": [{"name": "ISTIOD_CUSTOM_HOST", "valueFrom":
                {"configMapKeyRef": {"name": "hosts", "key": "istiod"}}}],
            "keepaliveMaxServerConnectionAge": "10m",
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "podAnnotations": {"team": "mesh"},
            "resources": {"requests": {"cpu": null}, "limits": {"memory": "1Gi"}},
            "serviceAccountAnnotations": {"team": "mesh"},
            "serviceAnnotations": {"team": "mesh"},
            "tolerations": [{"key": "infra", "operator": "Exists"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "istiod"}}}],
            "trustedZtunnelNamespace": "node-proxies",
            "trustedZtunnelName": "node-proxy",
            "volumes": [{"name": "hosts", "configMap": {"name": "hosts"}}],
            "volumeMounts": [{"name": "hosts", "mountPath": "/etc/hosts.d"}],
        },
    })
}

/// Istio's images, with what only they read.
pub(crate) fn of_istio() -> Value {
    json!({
        "profile": "ambient",
        "global": {"hub": "docker.io/istio", "tag": "1.30.3"},
        "gatewayClasses": {"istio": {"service": {"spec": {"type": "ClusterIP"}}}},
        "meshConfig": {"accessLogFile": "/dev/stdout"},
        "pilot": {
            "jwksResolverExtraRootCA": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            "taint": {"enabled": true, "namespace": "istio-cni"},
            "traceSampling": 5,
        },
    })
}

/// All components as an Istio, an IstioCNI and a ZTunnel that says nothing else ask for them.
fn mesh(profile: &str, kind: PlatformKind) -> Result<Rendered, Error> {
    let settings = settings(kind);
    let values = istiod::revision_values(Some(profile), &Values::new(), "default", "istio-system");
    let mut all = revision("default", &Value::Object(values.clone()), &settings)?;
    let agent = IstioCNISpec {
        namespace: "istio-cni".to_owned(),
        profile: Some(profile.to_owned()),
        ..IstioCNISpec::default()
    };
    let proxy = ZTunnelSpec {
        namespace: "ztunnel".to_owned(),
        ..ZTunnelSpec::default()
    };
    for rendered in [
        cni::render(&agent, &settings)?,
        ztunnel::render(&proxy, Some(&values), &settings)?,
    ] {
        all.objects.extend(rendered.objects);
        all.notes.extend(rendered.notes);
    }
    Ok(all)
}

fn tag() -> Result<Rendered, Error> {
    let values = canary();
    let revision = Revision {
        name: "canary",
        namespace: "istio-system",
        values: values.as_object().expect("values are an object"),
    };
    istiod::revision_tag("prod", revision, &settings(KUBERNETES))
}
