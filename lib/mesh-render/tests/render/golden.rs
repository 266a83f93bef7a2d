//! The golden files, and what holds for every object in them.

use std::{collections::BTreeSet, fs, path::Path};

use kube::core::GroupVersionKind;
use mesh_render::{Object, object::KINDS};
use proptest::prelude::*;
use serde::Deserialize as _;
use serde_json::Value;
use testkit_kube::schema::Schema;

use crate::cases::{self, Case};

fn all() -> Vec<Case> {
    cases::all().unwrap()
}

#[test]
fn what_is_rendered_is_what_the_golden_files_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut known = BTreeSet::new();
    for case in all() {
        let file = format!("{}.yaml", case.name);
        let golden = fs::read_to_string(folder.join(&file)).unwrap_or_default();
        let rendered = case.rendered.to_yaml();
        let differs = golden
            .lines()
            .zip(rendered.lines())
            .position(|(old, new)| old != new);
        assert!(
            golden == rendered,
            "{file} differs from line {differs:?} on: run `cargo run -p mesh-render --example golden` \
             and read what changed"
        );
        known.insert(file);
    }
    let files = fs::read_dir(&folder).unwrap();
    let files: BTreeSet<_> = files
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, known, "a golden file of no case is left over");
}

#[test]
fn every_object_is_as_the_api_server_wants_it() {
    for case in all() {
        for object in &case.rendered.objects {
            assert_eq!(
                complaints(object),
                [""; 0],
                "{}: {}",
                case.name,
                object.name
            );
        }
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

#[test]
fn every_object_has_its_address_in_its_body() {
    for case in all() {
        let mut seen = BTreeSet::new();
        for object in &case.rendered.objects {
            let text = |pointer: &str| object.body.pointer(pointer).and_then(Value::as_str);
            assert!(KINDS.contains(&object.kind), "{:?}", object.kind);
            assert_eq!(text("/kind"), Some(object.kind.kind));
            assert_eq!(
                text("/apiVersion"),
                Some(object.kind.api_version().as_str())
            );
            assert_eq!(text("/metadata/name"), Some(object.name.as_str()));
            assert_eq!(text("/metadata/namespace"), object.namespace.as_deref());
            assert_eq!(object.namespace.is_some(), object.kind.namespaced);
            let address = (object.kind, object.namespace.clone(), object.name.clone());
            assert!(seen.insert(address), "{} is rendered twice", object.name);
        }
    }
}

#[test]
fn values_that_have_an_effect_leave_no_notes() {
    for case in all() {
        let notes: Vec<_> = case
            .rendered
            .notes
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(notes, [""; 0], "{}", case.name);
    }
}

#[test]
fn no_role_has_a_wildcard_or_may_escalate() {
    for case in all() {
        for object in &case.rendered.objects {
            for rule in object.body["rules"].as_array().into_iter().flatten() {
                let words = ["apiGroups", "resources", "verbs"].map(|key| rule[key].clone());
                for word in words.iter().flat_map(|words| words.as_array().unwrap()) {
                    let forbidden = ["*", "escalate", "bind", "impersonate"];
                    assert!(
                        !forbidden.contains(&word.as_str().unwrap()),
                        "{}: {rule}",
                        object.name
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_written_as_yaml_reads_back_as_the_objects() {
    for case in all() {
        let yaml = case.rendered.to_yaml();
        let documents: Vec<Value> = serde_yaml_ng::Deserializer::from_str(&yaml)
            .map(|document| Value::deserialize(document).unwrap())
            .collect();
        let objects = case.rendered.objects.into_iter();
        let bodies: Vec<_> = objects.map(|object| object.body).collect();
        assert_eq!(documents, bodies, "{}", case.name);
    }
}

/// Values, right and wrong, for paths of all kinds.
fn values() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("default"),
        Just("1"),
        Just("a b"),
        Just(""),
        Just("true"),
        Just("x/y")
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..5).prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "env",
        "image",
        "tag",
        "hub",
        "autoscaleMin",
        "autoscaleMax",
        "resources",
        "replicaCount",
        "cpu",
        "targetAverageUtilization",
        "tolerations",
        "meshNetworks",
        "platform",
        "unknown",
        "trustDomain",
        "defaultConfig",
        "ipFamilies",
        "networkPolicy",
        "enabled",
        "podLabels",
    ]);
    let inner = leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(keys.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let sections = prop::sample::select(vec!["pilot", "global", "meshConfig", "profile", "other"]);
    prop::collection::btree_map(sections.prop_map(str::to_owned), inner, 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #[test]
    fn the_same_values_give_the_same_bytes_or_the_same_refusal(values in values()) {
        let settings = cases::settings(mesh_render::PlatformKind::OpenShift);
        let render = || cases::revision("canary", &values, &settings)
            .map(|rendered| (rendered.to_yaml(), rendered.notes))
            .map_err(|error| error.to_string());
        let first = render();
        if let Err(text) = &first {
            prop_assert!(text.starts_with("spec."), "{}", text);
        }
        prop_assert_eq!(first, render());
    }
}
