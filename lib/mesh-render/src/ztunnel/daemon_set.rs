//! The proxy's pods.

use k8s_openapi::{
    api::core::v1::{
        Container, PodSpec, PodTemplateSpec, ResourceRequirements, SecurityContext, Volume,
        VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use mesh_api::labels::REVISION;

use super::{CONSTRAINTS, NAME, Proxy, env::REVOCATIONS, selected};
use crate::{
    Object,
    meta::texts,
    node::{self, empty_dir, first, host_path},
    pod::{self, config_map, mount, read_only},
    scc,
};

/// Where metrics are read.
const METRICS_PORT: i32 = 15020;
/// Where the kubelet asks.
const READINESS_PORT: i32 = 15021;
/// The group of the process. Rules in pods know the proxy's own traffic by it.
const GROUP: i64 = 1337;
/// The ConfigMap with the mesh's roots, which the control plane keeps in every namespace.
const ROOTS: &str = "istio-ca-root-cert";

/// What the proxy may do beside what every process may, each with what it is for.
pub(super) const CAPABILITIES: &[(&str, &str)] = &[
    (
        "NET_ADMIN",
        "marks its packets and takes redirected connections in the network namespaces of pods",
    ),
    (
        "NET_RAW",
        "sends with the addresses of pods where the kernel does not take NET_ADMIN for that",
    ),
    ("SYS_ADMIN", "enters the network namespaces of pods"),
];

impl Proxy<'_> {
    /// The DaemonSet, and what its pods are made of.
    pub(super) fn daemon_set(&self) -> (Object, PodSpec) {
        let pod = self.pod();
        let mut labels = self.of.labels();
        labels.extend(selected());
        let metadata = ObjectMeta {
            labels: Some(labels),
            ..self.of.meta(self.name())
        };
        let template = PodTemplateSpec {
            metadata: Some(self.pod_meta()),
            spec: Some(pod.clone()),
        };
        let update = self.values.update_strategy.clone();
        let update = update.unwrap_or_else(|| node::one_by_one(true));
        (
            node::daemon_set(metadata, selected(), template, update),
            pod,
        )
    }

    fn pod_meta(&self) -> ObjectMeta {
        let labels = node::pod_labels(&self.of, &self.values.pod_labels, selected());
        let port = METRICS_PORT.to_string();
        let mut annotations = texts([
            ("sidecar.istio.io/inject", "false"),
            ("prometheus.io/scrape", "true"),
            ("prometheus.io/port", port.as_str()),
        ]);
        if !self.of.revision.is_empty() {
            annotations.insert(REVISION.to_owned(), self.of.revision.clone());
        }
        annotations.extend(self.values.pod_annotations.clone());
        if self.openshift {
            annotations.insert(scc::REQUIRED.to_owned(), CONSTRAINTS.to_owned());
        }
        ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }
    }

    fn pod(&self) -> PodSpec {
        let values = self.values;
        let tolerations = values.tolerations.clone();
        let dns = self.has_dns_settings();
        let mut secrets = values.image_pull_secrets.clone();
        if secrets.is_empty() {
            secrets = node::secrets(&self.global.image_pull_secrets);
        }
        PodSpec {
            affinity: values.affinity.clone(),
            node_selector: Some(node::on_linux(&values.node_selector)),
            tolerations: Some(tolerations.unwrap_or_else(node::everywhere)),
            priority_class_name: Some(node::PRIORITY.to_owned()),
            service_account_name: Some(NAME.to_owned()),
            // It asks the control plane and never the API server.
            automount_service_account_token: Some(false),
            termination_grace_period_seconds: Some(self.grace()),
            dns_policy: values.dns_policy.clone().filter(|_| dns),
            dns_config: values.dns_config.clone().filter(|_| dns),
            image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
            containers: vec![self.container()],
            volumes: Some(self.volumes()),
            ..PodSpec::default()
        }
    }

    fn container(&self) -> Container {
        let policy = first([
            self.values.image_pull_policy.as_ref(),
            self.global.image_pull_policy.as_ref(),
        ]);
        Container {
            name: "istio-proxy".to_owned(),
            image: Some(self.image.reference.clone()),
            image_pull_policy: policy.map(Into::into),
            args: Some(vec!["proxy".to_owned(), "ztunnel".to_owned()]),
            ports: Some(vec![pod::port("ztunnel-stats", METRICS_PORT)]),
            readiness_probe: Some(pod::ready_at("/healthz/ready", READINESS_PORT)),
            security_context: Some(self.security_context()),
            env: Some(self.env()),
            resources: Some(self.resources()),
            volume_mounts: Some(self.mounts()),
            ..Container::default()
        }
    }

    pub(super) fn resources(&self) -> ResourceRequirements {
        let wanted = self.values.resources.clone();
        wanted.unwrap_or_else(|| node::requests("200m", "512Mi"))
    }

    fn security_context(&self) -> SecurityContext {
        let se_linux = self.values.se_linux_options.clone();
        SecurityContext {
            privileged: Some(false),
            // The API server does not admit SYS_ADMIN without it.
            allow_privilege_escalation: Some(true),
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            run_as_group: Some(GROUP),
            run_as_non_root: Some(false),
            capabilities: Some(node::only(CAPABILITIES.iter().map(|(name, _)| *name))),
            seccomp_profile: Some(node::runtime_default()),
            se_linux_options: scc::confinement(se_linux, self.openshift),
            ..SecurityContext::default()
        }
    }

    fn volumes(&self) -> Vec<Volume> {
        let roots = first([self.global.trust_bundle_name.as_ref()]);
        let mut volumes = vec![
            config_map("istiod-ca-cert", roots.unwrap_or(ROOTS), None),
            pod::token(),
            host_path(
                "cni-ztunnel-sock-dir",
                "/var/run/ztunnel",
                Some("DirectoryOrCreate"),
            ),
            empty_dir("tmp"),
        ];
        if self.reads_revocations() {
            volumes.push(config_map("crl-volume", "istio-ca-crl", Some(true)));
        }
        volumes.extend(self.values.volumes.clone());
        volumes
    }

    fn mounts(&self) -> Vec<VolumeMount> {
        let mut mounts = vec![
            mount("istiod-ca-cert", "/var/run/secrets/istio"),
            mount(pod::TOKEN, "/var/run/secrets/tokens"),
            mount("cni-ztunnel-sock-dir", "/var/run/ztunnel"),
            mount("tmp", "/tmp"),
        ];
        if self.reads_revocations() {
            mounts.push(read_only("crl-volume", REVOCATIONS));
        }
        mounts.extend(self.values.volume_mounts.clone());
        mounts
    }
}
