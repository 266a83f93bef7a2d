use serde_json::Value;

use super::*;
use crate::{Images, Platform, PlatformKind};

const OURS: &str = "registry.example/lateen/install-cni@sha256:aa";

fn settings(kind: PlatformKind) -> Settings {
    Settings {
        platform: Platform {
            kind,
            ..Platform::default()
        },
        release: "1.30.3".to_owned(),
        images: Images {
            cni: OURS.to_owned(),
            ..Images::default()
        },
        ztunnel_namespace: None,
    }
}

fn spec(values: Value) -> IstioCNISpec {
    IstioCNISpec {
        version: "v1.30.3".to_owned(),
        namespace: "istio-cni".to_owned(),
        profile: Some("ambient".to_owned()),
        values: serde_json::from_value(values).unwrap(),
    }
}

fn on(kind: PlatformKind, values: Value) -> Rendered {
    render(&spec(values), &settings(kind)).unwrap()
}

fn find<'a>(rendered: &'a Rendered, kind: &str, name: &str) -> Option<&'a Value> {
    let mut objects = rendered.objects.iter();
    let object = objects.find(|object| object.kind.kind == kind && object.name == name)?;
    Some(&object.body)
}

fn pod(rendered: &Rendered) -> &Value {
    &find(rendered, "DaemonSet", DAEMON_SET).unwrap()["spec"]["template"]["spec"]
}

fn container(rendered: &Rendered) -> &Value {
    &pod(rendered)["containers"][0]
}

fn config(rendered: &Rendered) -> &Value {
    &find(rendered, "ConfigMap", CONFIG).unwrap()["data"]
}

fn host_path<'a>(rendered: &'a Rendered, volume: &str) -> Option<&'a str> {
    let mut volumes = pod(rendered)["volumes"].as_array()?.iter();
    volumes.find(|entry| entry["name"] == volume)?["hostPath"]["path"].as_str()
}

fn env<'a>(rendered: &'a Rendered, name: &str) -> Option<&'a Value> {
    let mut env = container(rendered)["env"].as_array()?.iter();
    env.find(|entry| entry["name"] == name)
}

#[test]
fn each_platform_has_its_folders() {
    let table = [
        (
            PlatformKind::Kubernetes,
            "/opt/cni/bin",
            "/etc/cni/net.d",
            "/var/run/netns",
        ),
        (
            PlatformKind::OpenShift,
            "/var/lib/cni/bin",
            "/etc/cni/multus/net.d",
            "/var/run/netns",
        ),
        (
            PlatformKind::Gke,
            "/home/kubernetes/bin",
            "/etc/cni/net.d",
            "/var/run/netns",
        ),
        (
            PlatformKind::K3s,
            "/var/lib/rancher/k3s/data/cni",
            "/var/lib/rancher/k3s/agent/etc/cni/net.d",
            "/var/run/netns",
        ),
        (
            PlatformKind::K3d,
            "/bin",
            "/var/lib/rancher/k3s/agent/etc/cni/net.d",
            "/var/run/netns",
        ),
        (
            PlatformKind::Microk8s,
            "/var/snap/microk8s/current/opt/cni/bin",
            "/var/snap/microk8s/current/args/cni-network",
            "/var/run/netns",
        ),
        (
            PlatformKind::Minikube,
            "/opt/cni/bin",
            "/etc/cni/net.d",
            "/var/run/docker/netns",
        ),
    ];
    for (kind, bin, conf, netns) in table {
        let rendered = on(kind, json!({}));
        assert_eq!(host_path(&rendered, "cni-bin-dir"), Some(bin), "{kind:?}");
        assert_eq!(host_path(&rendered, "cni-net-dir"), Some(conf), "{kind:?}");
        assert_eq!(
            host_path(&rendered, "cni-netns-dir"),
            Some(netns),
            "{kind:?}"
        );
    }
    let own = json!({"cni": {"cniBinDir": "/opt/own", "cniConfDir": "/etc/own"}});
    let rendered = on(PlatformKind::OpenShift, own);
    assert_eq!(host_path(&rendered, "cni-bin-dir"), Some("/opt/own"));
    assert_eq!(host_path(&rendered, "cni-net-dir"), Some("/etc/own"));
}

#[test]
fn network_namespaces_are_found_by_the_path_that_the_runtime_names() {
    let rendered = on(PlatformKind::Minikube, json!({}));
    let mounts = container(&rendered)["volumeMounts"].as_array().unwrap();
    let paths: Vec<_> = mounts
        .iter()
        .filter(|mount| mount["name"] == "cni-netns-dir")
        .map(|mount| (mount["mountPath"].as_str(), &mount["mountPropagation"]))
        .collect();
    let shared = json!("HostToContainer");
    assert_eq!(
        paths,
        [
            (Some("/host/var/run/netns"), &shared),
            (Some("/host/var/run/docker/netns"), &shared),
        ]
    );
}

#[test]
fn multus_calls_the_plugin_on_openshift_and_nowhere_else() {
    let openshift = on(PlatformKind::OpenShift, json!({}));
    let attachment = find(&openshift, "NetworkAttachmentDefinition", ACCOUNT).unwrap();
    assert_eq!(attachment["metadata"]["namespace"], "default");
    assert_eq!(config(&openshift)["CHAINED_CNI_PLUGIN"], "false");
    assert_eq!(config(&openshift)["CNI_CONF_NAME"], "istio-cni.conf");
    let plain = on(PlatformKind::Kubernetes, json!({}));
    assert!(find(&plain, "NetworkAttachmentDefinition", ACCOUNT).is_none());
    assert_eq!(config(&plain)["CHAINED_CNI_PLUGIN"], "true");
    assert_eq!(config(&plain)["CNI_CONF_NAME"], Value::Null);
}

#[test]
fn istio_s_agent_gets_what_it_needs_beside_ours() {
    let values = json!({
        "cni": {"hub": "docker.io/istio", "repair": {"labelPods": true, "deletePods": true}},
    });
    let theirs = on(PlatformKind::Kubernetes, values);
    assert_eq!(
        container(&theirs)["image"],
        "docker.io/istio/install-cni:1.30.3-distroless"
    );
    assert_eq!(config(&theirs)["REPAIR_ENABLED"], "true");
    assert_eq!(config(&theirs)["NATIVE_NFTABLES"], "false");
    assert_eq!(config(&theirs)["AMBIENT_DNS_CAPTURE"], "true");
    assert!(env(&theirs, "GOMEMLIMIT").is_some());
    let context = &container(&theirs)["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], Value::Null);
    let role = find(&theirs, "ClusterRole", "istio-cni-repair-role").unwrap();
    assert_eq!(role["rules"].as_array().unwrap().len(), 4);

    let ours = on(PlatformKind::Kubernetes, json!({}));
    assert_eq!(container(&ours)["image"], OURS);
    assert_eq!(config(&ours)["REPAIR_ENABLED"], "false");
    assert_eq!(config(&ours)["NATIVE_NFTABLES"], Value::Null);
    assert_eq!(config(&ours)["AMBIENT_DNS_CAPTURE"], "false");
    assert!(env(&ours, "GOMEMLIMIT").is_none());
    assert!(find(&ours, "ClusterRole", "istio-cni-repair-role").is_none());
    let context = &container(&ours)["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], true);
}

#[test]
fn settings_of_go_s_runtime_end_with_release_1_32() {
    let has = |release: &str| {
        let settings = Settings {
            release: release.to_owned(),
            ..settings(PlatformKind::Kubernetes)
        };
        let values = json!({"global": {"distribution": "istio"}});
        let rendered = render(&spec(values), &settings).unwrap();
        env(&rendered, "GOMAXPROCS").is_some()
    };
    assert!(has("1.24.0") && has("1.31.0-beta.1"));
    assert!(!has("1.32.0") && !has("1.32-alpha.527f8d6c"));
}

#[test]
fn rules_of_the_node_are_changed_under_the_node_s_lock() {
    let ours = on(PlatformKind::Kubernetes, json!({}));
    assert_eq!(host_path(&ours, "xtables-lock"), Some("/run/xtables.lock"));
    let theirs = on(
        PlatformKind::Kubernetes,
        json!({"global": {"distribution": "istio"}}),
    );
    assert_eq!(host_path(&theirs, "xtables-lock"), None);
}

#[test]
fn sidecars_alone_are_for_istio_s_agent() {
    let off = json!({"cni": {"ambient": {"enabled": false}}});
    let error = render(&spec(off.clone()), &settings(PlatformKind::Kubernetes)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("spec.values.cni.ambient.enabled: ")
    );
    let mut theirs = off;
    theirs["global"] = json!({"distribution": "istio"});
    let rendered = on(PlatformKind::Kubernetes, theirs);
    assert_eq!(config(&rendered)["AMBIENT_ENABLED"], "false");
    assert_eq!(host_path(&rendered, "cni-netns-dir"), None);
    assert!(env(&rendered, "ALLOW_SWITCH_TO_HOST_NS").is_none());
    assert!(find(&rendered, "ClusterRole", "istio-cni-ambient").is_none());
}

#[test]
fn a_new_configuration_replaces_the_pods() {
    let hash = |values| {
        let rendered = on(PlatformKind::Kubernetes, values);
        let set = find(&rendered, "DaemonSet", DAEMON_SET).unwrap();
        let annotations = &set["spec"]["template"]["metadata"]["annotations"];
        annotations["lateen.io/config-hash"].clone()
    };
    let before = hash(json!({}));
    assert_eq!(before, hash(json!({"cni": {"podLabels": {}}})));
    assert_ne!(
        before,
        hash(json!({"cni": {"excludeNamespaces": ["other"]}}))
    );
}

#[test]
fn what_values_say_of_the_pods_is_what_the_pods_are() {
    let values = json!({
        "cni": {
            "logging": {"level": "all:debug"},
            "env": {"OTHER": 1},
            "tolerations": [{"operator": "Exists"}],
            "updateStrategy": {"type": "OnDelete"},
            "terminationGracePeriodSeconds": 60,
            "useAppArmorAnnotation": false,
            "seccompProfile": {"type": "Unconfined"},
            "resources": {"limits": {"memory": "1Gi"}},
            "resourceQuotas": {"enabled": true, "pods": 7},
            "ambient": {"shareHostNetworkNamespace": true, "dnsCapture": true},
        },
        "global": {
            "logAsJson": true,
            "imagePullSecrets": ["pull"],
            "imagePullPolicy": "Always",
            "networkPolicy": {"enabled": true},
        },
    });
    let rendered = on(PlatformKind::Kubernetes, values);
    let (pod, container) = (pod(&rendered), container(&rendered));
    assert_eq!(
        container["args"],
        json!(["--log_output_level=all:debug", "--log_as_json"])
    );
    assert_eq!(
        env(&rendered, "OTHER").unwrap(),
        &json!({"name": "OTHER", "value": "1"})
    );
    assert_eq!(config(&rendered)["OTHER"], "1");
    assert_eq!(config(&rendered)["AMBIENT_DNS_CAPTURE"], "true");
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["terminationGracePeriodSeconds"], 60);
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["dnsPolicy"], "ClusterFirstWithHostNet");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["resources"], json!({"limits": {"memory": "1Gi"}}));
    let context = &container["securityContext"];
    assert_eq!(context["appArmorProfile"]["type"], "Unconfined");
    assert_eq!(context["seccompProfile"]["type"], "Unconfined");
    let set = find(&rendered, "DaemonSet", DAEMON_SET).unwrap();
    assert_eq!(set["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    let quota = find(&rendered, "ResourceQuota", QUOTA).unwrap();
    assert_eq!(quota["spec"]["hard"]["pods"], "7");
    assert!(find(&rendered, "NetworkPolicy", ACCOUNT).is_some());
}

#[test]
fn a_scope_leaves_out_the_objects_of_the_other() {
    for (scope, namespaced) in [("cluster", false), ("namespace", true)] {
        let rendered = on(
            PlatformKind::OpenShift,
            json!({"global": {"resourceScope": scope}}),
        );
        assert!(!rendered.objects.is_empty());
        let mut objects = rendered.objects.iter();
        assert!(objects.all(|object| object.kind.namespaced == namespaced));
    }
}

#[test]
fn values_without_effect_are_told() {
    let values = json!({"cni": {"chaind": true, "privileged": true, "repair": {"enabled": true}}});
    let rendered = on(PlatformKind::Kubernetes, values);
    let notes: Vec<_> = rendered.notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert_eq!(
        notes[0],
        "spec.values.cni.chaind is not known and has no effect"
    );
}

#[test]
fn capture_of_dns_that_our_ztunnel_does_not_answer_is_told() {
    let notes = |values| {
        let rendered = on(PlatformKind::Kubernetes, values);
        let notes = rendered.notes.iter().map(ToString::to_string);
        notes.collect::<Vec<_>>()
    };
    let capture = json!({"cni": {"ambient": {"dnsCapture": true}}});
    let told = notes(capture.clone());
    assert_eq!(told.len(), 1, "{told:?}");
    let (path, advice) = ("spec.values.cni.ambient.dnsCapture: ", "leave it out");
    assert!(
        told[0].starts_with(path) && told[0].contains(advice),
        "{told:?}"
    );

    let mut istios = capture;
    istios["global"] = json!({"distribution": "istio"});
    assert!(notes(istios).is_empty());
    let off = json!({"cni": {"ambient": {"dnsCapture": false}}});
    assert!(notes(off).is_empty());
}

#[test]
fn what_the_agent_needs_is_not_the_users() {
    let users = json!({"cni": {"env": {
        "ALLOW_SWITCH_TO_HOST_NS": "false", "AMBIENT_ENABLED": "false", "POD_NAMESPACE": "mine",
        "AMBIENT_IPV6": "false",
    }}});
    let rendered = on(PlatformKind::Kubernetes, users);
    let source = json!({"fieldRef": {"fieldPath": "metadata.namespace"}});
    assert_eq!(
        env(&rendered, "POD_NAMESPACE").unwrap()["valueFrom"],
        source
    );
    let switch = env(&rendered, "ALLOW_SWITCH_TO_HOST_NS").unwrap();
    assert_eq!(switch["value"], "true");
    assert!(env(&rendered, "AMBIENT_ENABLED").is_none());
    assert_eq!(config(&rendered)["AMBIENT_ENABLED"], "true");
    assert_eq!(config(&rendered)["AMBIENT_IPV6"], "false");
    let paths: Vec<_> = rendered.notes.iter().map(Note::path).collect();
    assert_eq!(
        paths,
        [
            "cni.env.ALLOW_SWITCH_TO_HOST_NS",
            "cni.env.AMBIENT_ENABLED",
            "cni.env.POD_NAMESPACE"
        ]
    );
}
