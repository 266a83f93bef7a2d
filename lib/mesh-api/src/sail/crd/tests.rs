//! What the CRDs are. What they take and refuse is tested against an API server.

use super::*;

/// Larger than that, and `kubectl apply`, which keeps a copy in an annotation, has little room left.
const BUDGET: usize = 60 << 10;

fn schema(version: &CustomResourceDefinitionVersion) -> Value {
    let schema = version.schema.clone().unwrap();
    serde_json::to_value(schema.open_api_v3_schema.unwrap()).unwrap()
}

fn each(schema: &Value, path: &str, seen: &mut impl FnMut(&str, &Value)) {
    seen(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        each(property, &format!("{path}.{name}"), seen);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            each(&schema[inner], &format!("{path}[]"), seen);
        }
    }
}

fn each_node(seen: &mut impl FnMut(&str, &Value)) {
    for crd in crds() {
        for version in &crd.spec.versions {
            let name = format!("{}/{}", crd.spec.names.kind, version.name);
            each(&schema(version), &name, seen);
        }
    }
}

#[test]
fn every_crd_is_small() {
    for crd in crds() {
        let size = serde_json::to_vec(&crd).unwrap().len();
        assert!(size < BUDGET, "{:?}: {size}", crd.metadata.name);
    }
}

#[test]
fn each_crd_has_the_names_and_versions_that_users_of_sail_know() {
    let facts = |crd: CustomResourceDefinition| {
        let spec = crd.spec;
        assert_eq!((&*spec.group, &*spec.scope), ("sailoperator.io", "Cluster"));
        assert_eq!(
            spec.names.categories.as_deref(),
            Some(&["istio-io".to_owned()][..])
        );
        let version = |version: &CustomResourceDefinitionVersion| {
            assert!(version.served && version.subresources.as_ref().unwrap().status.is_some());
            let stored = if version.storage { "*" } else { "" };
            format!("{}{stored}", version.name)
        };
        let versions: Vec<_> = spec.versions.iter().map(version).collect();
        let names = spec.names;
        let short = names.short_names.unwrap_or_default().join(",");
        let singular = names.singular.unwrap();
        format!(
            "{} {} {singular} [{short}] {}",
            names.plural,
            names.kind,
            versions.join(" ")
        )
    };
    assert_eq!(
        crds().into_iter().map(facts).collect::<Vec<_>>(),
        [
            "istios Istio istio [] v1*",
            "istiorevisions IstioRevision istiorevision [istiorev] v1*",
            "istiorevisiontags IstioRevisionTag istiorevisiontag [istiorevtag] v1*",
            "istiocnis IstioCNI istiocni [] v1*",
            "ztunnels ZTunnel ztunnel [] v1* v1alpha1",
        ]
    );
}

#[test]
fn the_columns_are_those_of_the_walkthrough() {
    let columns = |version: &CustomResourceDefinitionVersion| {
        let columns = version.additional_printer_columns.iter().flatten();
        let column = |column: &CustomResourceColumnDefinition| {
            let wide = if column.priority.unwrap_or_default() > 0 {
                "+"
            } else {
                ""
            };
            format!("{wide}{}", column.name)
        };
        columns.map(column).collect::<Vec<_>>().join(", ")
    };
    let all: Vec<_> = crds()
        .iter()
        .flat_map(|crd| crd.spec.versions.iter().map(columns).collect::<Vec<_>>())
        .collect();
    assert_eq!(
        all,
        [
            "+Namespace, +Profile, Revisions, Ready, In use, Active Revision, Status, Version, Age",
            "+Namespace, +Profile, Ready, Status, In use, Version, Age",
            "Status, In use, Revision, Age",
            "+Namespace, +Profile, Ready, Status, Version, Age",
            "+Namespace, Ready, Status, Version, +Revision, Age",
            "+Namespace, +Profile, Ready, Status, Version, Age",
        ]
    );
}

#[test]
fn every_schema_is_structural() {
    each_node(&mut |path, schema| {
        let typed = schema["type"].is_string()
            || schema["x-kubernetes-int-or-string"] == true
            || schema["x-kubernetes-preserve-unknown-fields"] == true;
        assert!(typed, "{path} has no type: {schema}");
        for word in [
            "$ref",
            "nullable",
            "oneOf",
            "anyOf",
            "allOf",
            "definitions",
            "title",
        ] {
            assert!(schema.get(word).is_none(), "{path} has {word}");
        }
        let format = schema["format"].as_str().unwrap_or("date-time");
        assert!(
            ["int32", "int64", "date-time"].contains(&format),
            "{path}: {format}"
        );
    });
}

#[test]
fn every_field_is_explained() {
    each_node(&mut |path, schema| {
        let explained = schema["description"]
            .as_str()
            .is_some_and(|text| !text.is_empty());
        let within =
            path.ends_with("[]") || path.contains("Selector") || path.contains("meshNetworks");
        assert!(explained || within, "{path} has no description");
    });
}

/// The API server estimates what a rule costs for the longest lists and maps that the schema allows, and
/// refuses a CRD whose estimate is too high.
#[test]
fn rules_stand_in_bounded_places_only() {
    fn bounded(schema: &Value, path: &str, times: u64) {
        if schema["x-kubernetes-validations"].is_array() {
            assert!(times <= 10_000, "{path}: a rule that may run {times} times");
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            bounded(property, &format!("{path}.{name}"), times);
        }
        for (inner, limit) in [
            ("items", "maxItems"),
            ("additionalProperties", "maxProperties"),
        ] {
            if schema[inner].is_object() {
                let most = schema[limit].as_u64();
                let times = times.saturating_mul(most.unwrap_or(u64::MAX));
                bounded(&schema[inner], &format!("{path}[]"), times);
            }
        }
    }
    for crd in crds() {
        for version in &crd.spec.versions {
            bounded(&schema(version), &crd.spec.names.kind, 1);
        }
    }
}

/// A rule that compares texts costs what the texts are long.
#[test]
fn texts_that_rules_compare_are_bounded() {
    let mut seen = 0;
    each_node(&mut |path, schema| {
        let compared = [
            ".spec.namespace",
            ".global.istioNamespace",
            ".values.revision",
        ];
        if compared.iter().any(|end| path.ends_with(end)) {
            assert!(
                schema["maxLength"]
                    .as_u64()
                    .is_some_and(|length| length <= 63),
                "{path}"
            );
            seen += 1;
        }
    });
    assert!(seen >= 8, "{seen}");
}
