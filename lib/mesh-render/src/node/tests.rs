//! The programs on the nodes: each value changes what is rendered, and to something that the API server takes.

use kube::core::GroupVersionKind;
use mesh_api::sail::{IstioCNISpec, Values, ZTunnelSpec};
use proptest::prelude::*;
use serde_json::{Value, json};
use testkit_kube::schema::Schema;

use crate::{
    Error, Images, Object, Platform, PlatformKind, Rendered, Settings, cni, layers::merge, ztunnel,
};

fn settings(kind: PlatformKind) -> Settings {
    Settings {
        platform: Platform {
            kind,
            ..Platform::default()
        },
        release: "1.30.3".to_owned(),
        images: Images {
            cni: "registry.example/install-cni:1".to_owned(),
            ztunnel: "registry.example/ztunnel:1".to_owned(),
            ..Images::default()
        },
        ztunnel_namespace: None,
    }
}

/// What the API server would say about an object; nothing about kinds that it does not have built in.
fn complaints(object: &Object) -> Vec<String> {
    let kind = object.kind;
    let kind = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
    let Some(schema) = Schema::builtin(&kind) else {
        return Vec::new();
    };
    let mut body = object.body.clone();
    let pruned = schema.prune(&mut body);
    schema.apply_defaults(&mut body);
    let causes = schema.validate(&body, None);
    let causes = causes.into_iter().map(|cause| format!("{cause:?}"));
    pruned.into_iter().chain(causes).collect()
}

fn map(values: &Value) -> Values {
    values.as_object().expect("values are an object").clone()
}

fn agent(values: &Value, kind: PlatformKind) -> Result<Rendered, Error> {
    let spec = IstioCNISpec {
        namespace: "istio-cni".to_owned(),
        values: map(values),
        ..IstioCNISpec::default()
    };
    cni::render(&spec, &settings(kind))
}

fn proxy(values: &Value, kind: PlatformKind) -> Result<Rendered, Error> {
    let spec = ZTunnelSpec {
        namespace: "ztunnel".to_owned(),
        values: map(values),
        ..ZTunnelSpec::default()
    };
    ztunnel::render(&spec, None, &settings(kind))
}

/// Values of the agent. The second is needed for the first to matter.
fn agent_values() -> Vec<(Value, Value)> {
    let istio = || json!({"global": {"distribution": "istio"}});
    let alone = [
        json!({"cni": {"hub": "mirror.example/lateen"}}),
        json!({"cni": {"tag": "1.30.3-2"}}),
        json!({"cni": {"image": "mirror.example/agent:1"}}),
        json!({"cni": {"pullPolicy": "Never"}}),
        json!({"cni": {"logging": {"level": "all:debug"}}}),
        json!({"cni": {"cniBinDir": "/opt/own"}}),
        json!({"cni": {"cniConfDir": "/etc/own"}}),
        json!({"cni": {"cniConfFileName": "own.conf"}}),
        json!({"cni": {"cniNetnsDir": "/run/netns"}}),
        json!({"cni": {"istioOwnedCNIConfig": true}}),
        json!({"cni": {"istioOwnedCNIConfigFileName": "00-own.conflist"}}),
        json!({"cni": {"excludeNamespaces": []}}),
        json!({"cni": {"affinity": {"nodeAffinity": {}}}}),
        json!({"cni": {"daemonSetLabels": {"a": "b"}}}),
        json!({"cni": {"podAnnotations": {"a": "b"}}}),
        json!({"cni": {"podLabels": {"a": "b"}}}),
        json!({"cni": {"chained": false}}),
        json!({"cni": {"provider": "multus"}}),
        json!({"cni": {"ambient": {"enablementSelectors": []}}}),
        json!({"cni": {"ambient": {"ipv6": false}}}),
        json!({"cni": {"ambient": {"reconcileIptablesOnStartup": false}}}),
        json!({"cni": {"ambient": {"shareHostNetworkNamespace": true}}}),
        json!({"cni": {"ambient": {"enableAmbientDetectionRetry": true}}}),
        json!({"cni": {"seccompProfile": {"type": "Unconfined"}}}),
        json!({"cni": {"seLinuxOptions": {"type": "own_t"}}}),
        json!({"cni": {"useAppArmorAnnotation": false}}),
        json!({"cni": {"resources": {"limits": {"memory": "1Gi"}}}}),
        json!({"cni": {"resourceQuotas": {"enabled": true}}}),
        json!({"cni": {"tolerations": []}}),
        json!({"cni": {"updateStrategy": {"type": "OnDelete"}}}),
        json!({"cni": {"terminationGracePeriodSeconds": 5}}),
        json!({"cni": {"revision": "canary"}}),
        json!({"cni": {"env": {"A": "b"}}}),
        json!({"global": {"nativeNftables": true}}),
        json!({"global": {"logAsJson": true}}),
        json!({"global": {"logging": {"level": "all:debug"}}}),
        json!({"global": {"imagePullSecrets": ["pull"]}}),
        json!({"global": {"imagePullPolicy": "Always"}}),
        json!({"global": {"networkPolicy": {"enabled": true}}}),
        json!({"global": {"defaultResources": {"requests": {"cpu": "1"}}}}),
        json!({"global": {"hub": "mirror.example/lateen"}}),
        json!({"global": {"tag": "1.30.3-2"}}),
        json!({"global": {"platform": "openshift"}}),
        istio(),
    ];
    let with_istio = [
        json!({"cni": {"repair": {"enabled": false}}}),
        json!({"cni": {"repair": {"labelPods": true}}}),
        json!({"cni": {"repair": {"deletePods": true}}}),
        json!({"cni": {"repair": {"repairPods": false}}}),
        json!({"cni": {"repair": {"initContainerName": "own"}}}),
        json!({"cni": {"repair": {"brokenPodLabelKey": "own"}}}),
        json!({"cni": {"repair": {"brokenPodLabelValue": "own"}}}),
        json!({"cni": {"ambient": {"enabled": false}}}),
        json!({"cni": {"ambient": {"dnsCapture": false}}}),
        json!({"cni": {"hub": "docker.io/istio", "variant": "debug"}}),
    ];
    let quota = json!({"cni": {"resourceQuotas": {"enabled": true}}});
    let pods = json!({"cni": {"resourceQuotas": {"pods": 7}}});
    let alone = alone.into_iter().map(|values| (values, json!({})));
    let with_istio = with_istio.into_iter().map(|values| (values, istio()));
    alone.chain(with_istio).chain([(pods, quota)]).collect()
}

fn proxy_values() -> Vec<(Value, Value)> {
    let alone = [
        json!({"ztunnel": {"hub": "mirror.example/lateen"}}),
        json!({"ztunnel": {"tag": "1.30.3-2"}}),
        json!({"ztunnel": {"image": "mirror.example/proxy:1"}}),
        json!({"ztunnel": {"imagePullPolicy": "Never"}}),
        json!({"ztunnel": {"imagePullSecrets": [{"name": "pull"}]}}),
        json!({"ztunnel": {"resourceName": "proxy"}}),
        json!({"ztunnel": {"revision": "canary"}}),
        json!({"ztunnel": {"istioNamespace": "mesh"}}),
        json!({"ztunnel": {"caAddress": "ca.example:443"}}),
        json!({"ztunnel": {"xdsAddress": "xds.example:443"}}),
        json!({"ztunnel": {"network": "east"}}),
        json!({"ztunnel": {"multiCluster": {"clusterName": "here"}}}),
        json!({"ztunnel": {"logLevel": "debug"}}),
        json!({"ztunnel": {"logAsJson": true}}),
        json!({"ztunnel": {"labels": {"a": "b"}}}),
        json!({"ztunnel": {"annotations": {"a": "b"}}}),
        json!({"ztunnel": {"podLabels": {"a": "b"}}}),
        json!({"ztunnel": {"podAnnotations": {"a": "b"}}}),
        json!({"ztunnel": {"env": {"A": {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}}}}),
        json!({"ztunnel": {"affinity": {"nodeAffinity": {}}}}),
        json!({"ztunnel": {"nodeSelector": {"a": "b"}}}),
        json!({"ztunnel": {"tolerations": []}}),
        json!({"ztunnel": {"resources": {"limits": {"cpu": "2"}}}}),
        json!({"ztunnel": {"resourceQuotas": {"enabled": true}}}),
        json!({"ztunnel": {"seLinuxOptions": {"type": "own_t"}}}),
        json!({"ztunnel": {"terminationGracePeriodSeconds": 300}}),
        json!({"ztunnel": {"updateStrategy": {"type": "OnDelete"}}}),
        json!({"ztunnel": {"volumes": [{"name": "a", "emptyDir": {}}]}}),
        json!({"ztunnel": {"volumeMounts": [{"name": "tmp", "mountPath": "/scratch"}]}}),
        json!({"ztunnel": {"dnsPolicy": "Default"}}),
        json!({"ztunnel": {"dnsConfig": {"searches": ["example"]}}}),
        json!({"global": {"networkPolicy": {"enabled": true}}}),
        json!({"global": {"imagePullSecrets": ["pull"]}}),
        json!({"global": {"network": "east"}}),
        json!({"global": {"platform": "openshift"}}),
    ];
    let istio = json!({"global": {"hub": "docker.io/istio"}});
    let with_istio = [
        json!({"ztunnel": {"peerCaCrl": {"enabled": true}}}),
        json!({"ztunnel": {"variant": "debug"}}),
    ];
    let alone = alone.into_iter().map(|values| (values, json!({})));
    let with_istio = with_istio.into_iter().map(|values| (values, istio.clone()));
    alone.chain(with_istio).collect()
}

type Render = fn(&Value, PlatformKind) -> Result<Rendered, Error>;

#[test]
fn each_value_of_the_node_s_programs_has_an_effect_that_the_api_server_takes() {
    let all: [(Render, Vec<_>); 2] = [(agent, agent_values()), (proxy, proxy_values())];
    for (render, values) in all {
        for (value, needed) in values {
            for kind in [PlatformKind::Kubernetes, PlatformKind::OpenShift] {
                let before = render(&needed, kind).unwrap();
                let mut with = needed.clone();
                merge(&mut with, value.clone());
                let after = render(&with, kind).unwrap();
                let told: Vec<_> = after.notes.iter().map(ToString::to_string).collect();
                assert_eq!(told, [""; 0], "{value}");
                let wrong: Vec<_> = after.objects.iter().flat_map(complaints).collect();
                assert_eq!(wrong, [""; 0], "{value}");
                // What is so on OpenShift anyway changes elsewhere.
                if kind == PlatformKind::Kubernetes {
                    assert_ne!(before.to_yaml(), after.to_yaml(), "{value} changes nothing");
                }
            }
        }
    }
}

/// Values, right and wrong, at paths that are there and at others.
fn any_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..70_000).prop_map(Value::from),
        prop::sample::select(vec!["", "a", "x/y", "Always", "true", "openshift", "istio"])
            .prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "ambient",
        "enabled",
        "env",
        "resources",
        "limits",
        "tolerations",
        "image",
        "hub",
        "tag",
        "volumes",
        "name",
        "seccompProfile",
        "type",
        "seLinuxOptions",
        "repair",
        "podLabels",
        "resourceQuotas",
        "pods",
        "platform",
        "distribution",
        "network",
        "logAsJson",
        "unknown",
        "updateStrategy",
        "multiCluster",
        "clusterName",
        "excludeNamespaces",
        "resourceScope",
    ]);
    let inner = leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(keys.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let sections = prop::sample::select(vec!["cni", "ztunnel", "global", "other"]);
    prop::collection::btree_map(sections.prop_map(str::to_owned), inner, 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #[test]
    fn any_values_of_the_node_s_programs_are_rendered_alike_or_refused_with_their_path(
        values in any_values(),
    ) {
        for render in [agent as Render, proxy] {
            let rendered = || render(&values, PlatformKind::OpenShift)
                .map(|rendered| (rendered.to_yaml(), rendered.notes))
                .map_err(|error| error.to_string());
            let first = rendered();
            if let Err(text) = &first {
                prop_assert!(text.starts_with("spec.values."), "{}", text);
            }
            prop_assert_eq!(first, rendered());
        }
    }
}
