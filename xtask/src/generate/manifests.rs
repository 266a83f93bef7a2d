//! What `kubectl apply` installs: the operator, the resources of an ambient mesh, and variants of these by
//! kind of cluster.
//!
//! ```text
//! crds/  operator/{namespace,rbac,deployment,metrics} ──▶ operator.yaml     for kubectl apply -f
//! ambient/{namespaces,istio,istiocni,ztunnel}         ──▶ ambient.yaml
//! overlays/<cluster>/mesh.yaml                            for kubectl apply -k
//! ```

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::Generated;

/// The folder of all of it.
const ROOT: &str = "manifests";

/// The folder of the CRDs, which holds nothing else.
pub(super) const CRDS: &str = "manifests/crds";

/// The folder of the variants, which holds nothing else.
pub(super) const OVERLAYS: &str = "manifests/overlays";

/// The rights of the operator, which the operator itself writes.
pub(super) const RIGHTS: &str = "manifests/operator/rbac.yaml";

/// The namespace of the operator and the name of everything in it.
const NAME: &str = mesh_api::sail::OPERATOR;

const WRITTEN: &str = "# Written by `cargo xtask gen`.\n";

/// All of it. The operator's rights are given as text.
pub(super) fn files(version: &str, rights: &str) -> anyhow::Result<Vec<Generated>> {
    let crds = crds()?;
    let operator = [
        ("operator/namespace.yaml", documents(&[namespace()])?),
        ("operator/rbac.yaml", rights.to_owned()),
        (
            "operator/deployment.yaml",
            documents(&[deployment(version)])?,
        ),
        ("operator/metrics.yaml", documents(&metrics())?),
    ];
    // The namespace first, so that what is in it finds it; then the CRDs, so that they are served by the
    // time the operator runs.
    let mut all: Vec<_> = operator.iter().map(|(_, text)| text.clone()).collect();
    all.splice(1..1, crds.iter().map(|(_, text)| text.clone()));
    let mut files = vec![
        file("operator.yaml", joined(&all)),
        file("ambient.yaml", documents(&VANILLA.mesh())?),
        kustomization("operator", &operator)?,
        kustomization_of_crds(&crds)?,
    ];
    for cluster in &CLUSTERS {
        files.extend(overlay(cluster)?);
    }
    let parts = operator.into_iter();
    files.extend(
        parts
            .filter(|(name, _)| Path::new(ROOT).join(name) != Path::new(RIGHTS))
            .map(|(name, text)| file(name, text)),
    );
    files.extend(crds);
    Ok(files)
}

fn file(name: &str, text: String) -> Generated {
    (PathBuf::from(ROOT).join(name), text)
}

/// One file for each CRD: those of the operator, and those that a mesh installs.
fn crds() -> anyhow::Result<Vec<Generated>> {
    let crds = mesh_api::sail::crds().into_iter().chain(mesh_api::crds());
    crds.map(|crd| crd_file(&crd)).collect()
}

fn crd_file(crd: &CustomResourceDefinition) -> anyhow::Result<Generated> {
    let text = serde_yaml_ng::to_string(crd).context("cannot write a CRD as YAML")?;
    let name = crd.metadata.name.as_deref().context("a CRD has a name")?;
    let text = format!("# Written by `cargo xtask gen` from lib/mesh-api.\n{text}");
    Ok((PathBuf::from(CRDS).join(format!("{name}.yaml")), text))
}

fn documents(objects: &[Value]) -> anyhow::Result<String> {
    let texts: Result<Vec<_>, _> = objects.iter().map(serde_yaml_ng::to_string).collect();
    let texts = texts.context("cannot write an object as YAML")?;
    Ok(format!("{WRITTEN}{}", texts.join("---\n")))
}

/// Several files as one. The notes on where each comes from give way to one.
fn joined(texts: &[String]) -> String {
    let without_note = |text: &String| {
        let lines = text
            .lines()
            .skip_while(|line| line.starts_with('#') || *line == "---");
        lines
            .flat_map(|line| {
                [
                    line, "
",
                ]
            })
            .collect::<String>()
    };
    let texts: Vec<_> = texts
        .iter()
        .map(without_note)
        .filter(|text| !text.is_empty())
        .collect();
    format!("{WRITTEN}{}", texts.join("---\n"))
}

fn kustomization(folder: &str, files: &[(&str, String)]) -> anyhow::Result<Generated> {
    let prefix = format!("{folder}/");
    let names = files
        .iter()
        .filter_map(|(name, _)| name.strip_prefix(&prefix));
    let names: Vec<_> = names.collect();
    Ok(file(
        &format!("{folder}/kustomization.yaml"),
        kustomize(&names)?,
    ))
}

fn kustomization_of_crds(crds: &[Generated]) -> anyhow::Result<Generated> {
    let names = crds
        .iter()
        .filter_map(|(path, _)| path.file_name()?.to_str());
    let names: Vec<_> = names.collect();
    Ok(file("crds/kustomization.yaml", kustomize(&names)?))
}

fn kustomize(resources: &[&str]) -> anyhow::Result<String> {
    documents(&[json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    })])
}

// --- the operator

fn labels() -> Value {
    json!({ "app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "lateen" })
}

fn namespace() -> Value {
    let mut namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": NAME, "labels": labels() },
    });
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("restricted");
    namespace
}

/// One replica; more wait for the lock of the first. Fits the SCC `restricted-v2` and the Pod Security
/// Standard `restricted`: no user is named, so that OpenShift gives it one of the namespace's.
fn deployment(version: &str) -> Value {
    let selector = json!({ "app.kubernetes.io/name": NAME, "control-plane": NAME });
    let mut labels = labels();
    labels["control-plane"] = json!(NAME);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": NAME, "namespace": NAME, "labels": labels },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": selector },
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": { "kubectl.kubernetes.io/default-container": "operator" },
                },
                "spec": {
                    "serviceAccountName": NAME,
                    "terminationGracePeriodSeconds": 10,
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                    "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                    "containers": [container(version)],
                },
            },
        },
    })
}

fn container(version: &str) -> Value {
    let probe = |path: &str, delay: u8, period: u8| {
        json!({
            "httpGet": { "path": path, "port": "probes" },
            "initialDelaySeconds": delay,
            "periodSeconds": period,
        })
    };
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    json!({
        "name": "operator",
        "image": format!("{}/operator:{version}", mesh_api::sail::version::hub()),
        "args": ["--leader-elect", "--metrics-bind-address=:8443", "--health-probe-bind-address=:8081"],
        "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
        "ports": [
            { "name": "metrics", "containerPort": 8443 },
            { "name": "probes", "containerPort": 8081 },
        ],
        "livenessProbe": probe("/healthz", 15, 20),
        "readinessProbe": probe("/readyz", 5, 10),
        "resources": {
            "requests": { "cpu": "10m", "memory": "64Mi" },
            "limits": { "cpu": "500m", "memory": "256Mi" },
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
    })
}

/// The metrics are served to those whom the role is bound to.
fn metrics() -> [Value; 2] {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": format!("{NAME}-metrics-service"), "namespace": NAME, "labels": labels() },
        "spec": {
            "selector": { "control-plane": NAME },
            "ports": [{ "name": "https", "port": 8443, "targetPort": "metrics" }],
        },
    });
    let reader = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": { "name": format!("{NAME}-metrics-reader"), "labels": labels() },
        "rules": [{ "nonResourceURLs": ["/metrics"], "verbs": ["get"] }],
    });
    [service, reader]
}

// --- the mesh

/// Node agents have host paths and capabilities, which a namespace has to admit.
fn mesh_namespaces() -> [Value; 3] {
    let namespace = |name: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let privileged = |name: &str| {
        let mut namespace = namespace(name);
        namespace["metadata"]["labels"] =
            json!({ "pod-security.kubernetes.io/enforce": "privileged" });
        namespace
    };
    [
        namespace("istio-system"),
        privileged("istio-cni"),
        privileged("ztunnel"),
    ]
}

/// A kind of cluster, and what an ambient mesh has otherwise there.
struct Cluster {
    name: &'static str,
    platform: Option<&'static str>,
    small: bool,
}

const VANILLA: Cluster = Cluster {
    name: "vanilla",
    platform: None,
    small: false,
};

const CLUSTERS: [Cluster; 5] = [
    Cluster::on("openshift"),
    VANILLA,
    Cluster {
        name: "kind",
        small: true,
        ..VANILLA
    },
    Cluster::on("k3s"),
    Cluster::on("gke"),
];

// === impl Cluster ===

impl Cluster {
    /// One whose name is that of the platform.
    const fn on(platform: &'static str) -> Self {
        Self {
            name: platform,
            platform: Some(platform),
            ..VANILLA
        }
    }

    fn mesh(&self) -> Vec<Value> {
        let mut objects = mesh_namespaces().to_vec();
        let strategy = json!({ "type": "InPlace" });
        let istio = json!({ "namespace": "istio-system", "profile": "ambient", "updateStrategy": strategy });
        objects.push(self.resource("Istio", "pilot", istio));
        let cni = json!({ "namespace": "istio-cni", "profile": "ambient" });
        objects.push(self.resource("IstioCNI", "cni", cni));
        let target = json!({ "kind": "Istio", "name": "default" });
        let ztunnel = json!({ "namespace": "ztunnel", "targetRef": target });
        objects.push(self.resource("ZTunnel", "ztunnel", ztunnel));
        objects
    }

    /// A resource, whose component is that part of the values.
    fn resource(&self, kind: &str, component: &str, mut spec: Value) -> Value {
        spec["version"] = json!(mesh_api::sail::version::default_version());
        if let Some(platform) = self.platform {
            spec["values"]["global"]["platform"] = json!(platform);
        }
        if self.small {
            let requests = json!({ "cpu": "50m", "memory": "128Mi" });
            spec["values"][component]["resources"]["requests"] = requests;
        }
        json!({
            "apiVersion": format!("{}/v1", mesh_api::sail::GROUP),
            "kind": kind,
            "metadata": { "name": "default" },
            "spec": spec,
        })
    }
}

/// Whole resources rather than patches, whose form differs between versions of kubectl.
fn overlay(cluster: &Cluster) -> anyhow::Result<[Generated; 2]> {
    let path = |name: &str| format!("overlays/{}/{name}", cluster.name);
    Ok([
        file(&path("mesh.yaml"), documents(&cluster.mesh())?),
        file(&path("kustomization.yaml"), kustomize(&["mesh.yaml"])?),
    ])
}
