//! The control plane's pods.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Capabilities, Container, ContainerPort, EmptyDirVolumeSource, PodSpec, PodTemplateSpec,
            Probe, SecretVolumeSource, SecurityContext, Toleration, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use mesh_api::{
    control_plane::{HTTP_PORT, MONITORING_PORT, PLUGGED_SECRET, ROOT_CONFIG_MAP, SECURE_PORT},
    labels,
};

use super::{Plan, arguments::Arguments};
use crate::{
    meta::{Texts, texts},
    object::{self, Object},
    pod::{self, config_map, mount, read_only},
};

/// Where a plugged-in authority is mounted.
pub(super) const PLUGGED_PATH: &str = "/etc/cacerts";

/// The ConfigMap with roots for keys of JSON Web Tokens.
pub(super) const JWKS_CONFIG_MAP: &str = "pilot-jwks-extra-cacerts";

/// The taint of a node whose agent is not ready. The control plane needs no agent, and agents need it.
const NOT_READY: &str = "cni.istio.io/not-ready";

/// The Deployment.
pub(super) fn deployment(plan: &Plan<'_>, arguments: Arguments) -> Object {
    let pilot = &plan.values.pilot;
    let mut metadata = plan.installation.meta(&plan.name());
    plan.label(&mut metadata);
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(plan.service_selector());
    labels.extend(pilot.deployment_labels.clone());
    metadata.annotations = filled(pilot.deployment_annotations.clone());
    let replicas = pilot
        .replica_count
        .filter(|_| !super::scaling::is_autoscaled(plan));
    let rolling = RollingUpdateDeployment {
        max_surge: pilot.rolling_max_surge.clone(),
        max_unavailable: pilot.rolling_max_unavailable.clone(),
    };
    let spec = DeploymentSpec {
        replicas: replicas.and_then(|count| i32::try_from(count).ok()),
        selector: LabelSelector {
            match_labels: Some(selector(plan)),
            ..LabelSelector::default()
        },
        strategy: Some(DeploymentStrategy {
            rolling_update: Some(rolling),
            ..DeploymentStrategy::default()
        }),
        template: PodTemplateSpec {
            metadata: Some(pod_meta(plan)),
            spec: Some(pod_spec(plan, arguments)),
        },
        ..DeploymentSpec::default()
    };
    let deployment = Deployment {
        metadata,
        spec: Some(spec),
        ..Deployment::default()
    };
    Object::new(object::DEPLOYMENT, &deployment)
}

/// The labels by which a Deployment of Istio selects; it cannot be changed when one is taken over.
fn selector(plan: &Plan<'_>) -> Texts {
    let mut selector = plan.service_selector();
    if plan.is_default() {
        selector.remove("app");
    }
    selector
}

fn pod_meta(plan: &Plan<'_>) -> ObjectMeta {
    let pilot = &plan.values.pilot;
    let mut labels = plan.installation.labels();
    labels.extend(texts([
        ("app", "istiod"),
        ("istio", if plan.is_default() { "pilot" } else { "istiod" }),
        (labels::REVISION, plan.revision()),
        (labels::DATAPLANE_MODE, labels::dataplane_mode::NONE),
        ("operator.istio.io/component", "Pilot"),
        ("sidecar.istio.io/inject", "false"),
    ]));
    labels.extend(pilot.pod_labels.clone());
    let mut annotations = texts([
        ("prometheus.io/port", &MONITORING_PORT.to_string()),
        ("prometheus.io/scrape", "true"),
        ("sidecar.istio.io/inject", "false"),
    ]);
    annotations.extend(pilot.pod_annotations.clone());
    ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

fn pod_spec(plan: &Plan<'_>, arguments: Arguments) -> PodSpec {
    let (pilot, global) = (&plan.values.pilot, &plan.values.global);
    let node_selector = Some(&pilot.node_selector).filter(|labels| !labels.is_empty());
    let node_selector = node_selector.unwrap_or(&global.default_node_selector);
    PodSpec {
        affinity: pilot.affinity.clone(),
        containers: vec![container(plan, arguments)],
        init_containers: list(pilot.init_containers.clone()),
        node_selector: filled(node_selector.clone()),
        priority_class_name: global
            .priority_class_name
            .clone()
            .filter(|name| !name.is_empty()),
        service_account_name: Some(plan.name()),
        tolerations: Some(tolerations(plan)),
        topology_spread_constraints: list(pilot.topology_spread_constraints.clone()),
        volumes: list(volumes(plan)),
        ..PodSpec::default()
    }
}

fn tolerations(plan: &Plan<'_>) -> Vec<Toleration> {
    let not_ready = Toleration {
        key: Some(NOT_READY.to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    };
    let (pilot, global) = (&plan.values.pilot, &plan.values.global);
    let further = pilot
        .tolerations
        .as_ref()
        .or(global.default_tolerations.as_ref());
    let further = further.into_iter().flatten();
    [&not_ready].into_iter().chain(further).cloned().collect()
}

fn container(plan: &Plan<'_>, arguments: Arguments) -> Container {
    let (pilot, global) = (&plan.values.pilot, &plan.values.global);
    Container {
        name: "discovery".to_owned(),
        image: Some(plan.image.reference.clone()),
        image_pull_policy: global
            .image_pull_policy
            .clone()
            .filter(|policy| !policy.is_empty()),
        args: Some(arguments.args),
        env: Some(arguments.env),
        ports: Some(ports(plan)),
        readiness_probe: Some(readiness()),
        resources: pilot
            .resources
            .clone()
            .or_else(|| global.default_resources.clone()),
        security_context: Some(security(plan)),
        termination_message_policy: pilot.termination_message_policy.clone(),
        volume_mounts: list(mounts(plan)),
        ..Container::default()
    }
}

fn ports(plan: &Plan<'_>) -> Vec<ContainerPort> {
    let mut ports = vec![
        (HTTP_PORT, "http-debug"),
        (SECURE_PORT, "tls-xds"),
        (MONITORING_PORT, "http-monitoring"),
    ];
    if plan.is_istio() {
        ports.extend([(15010, "grpc-xds"), (15017, "https-webhooks")]);
    }
    let ports = ports.into_iter();
    ports
        .map(|(number, name)| pod::port(name, number))
        .collect()
}

fn readiness() -> Probe {
    Probe {
        initial_delay_seconds: Some(1),
        period_seconds: Some(3),
        timeout_seconds: Some(5),
        ..pod::ready_at("/ready", HTTP_PORT)
    }
}

fn security(plan: &Plan<'_>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        seccomp_profile: plan.values.pilot.seccomp_profile.clone(),
        ..SecurityContext::default()
    }
}

/// A plugged-in authority, if its owner makes the Secret; what Istio's control plane reads beside it; the
/// user's.
fn volumes(plan: &Plan<'_>) -> Vec<Volume> {
    let mut volumes = vec![secret("cacerts", PLUGGED_SECRET)];
    if plan.is_istio() {
        volumes.extend([
            Volume {
                name: "local-certs".to_owned(),
                empty_dir: Some(EmptyDirVolumeSource {
                    medium: Some("Memory".to_owned()),
                    ..EmptyDirVolumeSource::default()
                }),
                ..Volume::default()
            },
            pod::token(),
            secret("istio-kubeconfig", "istio-kubeconfig"),
            secret("istio-csr-dns-cert", "istiod-tls"),
            config_map("istio-csr-ca-configmap", ROOT_CONFIG_MAP, true),
        ]);
        if has_jwks(plan) {
            let name = plan.installation.suffixed(JWKS_CONFIG_MAP);
            volumes.push(config_map("extracacerts", name, false));
        }
    }
    volumes.extend(plan.values.pilot.volumes.clone());
    volumes
}

fn mounts(plan: &Plan<'_>) -> Vec<VolumeMount> {
    let mut mounts = vec![read_only("cacerts", PLUGGED_PATH)];
    if plan.is_istio() {
        mounts.extend([
            mount("local-certs", "/var/run/secrets/istio-dns"),
            read_only(pod::TOKEN, "/var/run/secrets/tokens"),
            read_only("istio-kubeconfig", "/var/run/secrets/remote"),
            read_only("istio-csr-dns-cert", "/var/run/secrets/istiod/tls"),
            read_only("istio-csr-ca-configmap", "/var/run/secrets/istiod/ca"),
        ]);
        if has_jwks(plan) {
            mounts.push(read_only("extracacerts", "/cacerts"));
        }
    }
    mounts.extend(plan.values.pilot.volume_mounts.clone());
    mounts
}

fn has_jwks(plan: &Plan<'_>) -> bool {
    let root = plan.values.pilot.jwks_resolver_extra_root_ca.as_ref();
    root.is_some_and(|root| !root.is_empty())
}

fn secret(name: &str, secret: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn filled(texts: Texts) -> Option<Texts> {
    Some(texts).filter(|texts| !texts.is_empty())
}

fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
    Some(items).filter(|items| !items.is_empty())
}
