use serde_json::json;

use super::*;

fn values(value: Value) -> Values {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

fn istio(value: Value) -> Read<IstioValues> {
    read(&values(value)).unwrap()
}

#[test]
fn what_is_written_unquoted_is_read_as_what_is_meant() {
    let read = istio(json!({
        "global": { "tag": 1.24, "logAsJson": "true" },
        "pilot": { "tag": 7, "replicaCount": "2", "env": { "A": true, "B": 1, "C": "x" }, "traceSampling": "0.5" },
        "compatibilityVersion": 1.28,
    }));
    assert!(read.unknown.is_empty());
    let IstioValues {
        global,
        pilot,
        compatibility_version,
        ..
    } = read.values;
    assert_eq!(
        (global.tag.as_deref(), global.log_as_json),
        (Some("1.24"), Some(true))
    );
    assert_eq!(
        (pilot.tag.as_deref(), pilot.replica_count),
        (Some("7"), Some(2))
    );
    let env: Vec<_> = pilot.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        (env, pilot.trace_sampling),
        (vec!["A=true".into(), "B=1".into(), "C=x".into()], Some(0.5))
    );
    assert_eq!(compatibility_version.as_deref(), Some("1.28"));
}

#[test]
fn what_nobody_knows_is_told_by_its_path() {
    let read = istio(json!({
        "pilot": { "replicas": 2, "cni": { "enabld": true } },
        "meshConfig": { "anything": 1 },
        "gatewayClasses": { "x": { "y": 1 } },
        "pilots": {},
    }));
    assert_eq!(
        read.unknown,
        ["pilot.cni.enabld", "pilot.replicas", "pilots"]
    );
}

#[test]
fn null_takes_a_value_away() {
    let read =
        istio(json!({ "pilot": null, "global": { "tag": null, "sts": { "servicePort": null } } }));
    assert_eq!(
        read,
        Read {
            values: IstioValues::default(),
            unknown: vec![]
        }
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_told_by_its_path() {
    let problem = |value| read::<IstioValues>(&values(value)).unwrap_err().to_string();
    let text = problem(json!({ "pilot": { "replicaCount": "two" } }));
    assert_eq!(
        text,
        "pilot.replicaCount: invalid value: string \"two\", expected a whole number"
    );
    let text = problem(json!({ "pilot": { "tolerations": [{}, { "key": 1 }] } }));
    assert!(text.starts_with("pilot.tolerations[1].key: "), "{text}");
}

#[test]
fn environment_variables_of_ztunnel_have_values_or_sources() {
    let read = |env: Value| read::<ZtunnelValues>(&values(json!({ "ztunnel": { "env": env } })));
    let source = json!({ "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } });
    let env = read(json!({ "A": "x", "B": 1, "C": { "value": true }, "D": source }))
        .unwrap()
        .values
        .ztunnel
        .env;
    let text = |text: &str| Some(EnvValue::Text(text.to_owned()));
    assert_eq!(
        ["A", "B", "C"].map(|n| env.get(n).cloned()),
        [text("x"), text("1"), text("true")]
    );
    assert!(matches!(&env["D"], EnvValue::From(source) if source.field_ref.is_some()));
    let text = read(json!({ "A": { "valueFrm": {} } }))
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("ztunnel.env.A: ") && text.contains("valueFrm"),
        "{text}"
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
    let node =
        |path| [Component::Cni, Component::Ztunnel].map(|c| without_effect(c, path).is_some());
    assert_eq!(node("global.network"), [true, false]);
    assert_eq!(node("global.logging.level"), [false, false]);
    assert_eq!(node("global.priorityClassName"), [true, true]);
    assert_eq!(node("cni.privileged"), [true, false]);
}
