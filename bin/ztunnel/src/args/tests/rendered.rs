//! What the operator renders is what this proxy takes.

use mesh_api::sail::ZTunnelSpec;
use mesh_render::{Images, Platform, PlatformKind, Settings, ztunnel};
use serde_json::{Value, json};

use super::*;

/// The pods of the DaemonSet, for this release, platform and values.
fn pod(release: &str, platform: &Platform, values: &Value) -> Value {
    let settings = Settings {
        platform: platform.clone(),
        release: release.to_owned(),
        images: Images {
            ztunnel: "registry.example/ztunnel:1".to_owned(),
            ..Images::default()
        },
        ztunnel_namespace: None,
    };
    let spec = ZTunnelSpec {
        namespace: "ztunnel".to_owned(),
        values: values.as_object().unwrap().clone(),
        ..ZTunnelSpec::default()
    };
    let rendered = ztunnel::render(&spec, None, &settings).unwrap();
    let objects = rendered.objects.into_iter();
    let mut sets = objects.filter(|object| object.kind.kind == "DaemonSet");
    sets.next().unwrap().body["spec"]["template"]["spec"].clone()
}

/// What the kubelet makes of the container's environment.
fn environment(pod: &Value) -> Environment {
    let entries = pod["containers"][0]["env"].as_array().unwrap().iter();
    let resolved = entries.map(|entry| {
        let source = &entry["valueFrom"];
        let value = match (
            entry["value"].as_str(),
            source["fieldRef"]["fieldPath"].as_str(),
        ) {
            (Some(text), _) => text,
            (None, Some("status.podIP")) => "10.0.0.7",
            (None, Some(path)) => path.rsplit('.').next().unwrap(),
            // Resources are whole numbers.
            (None, None) => "2",
        };
        (entry["name"].as_str().unwrap(), value)
    });
    resolved.collect()
}

#[test]
fn the_environment_that_the_operator_renders_is_accepted() {
    let values = [
        json!({}),
        json!({"ztunnel": {
            "logLevel": "info,access=debug", "logAsJson": true, "network": "east",
            "terminationGracePeriodSeconds": 300, "resources": {"limits": {"cpu": "2"}},
            "multiCluster": {"clusterName": "here"},
        }}),
    ];
    for release in ["1.24.0", "1.30.3", "1.31.0-beta.1"] {
        for kind in [PlatformKind::Kubernetes, PlatformKind::OpenShift] {
            for fips in [false, true] {
                let platform = Platform {
                    kind,
                    fips,
                    tls: None,
                };
                for values in &values {
                    let pod = pod(release, &platform, values);
                    let config = Config::from_environment(&environment(&pod)).unwrap();
                    assert_eq!(config.ca.address, "https://istiod.istio-system.svc:15012");
                    assert_eq!(
                        config.tls12,
                        fips && release != "1.31.0-beta.1",
                        "{release}"
                    );
                    assert_eq!(&*config.node.pod_namespace, "namespace");
                }
            }
        }
    }
}

#[test]
fn values_of_the_resource_arrive_in_the_configuration() {
    let values = json!({
        "ztunnel": {
            "logAsJson": true, "network": "east", "terminationGracePeriodSeconds": 300,
            "multiCluster": {"clusterName": "here"}, "caAddress": "ca.example:443",
            "env": {"ZTUNNEL_WORKER_THREADS": 3},
        },
        "global": {"proxy": {"clusterDomain": "corp.example"}},
    });
    let pod = pod("1.30.3", &Platform::default(), &values);
    let config = Config::from_environment(&environment(&pod)).unwrap();
    assert!(config.log.json);
    assert_eq!(&*config.node.network, "east");
    assert_eq!(&*config.node.cluster_id, "here");
    assert_eq!(&*config.node.cluster_domain, "corp.example");
    assert_eq!(config.ca.address, "https://ca.example:443");
    assert_eq!(config.worker_threads, 3);
    assert_eq!(config.termination_deadline, Duration::from_secs(295));
}

#[test]
fn the_files_that_are_read_by_default_are_mounted() {
    let pod = pod("1.30.3", &Platform::default(), &json!({}));
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    for file in [TOKEN, ROOT, "./var/run/ztunnel/ztunnel.sock"] {
        let folder = file.trim_start_matches('.').rsplit_once('/').unwrap().0;
        assert!(
            mounts.iter().any(|mount| mount["mountPath"] == folder),
            "{file}"
        );
    }
}
