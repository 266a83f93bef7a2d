use serde_json::json;

use super::*;
use crate::{Platform, PlatformKind};

fn map(value: Value) -> Values {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn merged(profile: &str, user: Value, kind: PlatformKind) -> Result<Value, Error> {
    let settings = Settings {
        platform: Platform {
            kind,
            ..Platform::default()
        },
        ..Settings::default()
    };
    let user = map(user);
    let layers = Layers {
        component: Component::Cni,
        defaults: json!({"cni": {"chained": true, "resources": {"requests": {"cpu": "100m"}}}}),
        profile,
        inherited: None,
        user: &user,
    };
    layers.merged(&settings).map(Value::Object)
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

#[test]
fn objects_are_merged_lists_replaced_and_null_takes_away() {
    let mut below =
        json!({"a": {"x": 1, "y": 2}, "list": [1, 2], "gone": {"deep": 1}, "scalar": 1});
    let above =
        json!({"a": {"y": 3}, "list": [3], "gone": null, "scalar": {"now": "object"}, "no": null});
    merge(&mut below, above);
    prune(&mut below);
    let expected = json!({"a": {"x": 1, "y": 3}, "list": [3], "scalar": {"now": "object"}});
    assert_eq!(below, expected);
}

#[test]
fn the_user_wins_over_platform_profile_and_defaults() {
    let values = merged("demo", json!({}), PlatformKind::OpenShift).unwrap();
    assert_eq!(at(&values, "/cni/chained"), false);
    assert_eq!(at(&values, "/cni/resources/requests/cpu"), "10m");
    let user = json!({"cni": {"chained": true, "resources": {"requests": null}}});
    let values = merged("demo", user, PlatformKind::OpenShift).unwrap();
    assert_eq!(at(&values, "/cni/chained"), true);
    assert_eq!(at(&values, "/cni/resources"), &json!({}));
    assert_eq!(at(&values, "/cni/cniBinDir"), "/var/lib/cni/bin");
}

#[test]
fn every_profile_makes_an_ambient_mesh() {
    for profile in PROFILES {
        let values = merged(profile, json!({}), PlatformKind::Kubernetes).unwrap();
        assert_eq!(at(&values, "/pilot/env/PILOT_ENABLE_AMBIENT"), "true");
        let metadata = at(&values, "/meshConfig/defaultConfig/proxyMetadata");
        assert_eq!(at(metadata, "/ISTIO_META_ENABLE_HBONE"), "true");
    }
}

#[test]
fn the_platform_that_is_named_wins_over_the_one_that_was_found() {
    let user = json!({"global": {"platform": "k3s"}});
    let values = merged("", user, PlatformKind::OpenShift).unwrap();
    assert_eq!(
        at(&values, "/cni/cniBinDir"),
        "/var/lib/rancher/k3s/data/cni"
    );
    let values = merged("openshift-ambient", json!({}), PlatformKind::Kubernetes).unwrap();
    assert_eq!(at(&values, "/global/platform"), "openshift");
    let error = merged(
        "",
        json!({"global": {"platform": "moon"}}),
        PlatformKind::Gke,
    );
    let text = error.unwrap_err().to_string();
    assert!(
        text.starts_with("spec.values.global.platform: there is no platform `moon`"),
        "{text}"
    );
}

#[test]
fn profiles_that_cannot_be_had_are_refused_with_a_reason() {
    let text = merged("moon", json!({}), PlatformKind::Kubernetes)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("no profile `moon`") && text.contains("openshift-ambient"),
        "{text}"
    );
    let text = merged("remote", json!({}), PlatformKind::Kubernetes)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("`remote`") && text.contains("ambient"),
        "{text}"
    );
}

#[test]
fn an_older_behaviour_comes_back_with_all_that_changed_since() {
    let user = json!({"compatibilityVersion": "1.27"});
    let values = merged("", user, PlatformKind::Kubernetes).unwrap();
    assert_eq!(
        at(&values, "/pilot/env/DISABLE_SHADOW_HOST_SUFFIX"),
        "false"
    );
    assert_eq!(
        at(&values, "/cni/ambient/reconcileIptablesOnStartup"),
        false
    );
    assert_eq!(
        at(&values, "/pilot/env/ENABLE_NATIVE_SIDECARS"),
        &Value::Null
    );
    let error = merged(
        "",
        json!({"compatibilityVersion": "new"}),
        PlatformKind::Kubernetes,
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("compatibilityVersion")
    );
}
