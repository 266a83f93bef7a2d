use serde_json::json;

use super::*;
use crate::registry::{Definition, Registry};

fn now() -> Timestamp {
    "2024-01-01T01:00:00Z".parse().unwrap()
}

fn row(plural: &str, group: &str, object: &Value) -> Vec<String> {
    let resource = Registry::default().find(group, "v1", plural).unwrap();
    let table = Table::of(&resource, Include::None, "v1");
    let row = table.row(object, now());
    let definitions = table.head(&json!({}))["columnDefinitions"]
        .as_array()
        .unwrap()
        .len();
    let cells = row["cells"].as_array().unwrap();
    assert_eq!(cells.len(), definitions);
    cells.iter().map(plain).collect()
}

#[test]
fn every_resource_has_as_many_cells_as_columns() {
    for resource in Registry::default().all().iter() {
        let table = Table::of(resource, Include::None, "v1");
        let columns = table.definitions().len();
        let cells = table.row(&json!({"metadata": {"name": "a"}}), now())["cells"].clone();
        assert_eq!(
            cells.as_array().unwrap().len(),
            columns,
            "{}",
            resource.qualified()
        );
    }
}

#[test]
fn a_pod_is_shown_by_what_its_containers_say() {
    let mut pod = json!({
        "metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"containers": [{}, {}], "nodeName": "n"},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "containerStatuses": [
                {"ready": true, "restartCount": 2, "state": {"running": {}}},
                {"ready": false, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
            ],
        },
    });
    let cells = row("pods", "", &pod);
    assert_eq!(
        cells[..7],
        ["a", "1/2", "CrashLoopBackOff", "3", "60m", "10.0.0.1", "n"]
    );
    pod["status"]["initContainerStatuses"] =
        json!([{"state": {"waiting": {"reason": "PodInitializing"}}}]);
    pod["spec"]["initContainers"] = json!([{}]);
    assert_eq!(row("pods", "", &pod)[2], "Init:0/1");
    pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
    assert_eq!(row("pods", "", &pod)[2], "Terminating");
}

#[test]
fn a_service_is_shown_with_its_ports() {
    let service = json!({
        "metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:59:00Z"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.1",
            "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            "selector": {"app": "web"},
        },
    });
    let cells = row("services", "", &service);
    let expected = [
        "a",
        "NodePort",
        "10.96.0.1",
        "<none>",
        "80:30001/TCP,53/UDP",
        "60s",
        "app=web",
    ];
    assert_eq!(cells, expected);
}

#[test]
fn a_custom_resource_is_shown_by_its_paths() {
    let crd = json!({"spec": {
        "group": "example.org",
        "names": {"kind": "Widget", "plural": "widgets"},
        "scope": "Namespaced",
        "versions": [{
            "name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}},
            "additionalPrinterColumns": [
                {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                {"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts[*]", "priority": 1},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ],
        }],
    }});
    let definition = Definition::parse(&crd).unwrap();
    let mut table = Table::of(&definition.resources[0], Include::Metadata, "v1");
    let object = json!({
        "metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:50:00Z"},
        "spec": {"size": 3, "hosts": ["x", "y"]},
        "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
    });
    let first = table.event(Some(&object), now());
    assert_eq!(
        first["rows"][0]["cells"],
        json!(["a", "True", 3, "x", "10m"])
    );
    assert_eq!(first["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(first["columnDefinitions"][3]["priority"], 1);
    assert!(table.event(Some(&object), now())["columnDefinitions"].is_null());
}

#[test]
fn paths_are_read_in_all_their_forms() {
    let object = json!({"a": {"b.c": [{"d": 1}, {"d": 2}], "e": null}});
    let find = |path: &str| -> Vec<Value> {
        let path = Path::parse(path).unwrap();
        path.find(&object).into_iter().cloned().collect()
    };
    assert_eq!(find(".a['b.c'][0].d"), [json!(1)]);
    assert_eq!(find("{.a.b\\.c[-1].d}"), [json!(2)]);
    assert_eq!(find(".a.b\\.c[*].d"), [json!(1), json!(2)]);
    assert_eq!(find(".a.b\\.c[?(@.d!=1)].d"), [json!(2)]);
    assert!(find(".a.e").is_empty());
    assert!(find(".x.y").is_empty());
    assert_eq!(Path::parse(".a[?(@.b>1)]"), None);
    assert_eq!(Path::parse(".a[0"), None);
}

#[test]
fn durations_are_as_short_as_kubectl_has_them() {
    for (seconds, text) in [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (3600, "60m"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600, "9h"),
        (2 * 86_400 + 3600, "2d1h"),
        (30 * 86_400, "30d"),
        (3 * 365 * 86_400, "3y"),
    ] {
        assert_eq!(time::short(seconds), text);
    }
}
