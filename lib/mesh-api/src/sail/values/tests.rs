use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{no_effect::reasons, *};

/// The values, and the paths that their type does not have.
fn read<T: DeserializeOwned>(values: Value) -> Result<(T, Vec<String>), serde_json::Error> {
    let mut unknown = Vec::new();
    let values = serde_ignored::deserialize(values, |path| unknown.push(path.to_string()))?;
    Ok((values, unknown))
}

#[test]
fn what_is_written_unquoted_is_read_as_what_is_meant() {
    let (values, unknown) = read::<IstioValues>(json!({
        "global": { "tag": 1.24, "logAsJson": "true" },
        "pilot": { "tag": 7, "replicaCount": "2", "env": { "A": true, "B": 1, "C": "x" } },
        "compatibilityVersion": 1.28,
    }))
    .unwrap();
    assert!(unknown.is_empty(), "{unknown:?}");
    let (global, pilot) = (values.global, values.pilot);
    assert_eq!(
        (global.tag.as_deref(), global.log_as_json),
        (Some("1.24"), Some(true))
    );
    assert_eq!(
        (pilot.tag.as_deref(), pilot.replica_count),
        (Some("7"), Some(2))
    );
    let env: Vec<_> = pilot.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=true", "B=1", "C=x"]);
    assert_eq!(values.compatibility_version.as_deref(), Some("1.28"));
}

#[test]
fn what_the_types_do_not_have_is_told_by_its_path() {
    let (_, unknown) = read::<IstioValues>(json!({
        "pilot": { "replicas": 2, "cni": { "enabld": true } },
        "meshConfig": { "anything": 1 },
        "global": { "proxy": { "image": "x", "clusterDomain": "y" } },
    }))
    .unwrap();
    assert_eq!(
        unknown
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>(),
        ["global.proxy.image", "pilot.cni.enabld", "pilot.replicas"]
    );
}

#[test]
fn a_value_of_the_wrong_kind_says_what_was_expected() {
    let problem = |value| read::<IstioValues>(value).unwrap_err().to_string();
    let text = problem(json!({ "pilot": { "replicaCount": "two" } }));
    assert_eq!(
        text,
        "invalid value: string \"two\", expected a whole number"
    );
    let text = problem(json!({ "global": { "logAsJson": "yes" } }));
    assert_eq!(
        text,
        "invalid value: string \"yes\", expected true or false"
    );
}

#[test]
fn environment_variables_of_ztunnel_have_values_or_sources() {
    let read = |env: Value| read::<ZtunnelValues>(json!({ "ztunnel": { "env": env } }));
    let source = json!({ "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } });
    let env = json!({ "A": "x", "B": 1, "C": { "value": true }, "D": source });
    let env = read(env).unwrap().0.ztunnel.env;
    let text = |text: &str| Some(EnvValue::Text(text.to_owned()));
    assert_eq!(
        ["A", "B", "C"].map(|name| env.get(name).cloned()),
        [text("x"), text("1"), text("true")]
    );
    assert!(matches!(&env["D"], EnvValue::From(source) if source.field_ref.is_some()));
    let text = read(json!({ "A": { "valueFrm": {} } }))
        .unwrap_err()
        .to_string();
    assert!(text.contains("valueFrm"), "{text}");
    let text = read(json!({ "A": {} })).unwrap_err().to_string();
    assert_eq!(text, "expected one of value and valueFrom");
}

#[test]
fn pull_secrets_of_ztunnel_are_names_or_references() {
    let secrets = json!({ "ztunnel": { "imagePullSecrets": ["a", { "name": "b" }] } });
    let secrets = read::<ZtunnelValues>(secrets)
        .unwrap()
        .0
        .ztunnel
        .image_pull_secrets;
    assert_eq!(
        secrets
            .iter()
            .map(|secret| &*secret.name)
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[test]
fn what_has_no_effect_says_why() {
    let why = |path| without_effect(Component::Istio, path).unwrap_or("it has");
    assert!(why("global.waypoint.resources.limits").contains("waypoints"));
    assert!(why("global.proxy.image").contains("sidecars"));
    assert!(why("meshConfig.accessLogFile").contains("gateways"));
    for path in [
        "global.hub",
        "global.proxy",
        "global.proxy.clusterDomain",
        "pilot.resources.limits.cpu",
        "meshConfig.discoverySelectors[0].matchLabels",
        "meshConfig.defaultConfig",
        "meshConfig.defaultConfig.proxyMetadata.A",
        "global.waypoints",
        "meshConfig",
    ] {
        assert_eq!(why(path), "it has", "{path}");
    }
    let node = |path| {
        [Component::Cni, Component::Ztunnel].map(|node| without_effect(node, path).is_some())
    };
    assert_eq!(node("global.network"), [true, false]);
    assert_eq!(node("global.logging.level"), [false, false]);
    assert_eq!(node("global.priorityClassName"), [true, true]);
    assert_eq!(node("global.waypoint"), [true, true]);
    assert_eq!(node("global.hubb"), [false, false]);
    assert_eq!(node("cni.privileged"), [true, false]);
}

/// A reason for what a type has would never be given.
#[test]
fn what_has_a_reason_has_no_type() {
    fn unknown<T: DeserializeOwned>(component: Component, only_read_elsewhere: bool) {
        for (path, why) in reasons(component) {
            let segments: Vec<_> = path.split('.').rev().collect();
            let value = segments
                .iter()
                .fold(json!("x"), |value, name| json!({ *name: value }));
            let told = read::<T>(value).map_or_else(|_| Vec::new(), |(_, unknown)| unknown);
            let elsewhere = only_read_elsewhere && path.starts_with("global.");
            let in_part = ["global.proxy", "sidecarInjectorWebhook"].contains(&path);
            assert!(
                elsewhere || in_part || told == [path],
                "{path}: {why}: {told:?}"
            );
        }
    }
    unknown::<IstioValues>(Component::Istio, false);
    unknown::<CniValues>(Component::Cni, true);
    unknown::<ZtunnelValues>(Component::Ztunnel, true);
}
