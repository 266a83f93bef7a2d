use proptest::prelude::*;
use serde_json::json;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn policy() -> Policy {
    Policy {
        selectors: Selector::defaults(),
        excluded_namespaces: ["kube-system".to_owned()].into(),
    }
}

fn ask(policy: &Policy, pod: Option<&Labels>, namespace: Option<&Labels>) -> Belongs {
    policy.belongs(&Candidate {
        namespace: "shop",
        namespace_labels: namespace,
        labels: pod,
        host_network: false,
        sidecar: false,
    })
}

#[test]
fn default_selectors_are_istios() {
    let written = json!([
        {"podSelector": {"matchLabels": {"istio.io/dataplane-mode": "ambient"}}},
        {
            "podSelector": {"matchExpressions": [
                {"key": "istio.io/dataplane-mode", "operator": "NotIn", "values": ["none"]},
            ]},
            "namespaceSelector": {"matchLabels": {"istio.io/dataplane-mode": "ambient"}},
        },
    ]);
    assert_eq!(Selector::parse_list(&written), Ok(Selector::defaults()));
}

#[test]
fn pod_belongs_by_its_label_or_its_namespaces_unless_it_says_no() {
    let none = labels(&[]);
    let ambient = labels(&[("istio.io/dataplane-mode", "ambient")]);
    let out = labels(&[("istio.io/dataplane-mode", "none")]);
    let policy = policy();
    for (pod, namespace, belongs) in [
        (&none, &none, Belongs::No),
        (&ambient, &none, Belongs::Yes),
        (&none, &ambient, Belongs::Yes),
        (&out, &ambient, Belongs::No),
        (&ambient, &out, Belongs::Yes),
    ] {
        let found = ask(&policy, Some(pod), Some(namespace));
        assert_eq!(found, belongs, "{pod:?} in {namespace:?}");
    }
}

#[test]
fn host_network_sidecar_and_excluded_namespace_keep_a_pod_outside() {
    let ambient = labels(&[("istio.io/dataplane-mode", "ambient")]);
    let pod = Candidate {
        namespace: "shop",
        namespace_labels: Some(&ambient),
        labels: Some(&ambient),
        host_network: false,
        sidecar: false,
    };
    let policy = policy();
    assert_eq!(policy.belongs(&pod), Belongs::Yes);
    for outside in [
        Candidate {
            host_network: true,
            ..pod
        },
        Candidate {
            sidecar: true,
            ..pod
        },
        Candidate {
            namespace: "kube-system",
            ..pod
        },
    ] {
        assert_eq!(policy.belongs(&outside), Belongs::No, "{outside:?}");
    }
}

#[test]
fn label_that_is_not_known_makes_an_answer_uncertain_only_where_it_matters() {
    let by_namespace = Selector::parse_list(&json!([
        {"namespaceSelector": {"matchExpressions": [{"key": "mesh", "operator": "Exists"}]}},
    ]));
    let policy = Policy {
        selectors: by_namespace.unwrap(),
        ..policy()
    };
    let none = labels(&[]);
    assert_eq!(ask(&policy, None, Some(&none)), Belongs::No);
    assert_eq!(
        ask(&policy, None, Some(&labels(&[("mesh", "")]))),
        Belongs::Yes
    );
    assert_eq!(ask(&policy, None, None), Belongs::Perhaps);
    assert_eq!(policy.namespace_keys(), ["mesh"].into());
}

#[test]
fn operators_are_kubernetes() {
    let selector = |operator: &str, values: Value| {
        let written = json!({"matchExpressions": [
            {"key": "tier", "operator": operator, "values": values},
        ]});
        LabelSelector::parse(&written).unwrap()
    };
    let (missing, web, db) = (
        labels(&[]),
        labels(&[("tier", "web")]),
        labels(&[("tier", "db")]),
    );
    for (operator, values, expected) in [
        ("In", json!(["web", ""]), [false, true, false]),
        ("NotIn", json!(["web"]), [true, false, true]),
        ("Exists", json!([]), [false, true, true]),
        ("DoesNotExist", json!(null), [true, false, false]),
    ] {
        let selector = selector(operator, values);
        let found = [&missing, &web, &db].map(|labels| selector.matches(Some(labels)));
        assert_eq!(found, expected.map(Belongs::from), "{operator}");
    }
}

#[test]
fn what_is_wrong_in_a_selector_is_named_with_its_place() {
    for (written, text) in [
        (json!({}), "selectors: must be a list of selectors"),
        (json!([{}, 1]), "selectors[1]: must be an object"),
        (
            json!([{"podSelecter": {}}]),
            "selectors[0].podSelecter: is not a field; there are: podSelector, namespaceSelector",
        ),
        (
            json!([{"podSelector": {"matchLabels": {"a": true}}}]),
            "selectors[0].podSelector.matchLabels.a: must be an object with a text for each key",
        ),
        (
            json!([{"namespaceSelector": {"matchExpressions": [
                {"key": "a", "operator": "Exists"}, {"key": "a", "operator": "Equals"},
            ]}}]),
            "selectors[0].namespaceSelector.matchExpressions[1].operator: `Equals` is not one of In, NotIn, Exists, DoesNotExist",
        ),
        (
            json!([{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]),
            "selectors[0].podSelector.matchExpressions[0].values: In and NotIn need at least one value",
        ),
        (
            json!([{"podSelector": {"matchExpressions": [
                {"key": "a", "operator": "Exists", "values": ["b"]},
            ]}}]),
            "selectors[0].podSelector.matchExpressions[0].values: Exists and DoesNotExist take no values",
        ),
    ] {
        let error = Selector::parse_list(&written).unwrap_err();
        assert_eq!(error.to_string(), text, "{written}");
    }
    for key in ["", "-a", "a/b/c", "A.com/x", "/x", &"a".repeat(64)] {
        let written = json!([{"podSelector": {"matchLabels": {key: "x"}}}]);
        let error = Selector::parse_list(&written).unwrap_err().to_string();
        assert!(error.contains("is no label key"), "{error}");
    }
    for value in ["a b", "-", &"a".repeat(64)] {
        let written = json!([{"podSelector": {"matchLabels": {"a": value}}}]);
        let error = Selector::parse_list(&written).unwrap_err().to_string();
        assert!(error.contains("is no label value"), "{error}");
    }
}

#[test]
fn snapshot_survives_the_file() {
    let snapshot = Snapshot {
        policy: policy(),
        namespaces: [
            ("default".to_owned(), labels(&[])),
            (
                "shop".to_owned(),
                labels(&[("istio.io/dataplane-mode", "ambient")]),
            ),
        ]
        .into(),
    };
    let bytes = snapshot.to_bytes().unwrap();
    assert_eq!(Snapshot::parse(&bytes).unwrap(), snapshot);
    // Any pod may carry the label itself, so that only an excluded namespace is certain.
    assert_eq!(snapshot.belongs("default"), Belongs::Perhaps);
    assert_eq!(snapshot.belongs("kube-system"), Belongs::No);
}

#[test]
fn snapshot_of_another_version_is_refused() {
    let error = Snapshot::parse(br#"{"version": 2, "groups": []}"#).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Version { found: 2 }),
        "{error}"
    );
    for damaged in ["", "{}", "[]", "{\"version\":1}", "{\"version\":\"1\"}"] {
        let error = Snapshot::parse(damaged.as_bytes()).unwrap_err();
        assert!(matches!(error, SnapshotError::Malformed(_)), "{damaged}");
    }
    let long = Snapshot::parse(&vec![b' '; Snapshot::MAX_BYTES + 1]).unwrap_err();
    assert!(matches!(long, SnapshotError::TooLong { .. }), "{long}");
}

fn any_labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[ab]", "[xy]", 0..3)
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let values = || prop::collection::btree_set("[xyz]".prop_map(String::from), 1..3);
    let operator = prop_oneof![
        values().prop_map(Operator::In),
        values().prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
    ];
    ("[abc]", operator).prop_map(|(key, operator)| Requirement::try_new(&key, operator).unwrap())
}

fn any_selector() -> impl Strategy<Value = Selector> {
    let selector = || prop::collection::vec(any_requirement(), 0..3).prop_map(LabelSelector::new);
    (selector(), selector()).prop_map(|(pod, namespace)| Selector { pod, namespace })
}

proptest! {
    /// What is said without knowing labels holds whatever the labels are.
    #[test]
    fn certain_answer_without_labels_is_the_answer_with_them(
        selectors in prop::collection::vec(any_selector(), 0..4),
        pod in any_labels(),
        namespace in any_labels(),
    ) {
        let policy = Policy { selectors, ..Policy::default() };
        let known = ask(&policy, Some(&pod), Some(&namespace));
        prop_assert_ne!(known, Belongs::Perhaps);
        for guess in [
            ask(&policy, None, Some(&namespace)),
            ask(&policy, Some(&pod), None),
            ask(&policy, None, None),
        ] {
            prop_assert!(guess == Belongs::Perhaps || guess == known, "{:?}, {:?}", guess, known);
        }
    }

    #[test]
    fn selectors_survive_their_written_form(selectors in prop::collection::vec(any_selector(), 0..4)) {
        let written = serde_json::to_value(&selectors).unwrap();
        prop_assert_eq!(Selector::parse_list(&written), Ok(selectors));
    }

    #[test]
    fn labels_that_a_policy_does_not_look_at_do_not_matter(
        selectors in prop::collection::vec(any_selector(), 0..4),
        pod in any_labels(),
        namespace in any_labels(),
    ) {
        let policy = Policy { selectors, ..Policy::default() };
        let keys = policy.namespace_keys();
        let mut trimmed = namespace.clone();
        trimmed.retain(|key, _| keys.contains(key.as_str()));
        prop_assert_eq!(
            ask(&policy, Some(&pod), Some(&namespace)),
            ask(&policy, Some(&pod), Some(&trimmed))
        );
    }
}
