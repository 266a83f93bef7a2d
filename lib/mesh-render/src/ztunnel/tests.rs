use super::*;
use crate::{Images, Platform, PlatformKind};

const OURS: &str = "registry.example/lateen/ztunnel@sha256:aa";

fn settings(kind: PlatformKind, release: &str) -> Settings {
    Settings {
        platform: Platform {
            kind,
            ..Platform::default()
        },
        release: release.to_owned(),
        images: Images {
            ztunnel: OURS.to_owned(),
            ..Images::default()
        },
        ztunnel_namespace: None,
    }
}

fn spec(values: Value) -> ZTunnelSpec {
    ZTunnelSpec {
        version: "v1.30.3".to_owned(),
        namespace: "ztunnel".to_owned(),
        values: serde_json::from_value(values).unwrap(),
        ..ZTunnelSpec::default()
    }
}

fn plain(values: Value) -> Rendered {
    let settings = settings(PlatformKind::Kubernetes, "1.30.3");
    render(&spec(values), None, &settings).unwrap()
}

fn find<'a>(rendered: &'a Rendered, kind: &str) -> Option<&'a Object> {
    rendered
        .objects
        .iter()
        .find(|object| object.kind.kind == kind)
}

fn pod(rendered: &Rendered) -> &Value {
    &find(rendered, "DaemonSet").unwrap().body["spec"]["template"]["spec"]
}

fn env<'a>(rendered: &'a Rendered, name: &str) -> Option<&'a str> {
    let mut env = pod(rendered)["containers"][0]["env"].as_array()?.iter();
    let entry = env.find(|entry| entry["name"] == name)?;
    Some(entry["value"].as_str().unwrap_or("from elsewhere"))
}

#[test]
fn the_walkthrough_s_image_is_taken_as_it_is() {
    let image = "docker.io/istio/ztunnel:1.24.0";
    let rendered = plain(json!({"ztunnel": {"image": image}}));
    assert_eq!(pod(&rendered)["containers"][0]["image"], image);
    assert_eq!(rendered.notes, []);
    let rendered = plain(json!({}));
    assert_eq!(pod(&rendered)["containers"][0]["image"], OURS);
}

#[test]
fn settings_of_the_control_plane_are_taken_over_and_the_user_s_win() {
    let base = json!({
        "revision": "canary",
        "meshConfig": {"defaultConfig": {"proxyMetadata": {"ISTIO_META_ONE": "1", "TWO": "2"}}},
        "global": {
            "istioNamespace": "mesh",
            "network": "east",
            "multiCluster": {"clusterName": "here"},
            "logAsJson": true,
            "proxy": {"clusterDomain": "corp.example"},
        },
    });
    let base = serde_json::from_value(base).unwrap();
    let user = json!({"ztunnel": {"network": "west", "env": {"TWO": "mine"}}});
    let settings = settings(PlatformKind::Kubernetes, "1.30.3");
    let rendered = render(&spec(user), Some(&base), &settings).unwrap();
    let expected = [
        ("XDS_ADDRESS", "istiod-canary.mesh.svc:15012"),
        ("CA_ADDRESS", "istiod-canary.mesh.svc:15012"),
        ("NETWORK", "west"),
        ("ISTIO_META_CLUSTER_ID", "here"),
        ("LOG_FORMAT", "json"),
        ("CLUSTER_DOMAIN", "corp.example"),
        ("ISTIO_META_ONE", "1"),
        ("ISTIO_META_ENABLE_HBONE", "true"),
        ("TWO", "mine"),
    ];
    for (name, value) in expected {
        assert_eq!(env(&rendered, name), Some(value), "{name}");
    }
    let template = &find(&rendered, "DaemonSet").unwrap().body["spec"]["template"];
    assert_eq!(
        template["metadata"]["annotations"]["istio.io/rev"],
        "canary"
    );
    assert_eq!(rendered.notes, []);
}

#[test]
fn no_variable_stands_there_twice() {
    let user = json!({"ztunnel": {"env": {"RUST_LOG": "debug", "CA_ADDRESS": "ca:1", "X": 1}}});
    let rendered = plain(user);
    let names = pod(&rendered)["containers"][0]["env"].as_array().unwrap();
    let mut names: Vec<_> = names
        .iter()
        .map(|entry| entry["name"].to_string())
        .collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
    assert_eq!(env(&rendered, "RUST_LOG"), Some("debug"));
    assert_eq!(env(&rendered, "CA_ADDRESS"), Some("ca:1"));
}

#[test]
fn releases_differ_in_threads_and_name_resolution() {
    let values = json!({"ztunnel": {
        "dnsPolicy": "Default",
        "resources": {"limits": {"cpu": "2"}},
    }});
    let at = |release: &str| {
        let settings = settings(PlatformKind::Kubernetes, release);
        render(&spec(values.clone()), None, &settings).unwrap()
    };
    let old = at("1.29.6");
    assert_eq!(pod(&old)["dnsPolicy"], Value::Null);
    let told = "spec.values.ztunnel.dnsPolicy has no effect: releases before 1.30 do not have it";
    assert_eq!(old.notes[0].to_string(), told);
    assert!(env(&old, "ZTUNNEL_RESOURCE_CPU_LIMIT").is_none());
    let newer = at("1.30.0");
    assert_eq!(pod(&newer)["dnsPolicy"], "Default");
    assert_eq!(newer.notes, []);
    assert!(env(&newer, "ZTUNNEL_RESOURCE_CPU_LIMIT").is_none());
    let newest = at("1.31.0-beta.1");
    assert!(env(&newest, "ZTUNNEL_CPU_LIMIT").is_some());
    assert!(env(&newest, "ZTUNNEL_RESOURCE_CPU_LIMIT").is_some());
    // No request is written, so there is none to tell of.
    assert!(env(&newest, "ZTUNNEL_RESOURCE_CPU_REQUEST").is_none());
}

#[test]
fn fips_asks_for_tls_1_2_before_release_1_31_alone() {
    let tls12 = |release: &str, fips: bool, values: Value| {
        let mut settings = settings(PlatformKind::Kubernetes, release);
        settings.platform.fips = fips;
        let rendered = render(&spec(values), None, &settings).unwrap();
        env(&rendered, "TLS12_ENABLED").map(str::to_owned)
    };
    let yes = Some("true".to_owned());
    assert_eq!(tls12("1.24.0", true, json!({})), yes);
    assert_eq!(tls12("1.30.3", true, json!({})), yes);
    assert_eq!(tls12("1.31.0-beta.1", true, json!({})), None);
    assert_eq!(tls12("1.30.3", false, json!({})), None);
    let own = json!({"ztunnel": {"env": {"TLS12_ENABLED": "false"}}});
    assert_eq!(tls12("1.30.3", true, own), Some("false".to_owned()));
}

#[test]
fn revocation_lists_are_refused_where_nobody_checks_them() {
    let values = json!({"ztunnel": {"peerCaCrl": {"enabled": true}}});
    let settings = settings(PlatformKind::Kubernetes, "1.30.3");
    let error = render(&spec(values.clone()), None, &settings).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("spec.values.ztunnel.peerCaCrl.enabled: ")
    );
    let mut theirs = values;
    theirs["global"] = json!({"distribution": "istio"});
    let rendered = render(&spec(theirs), None, &settings).unwrap();
    assert_eq!(
        env(&rendered, "CRL_PATH"),
        Some("/var/run/secrets/istio/crl/ca-crl.pem")
    );
}

#[test]
fn the_account_keeps_the_name_that_the_control_plane_trusts() {
    let rendered = plain(json!({"ztunnel": {"resourceName": "proxy"}}));
    assert_eq!(find(&rendered, "DaemonSet").unwrap().name, "proxy");
    assert_eq!(find(&rendered, "ServiceAccount").unwrap().name, NAME);
    assert_eq!(pod(&rendered)["serviceAccountName"], NAME);
}

#[test]
fn what_values_say_of_the_objects_is_what_the_objects_are() {
    let values = json!({
        "ztunnel": {
            "labels": {"team": "net"},
            "annotations": {"note": "here"},
            "podLabels": {"pod": "label", "app": "other"},
            "podAnnotations": {"prometheus.io/scrape": "false"},
            "nodeSelector": {"pool": "a"},
            "terminationGracePeriodSeconds": 300,
            "logLevel": "debug",
            "logAsJson": true,
            "imagePullSecrets": ["pull"],
            "volumes": [{"name": "spire", "csi": {"driver": "csi.spiffe.io", "readOnly": true}}],
            "volumeMounts": [{"name": "spire", "mountPath": "/spire"}],
            "resourceQuotas": {"enabled": true},
            "env": {"FROM": {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}},
        },
        "global": {"networkPolicy": {"enabled": true}},
    });
    let rendered = plain(values);
    for object in &rendered.objects {
        assert_eq!(
            object.body["metadata"]["labels"]["team"], "net",
            "{}",
            object.name
        );
        assert_eq!(
            object.body["metadata"]["annotations"]["note"], "here",
            "{}",
            object.name
        );
    }
    let template = &find(&rendered, "DaemonSet").unwrap().body["spec"]["template"];
    let (labels, pod) = (&template["metadata"]["labels"], pod(&rendered));
    assert_eq!(
        (&labels["pod"], &labels["app"]),
        (&json!("label"), &json!("ztunnel"))
    );
    assert_eq!(
        template["metadata"]["annotations"]["prometheus.io/scrape"],
        "false"
    );
    assert_eq!(
        pod["nodeSelector"],
        json!({"kubernetes.io/os": "linux", "pool": "a"})
    );
    assert_eq!(pod["terminationGracePeriodSeconds"], 300);
    assert_eq!(
        env(&rendered, "TERMINATION_GRACE_PERIOD_SECONDS"),
        Some("300")
    );
    assert_eq!(env(&rendered, "RUST_LOG"), Some("debug"));
    assert_eq!(env(&rendered, "LOG_FORMAT"), Some("json"));
    assert_eq!(env(&rendered, "FROM"), Some("from elsewhere"));
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(
        pod["volumes"].as_array().unwrap().last().unwrap()["name"],
        "spire"
    );
    let quota = &find(&rendered, "ResourceQuota").unwrap().body;
    assert_eq!(quota["spec"]["hard"]["pods"], "5000");
    let policy = &find(&rendered, "NetworkPolicy").unwrap().body;
    assert_eq!(
        policy["spec"]["ingress"][0]["ports"]
            .as_array()
            .unwrap()
            .len(),
        8
    );
}

#[test]
fn what_the_proxy_needs_is_not_the_users() {
    let base = json!({"meshConfig": {"defaultConfig": {"proxyMetadata": {"NODE_NAME": "mine"}}}});
    let base = serde_json::from_value(base).unwrap();
    let from = json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}});
    let user = json!({"ztunnel": {"env": {"INPOD_ENABLED": "false", "POD_NAME": from, "X": "y"}}});
    let settings = settings(PlatformKind::Kubernetes, "1.30.3");
    let rendered = render(&spec(user), Some(&base), &settings).unwrap();
    assert_eq!(env(&rendered, "INPOD_ENABLED"), Some("true"));
    assert_eq!(env(&rendered, "NODE_NAME"), Some("from elsewhere"));
    assert_eq!(env(&rendered, "X"), Some("y"));
    let variables = pod(&rendered)["containers"][0]["env"].as_array().unwrap();
    let name = variables.iter().find(|entry| entry["name"] == "POD_NAME");
    let path = &name.unwrap()["valueFrom"]["fieldRef"]["fieldPath"];
    assert_eq!(path, "metadata.name");
    let notes: Vec<_> = rendered.notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes.len(), 3);
    assert_eq!(
        notes[0],
        "spec.values.ztunnel.env.INPOD_ENABLED has no effect: the program works only with what the operator \
         sets it to"
    );
    assert!(notes[2].contains("proxyMetadata.NODE_NAME"), "{notes:?}");
}
