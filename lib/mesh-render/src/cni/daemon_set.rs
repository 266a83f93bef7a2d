//! The agent's pods.

use k8s_openapi::{
    api::core::v1::{
        AppArmorProfile, ConfigMap, ConfigMapEnvSource, Container, EnvFromSource, PodSpec,
        PodTemplateSpec, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use mesh_api::labels::REVISION;
use twox_hash::XxHash64;

use super::{ACCOUNT, Agent, CONFIG, CONSTRAINTS, DAEMON_SET, selected};
use crate::{
    Object,
    meta::{Texts, texts},
    node::{self, first, host_path},
    pod::{self, Env, mount, read_only},
    scc,
};

/// Where metrics are read.
pub(super) const METRICS_PORT: i32 = 15014;
/// Where the kubelet asks.
pub(super) const READINESS_PORT: i32 = 8000;

/// What the agent may do beside what every process may, each with what it is for.
pub(super) const CAPABILITIES: &[(&str, &str)] = &[
    (
        "DAC_OVERRIDE",
        "writes to the CNI folders of nodes on which root does not own them",
    ),
    (
        "NET_ADMIN",
        "sets rules and routes in the network namespaces of pods",
    ),
    (
        "NET_RAW",
        "iptables opens raw sockets, on nodes where nftables is not used",
    ),
    ("SYS_ADMIN", "enters the network namespaces of pods"),
    (
        "SYS_PTRACE",
        "finds the network namespaces of pods by processes of other users",
    ),
];

/// On a pod, what its configuration was: new entries of the ConfigMap replace the pods.
const CONFIG_HASH: &str = "lateen.io/config-hash";

const CONTAINER: &str = "install-cni";
const BIN_DIR: &str = "/opt/cni/bin";
const GKE_BIN_DIR: &str = "/home/kubernetes/bin";
const CONF_DIR: &str = "/etc/cni/net.d";
const NETNS_DIR: &str = "/var/run/netns";
/// What the legacy variant of iptables locks on the node, so that two writers, such as kube-proxy and the agent, do
/// not undo each other.
const XTABLES_LOCK: &str = "/run/xtables.lock";
/// How long an agent has to tell ztunnel and to clean up, in seconds.
const GRACE: i64 = 30;

impl Agent<'_> {
    /// The DaemonSet, and what its pods are made of. `config` is what they are told.
    pub(super) fn daemon_set(&self, config: &ConfigMap) -> (Object, PodSpec) {
        let pod = self.pod();
        let mut labels = self.of.labels();
        labels.extend(selected());
        if !self.of.revision.is_empty() {
            labels.insert(REVISION.to_owned(), self.of.revision.clone());
        }
        labels.extend(self.values.daemon_set_labels.clone());
        let metadata = ObjectMeta {
            labels: Some(labels),
            ..self.of.meta(DAEMON_SET)
        };
        let template = PodTemplateSpec {
            metadata: Some(self.pod_meta(config)),
            spec: Some(pod.clone()),
        };
        let update = self.values.update_strategy.clone();
        let update = update.unwrap_or_else(|| node::one_by_one(false));
        (
            node::daemon_set(metadata, selected(), template, update),
            pod,
        )
    }

    fn pod_meta(&self, config: &ConfigMap) -> ObjectMeta {
        let labels = node::pod_labels(&self.of, &self.values.pod_labels, selected());
        let port = METRICS_PORT.to_string();
        let mut annotations = texts([
            ("sidecar.istio.io/inject", "false"),
            ("prometheus.io/scrape", "true"),
            ("prometheus.io/port", port.as_str()),
            ("prometheus.io/path", "/metrics"),
            (CONFIG_HASH, hash(config).as_str()),
        ]);
        if self.app_armor_by_annotation() {
            let key = format!("container.apparmor.security.beta.kubernetes.io/{CONTAINER}");
            annotations.insert(key, "unconfined".to_owned());
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

    fn app_armor_by_annotation(&self) -> bool {
        self.values.use_app_armor_annotation.unwrap_or(true)
    }

    fn shares_host_network(&self) -> bool {
        let wanted = self.values.ambient.share_host_network_namespace;
        self.ambient() && wanted.unwrap_or_default()
    }

    fn pod(&self) -> PodSpec {
        let host_network = self.shares_host_network();
        let tolerations = self.values.tolerations.clone();
        let secrets = node::secrets(&self.global.image_pull_secrets);
        PodSpec {
            host_network: host_network.then_some(true),
            dns_policy: host_network.then(|| "ClusterFirstWithHostNet".to_owned()),
            affinity: self.values.affinity.clone(),
            node_selector: Some(node::on_linux(&Texts::new())),
            tolerations: Some(tolerations.unwrap_or_else(node::everywhere)),
            priority_class_name: Some(node::PRIORITY.to_owned()),
            service_account_name: Some(ACCOUNT.to_owned()),
            termination_grace_period_seconds: Some(
                self.values
                    .termination_grace_period_seconds
                    .unwrap_or(GRACE),
            ),
            image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
            containers: vec![self.container()],
            volumes: Some(self.volumes()),
            ..PodSpec::default()
        }
    }

    fn container(&self) -> Container {
        let (values, global) = (self.values, self.global);
        let level = first([values.logging.level.as_ref(), global.logging.level.as_ref()]);
        let mut args = vec![format!("--log_output_level={}", level.unwrap_or("info"))];
        if global.log_as_json.unwrap_or_default() {
            args.push("--log_as_json".to_owned());
        }
        let resources = values.resources.clone();
        let resources = resources.or_else(|| global.default_resources.clone());
        let policy = first([
            values.pull_policy.as_ref(),
            global.image_pull_policy.as_ref(),
        ]);
        Container {
            name: CONTAINER.to_owned(),
            image: Some(self.image.reference.clone()),
            image_pull_policy: policy.map(Into::into),
            command: Some(vec!["install-cni".to_owned()]),
            args: Some(args),
            ports: Some(vec![pod::port("metrics", METRICS_PORT)]),
            readiness_probe: Some(pod::ready_at("/readyz", READINESS_PORT)),
            security_context: Some(self.security_context()),
            env: Some(self.env()),
            env_from: Some(vec![EnvFromSource {
                config_map_ref: Some(ConfigMapEnvSource {
                    name: CONFIG.to_owned(),
                    ..ConfigMapEnvSource::default()
                }),
                ..EnvFromSource::default()
            }]),
            resources: Some(resources.unwrap_or_else(|| node::requests("100m", "100Mi"))),
            volume_mounts: Some(self.mounts()),
            ..Container::default()
        }
    }

    fn security_context(&self) -> SecurityContext {
        let values = self.values;
        let unconfined = || AppArmorProfile {
            type_: "Unconfined".to_owned(),
            ..AppArmorProfile::default()
        };
        let se_linux = values.se_linux_options.clone();
        SecurityContext {
            privileged: Some(false),
            // The API server does not admit SYS_ADMIN without it.
            allow_privilege_escalation: Some(true),
            // Istio's agent has never been run otherwise than with a writable one.
            read_only_root_filesystem: (!self.is_istio()).then_some(true),
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            capabilities: Some(node::only(CAPABILITIES.iter().map(|(name, _)| *name))),
            seccomp_profile: Some(
                values
                    .seccomp_profile
                    .clone()
                    .unwrap_or_else(node::runtime_default),
            ),
            se_linux_options: scc::confinement(se_linux, self.openshift),
            app_armor_profile: (!self.app_armor_by_annotation()).then(unconfined),
            ..SecurityContext::default()
        }
    }

    fn env(&self) -> Vec<k8s_openapi::api::core::v1::EnvVar> {
        let mut env = Env::default();
        if self.is_istio() {
            env.field("REPAIR_NODE_NAME", "spec.nodeName");
            env.text("REPAIR_RUN_AS_DAEMON", "true");
            env.text("REPAIR_SIDECAR_ANNOTATION", "sidecar.istio.io/status");
        }
        // Ours knows a network that it shares with the node for the node's.
        if self.ambient() && (self.is_istio() || !self.shares_host_network()) {
            env.text("ALLOW_SWITCH_TO_HOST_NS", "true");
        }
        env.field("NODE_NAME", "spec.nodeName");
        // Settings of Go's runtime, which later releases of Istio find out by themselves.
        if self.is_istio() && !node::since(&self.of.version, 32) {
            env.resource("GOMEMLIMIT", "limits.memory");
            env.resource("GOMAXPROCS", "limits.cpu");
        }
        env.field("POD_NAME", "metadata.name");
        env.field("POD_NAMESPACE", "metadata.namespace");
        for (name, value) in self.users_env() {
            env.text(name, value);
        }
        env.into_vec()
    }

    fn bin_dir(&self) -> &str {
        let gke = self.global.platform.as_deref() == Some("gke");
        let default = if gke { GKE_BIN_DIR } else { BIN_DIR };
        first([self.values.cni_bin_dir.as_ref()]).unwrap_or(default)
    }

    fn netns_dir(&self) -> &str {
        first([self.values.cni_netns_dir.as_ref()]).unwrap_or(NETNS_DIR)
    }

    fn volumes(&self) -> Vec<Volume> {
        let conf_dir = first([self.values.cni_conf_dir.as_ref()]).unwrap_or(CONF_DIR);
        let made = Some("DirectoryOrCreate");
        let mut volumes = vec![host_path("cni-bin-dir", self.bin_dir(), None)];
        if self.ambient() || self.repairs() {
            volumes.push(host_path("cni-host-procfs", "/proc", Some("Directory")));
        }
        volumes.push(host_path("cni-net-dir", conf_dir, None));
        volumes.push(host_path("cni-socket-dir", "/var/run/istio-cni", None));
        if self.ambient() {
            volumes.push(host_path("cni-netns-dir", self.netns_dir(), made));
            volumes.push(host_path("cni-ztunnel-sock-dir", "/var/run/ztunnel", made));
        }
        if !self.is_istio() {
            volumes.push(host_path(
                "xtables-lock",
                XTABLES_LOCK,
                Some("FileOrCreate"),
            ));
        }
        volumes
    }

    fn mounts(&self) -> Vec<VolumeMount> {
        let mut mounts = vec![mount("cni-bin-dir", "/host/opt/cni/bin")];
        if self.ambient() || self.repairs() {
            mounts.push(read_only("cni-host-procfs", "/host/proc"));
        }
        mounts.push(mount("cni-net-dir", "/host/etc/cni/net.d"));
        mounts.push(mount("cni-socket-dir", "/var/run/istio-cni"));
        if self.ambient() {
            mounts.extend(self.netns_mounts());
            mounts.push(mount("cni-ztunnel-sock-dir", "/var/run/ztunnel"));
        }
        if !self.is_istio() {
            mounts.push(mount("xtables-lock", XTABLES_LOCK));
        }
        mounts
    }

    /// Network namespaces are mounts, and those made later have to be seen. The runtime names them by
    /// their path on the node, which is looked for below `/host`.
    fn netns_mounts(&self) -> Vec<VolumeMount> {
        let mut paths = vec![NETNS_DIR];
        if self.netns_dir() != NETNS_DIR {
            paths.push(self.netns_dir());
        }
        let mounted = |path: &str| VolumeMount {
            mount_propagation: Some("HostToContainer".to_owned()),
            ..mount("cni-netns-dir", &format!("/host{path}"))
        };
        paths.into_iter().map(mounted).collect()
    }
}

/// A short text that is another one for other entries.
fn hash(config: &ConfigMap) -> String {
    let mut text = String::new();
    for (name, value) in config.data.iter().flatten() {
        text.push_str(name);
        text.push('\0');
        text.push_str(value);
        text.push('\0');
    }
    format!("{:016x}", XxHash64::oneshot(0, text.as_bytes()))
}
