use serde_json::json;

use super::*;
use crate::{enrolment::Selector, spec::Sandbox};

fn sandbox() -> Sandbox {
    Sandbox {
        container_id: "a".to_owned(),
        interface: "eth0".to_owned(),
        netns: "/x".to_owned(),
        pod: None,
    }
}

fn parse(value: &Value, call: &Call) -> Result<NetworkConfig, Error> {
    NetworkConfig::parse(value.to_string().as_bytes(), call)
}

#[test]
fn entry_is_read_with_what_the_runtime_adds() {
    let config = parse(
        &json!({
            "cniVersion": "1.1.0", "name": "net", "type": "istio-cni", "plugin_log_level": "debug",
            "cni_agent_run_dir": "/run/x", "ambient_enabled": true, "exclude_namespaces": null,
            "enablement_selectors": Selector::defaults(), "pod_namespace": "istio-system",
            "ipam": {"type": "none"}, "runtimeConfig": {}, "prevResult": {"ips": []},
            "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}],
        }),
        &Call::Collect,
    );
    let config = config.unwrap();
    assert_eq!(
        (config.version, config.network.as_str()),
        (Version::V1_1_0, "net")
    );
    assert_eq!(config.plugin.cni_agent_run_dir, "/run/x");
    assert_eq!(config.plugin.enablement_selectors, Selector::defaults());
    assert_eq!(config.plugin.exclude_namespaces, Vec::<String>::new());
    assert_eq!(config.previous, Some(json!({"ips": []})));
    assert_eq!(
        (
            config.valid[0].container_id.as_str(),
            config.valid[0].ifname.as_str()
        ),
        ("a", "eth0")
    );
}

#[test]
fn what_is_not_said_is_istios_default() {
    let config = parse(
        &json!({"name": "net", "type": "istio-cni"}),
        &Call::Add(sandbox()),
    )
    .unwrap();
    assert_eq!(config.version, Version::V0_1_0);
    assert_eq!(config.previous, None);
    let expected = PluginConfig {
        name: "net".to_owned(),
        ..PluginConfig::default()
    };
    assert_eq!(config.plugin, expected);
}

#[test]
fn command_needs_a_version_that_has_it() {
    let calls = [
        Call::Add(sandbox()),
        Call::Check(sandbox()),
        Call::Delete(sandbox()),
        Call::Collect,
        Call::Status,
    ];
    for version in Version::ALL {
        let config = json!({"name": "net", "cniVersion": version.as_str(), "prevResult": {}});
        let accepted = calls.iter().map(|call| parse(&config, call).is_ok());
        let check = version >= Version::V0_4_0;
        let gc = version >= Version::V1_1_0;
        assert_eq!(
            accepted.collect::<Vec<_>>(),
            [true, check, true, gc, gc],
            "{version}"
        );
    }
    let error = parse(&json!({"name": "n", "cniVersion": "1.0.0"}), &Call::Status).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the configuration's CNI version 1.0.0 has no STATUS"
    );
    assert_eq!(error.code().number(), 1);
}

#[test]
fn what_is_wrong_has_the_specifications_code() {
    let add = Call::Add(sandbox());
    let check = Call::Check(sandbox());
    for (value, call, code) in [
        (json!([]), &add, 6),
        (json!({"cniVersion": 1, "name": "n"}), &add, 1),
        (json!({"cniVersion": "2.0.0", "name": "n"}), &add, 1),
        (json!({"cniVersion": "1.0.0"}), &add, 7),
        (json!({"cniVersion": "1.0.0", "name": "a/b"}), &add, 7),
        (
            json!({"cniVersion": "1.0.0", "name": "n", "exclude_namespaces": "x"}),
            &add,
            6,
        ),
        (
            json!({"cniVersion": "1.0.0", "name": "n", "enablement_selectors": [{"x": 1}]}),
            &add,
            6,
        ),
        (json!({"cniVersion": "1.0.0", "name": "n"}), &check, 7),
    ] {
        let error = parse(&value, call).unwrap_err();
        assert_eq!(error.code().number(), code, "{value}: {error}");
    }
    let long = NetworkConfig::parse(&vec![b' '; MAX_BYTES + 1], &add).unwrap_err();
    assert!(matches!(long, Error::TooLong), "{long}");
}
