use proptest::prelude::*;
use serde_json::json;

use super::*;

const BRIDGE: &str = r#"{
  "type": "bridge", "name": "dbnet", "cniVersion": "0.4.0", "bridge": "cni0",
  "ipam": {"type": "host-local", "subnet": "10.1.0.0/16"}
}"#;

const CALICO: &str = r#"{
  "name": "k8s-pod-network", "cniVersion": "1.0.0", "disableCheck": true, "someday": [1, 2.5, null],
  "plugins": [
    {"type": "calico", "mtu": 1500, "ipam": {"type": "calico-ipam"}},
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}
  ]
}"#;

fn list(text: &str) -> ConfigList {
    ConfigList::parse(text.as_bytes(), Format::List).unwrap()
}

fn ours() -> PluginConfig {
    PluginConfig {
        pod_namespace: "istio-system".to_owned(),
        exclude_namespaces: vec!["kube-system".to_owned()],
        ..PluginConfig::default()
    }
}

fn kinds(list: &ConfigList) -> Vec<&str> {
    list.plugins().iter().map(Plugin::kind).collect()
}

#[test]
fn entry_is_put_last_and_nothing_else_changes() {
    let mut list = list(CALICO);
    assert_eq!(list.verdict(&ours()), Verdict::Absent);
    list.insert(&ours());
    assert_eq!(list.verdict(&ours()), Verdict::Current);
    assert_eq!(kinds(&list), ["calico", "portmap", "istio-cni"]);
    let mut written: Value = serde_json::from_slice(&list.to_bytes()).unwrap();
    written["plugins"].as_array_mut().unwrap().pop();
    assert_eq!(written, serde_json::from_str::<Value>(CALICO).unwrap());
    assert!(list.remove());
    assert!(!list.remove());
    assert_eq!(list, self::list(CALICO));
}

#[test]
fn every_difference_of_the_entry_is_found_and_repaired() {
    let mut current = list(CALICO);
    current.insert(&ours());
    let mut verdicts = Vec::new();
    let mut try_out = |text: String| {
        let mut damaged = list(&text);
        verdicts.push(format!("{:?}", damaged.verdict(&ours())));
        damaged.insert(&ours());
        assert_eq!(damaged.verdict(&ours()), Verdict::Current);
        assert_eq!(damaged, current);
    };
    let text = String::from_utf8(current.to_bytes()).unwrap();
    try_out(text.replace(
        r#""plugin_log_level": "info""#,
        r#""plugin_log_level": "debug""#,
    ));
    try_out(text.replace(r#""kube-system""#, ""));
    try_out(text.replace(
        r#""name": "istio-cni""#,
        r#""name": "istio-cni", "more": 1"#,
    ));
    let value: Value = serde_json::from_str(&text).unwrap();
    let mut twice = value.clone();
    let entry = twice["plugins"][2].clone();
    twice["plugins"].as_array_mut().unwrap().push(entry);
    try_out(twice.to_string());
    let mut first = value;
    first["plugins"].as_array_mut().unwrap().rotate_right(1);
    try_out(first.to_string());
    assert_eq!(
        verdicts,
        ["Outdated", "Outdated", "Outdated", "Repeated", "Misplaced"]
    );
}

#[test]
fn plugin_that_others_append_after_ours_is_left_there() {
    let mut list = list(CALICO);
    list.insert(&ours());
    let mut value: Value = serde_json::from_slice(&list.to_bytes()).unwrap();
    value["plugins"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "tuning"}));
    let list = self::list(&value.to_string());
    assert_eq!(list.verdict(&ours()), Verdict::Current);
}

#[test]
fn single_plugin_becomes_a_list_that_keeps_the_networks_name() {
    let list = ConfigList::parse(BRIDGE.as_bytes(), Format::Single).unwrap();
    assert_eq!((list.name(), list.cni_version()), ("dbnet", "0.4.0"));
    assert_eq!(kinds(&list), ["bridge"]);
    assert_eq!(list.plugins()[0].fields().get("cniVersion"), None);
    for (single, name, version) in [
        (json!({"type": "x"}), "k8s-pod-network", "0.3.1"),
        (
            json!({"type": "x", "name": "", "cniVersion": "0.2.0"}),
            "k8s-pod-network",
            "0.3.1",
        ),
        (
            json!({"type": "x", "name": "n", "cniVersion": "0.3.0"}),
            "n",
            "0.3.1",
        ),
        (
            json!({"type": "x", "name": "n", "cniVersion": "1.1.0"}),
            "n",
            "1.1.0",
        ),
        (
            json!({"type": "x", "name": "n", "cniVersion": 1}),
            "n",
            "0.3.1",
        ),
    ] {
        let list = ConfigList::parse(single.to_string().as_bytes(), Format::Single).unwrap();
        assert_eq!(
            (list.name(), list.cni_version()),
            (name, version),
            "{single}"
        );
        // What we write is a list that we, and runtimes, can read.
        assert_eq!(
            self::list(&String::from_utf8(list.to_bytes()).unwrap()),
            list
        );
    }
}

#[test]
fn written_form_is_sorted_and_indented() {
    let mut list =
        list(r#"{"plugins":[{"type":"b","a":{"z":[],"y":{}}}],"name":"n","cniVersion":"1.0.0"}"#);
    list.insert(&PluginConfig {
        enablement_selectors: crate::enrolment::Selector::defaults(),
        ..ours()
    });
    let written = String::from_utf8(list.to_bytes()).unwrap();
    assert_eq!(written, include_str!("tests/sorted.conflist"));
}

#[test]
fn copy_of_our_own_follows_the_primary() {
    let primary = list(CALICO);
    let copy = primary.owned_copy(&ours());
    // An entry that an earlier installation left in the primary makes no difference.
    let mut tainted = primary;
    tainted.insert(&PluginConfig::default());
    assert_eq!(tainted.owned_copy(&ours()), copy);
    let changed = list(&CALICO.replace("1500", "1400"));
    assert_ne!(changed.owned_copy(&ours()), copy);
}

#[test]
fn file_of_our_own_is_compared_whole() {
    let file = standalone(&ours());
    let plugin = Plugin::parse(&file).unwrap();
    assert!(plugin.is_ours() && plugin.is_standalone(&ours()));
    assert!(!plugin.is_standalone(&PluginConfig::default()));
    assert_eq!(plugin.fields()["cniVersion"], "0.3.1");
}

#[test]
fn what_is_wrong_in_a_file_is_named() {
    for (file, text) in [
        ("", "read a CNI configuration: not a JSON object"),
        ("[]", "read a CNI configuration: not a JSON object"),
        (
            r#"{"plugins":[{"type":"a"}]}"#,
            "read a CNI configuration: name must be a text that is not empty",
        ),
        (
            r#"{"name":"a"}"#,
            "read a CNI configuration: plugins must be a list of plugins",
        ),
        (
            r#"{"name":"a","plugins":[]}"#,
            "read a CNI configuration: plugins must be a list with at least one plugin",
        ),
        (
            r#"{"name":"a","plugins":[1]}"#,
            "read a CNI configuration: plugins[0] must be an object",
        ),
        (
            r#"{"name":"a","plugins":[{"type":"a"},{"type":1}]}"#,
            "read a CNI configuration: plugins[1].type must be a text that is not empty",
        ),
        (
            r#"{"name":"a","cniVersion":1,"plugins":[{"type":"a"}]}"#,
            "read a CNI configuration: cniVersion must be a text",
        ),
    ] {
        let error = ConfigList::parse(file.as_bytes(), Format::List).unwrap_err();
        assert_eq!(error.to_string(), text, "{file}");
    }
    let long = ConfigList::parse(&vec![b' '; MAX_BYTES + 1], Format::List).unwrap_err();
    assert!(matches!(long, Error::TooLong { .. }), "{long}");
}

#[test]
fn files_are_read_by_their_names() {
    for (file, format) in [
        ("10-a.conf", Some(Format::Single)),
        ("/x/10-a.json", Some(Format::Single)),
        ("10-a.conflist", Some(Format::List)),
        ("10-a.conflist.tmp.1", None),
        ("conflist", None),
    ] {
        assert_eq!(Format::of(Path::new(file)), format, "{file}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z<&\\\\\"é]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_list() -> impl Strategy<Value = ConfigList> {
    let kind = prop_oneof![Just("bridge"), Just("portmap"), Just(PLUGIN)];
    let plugin = (kind, "[a-z]{1,3}", any_value())
        .prop_map(|(kind, key, value)| json!({key: value, "type": kind}));
    let plugins = prop::collection::vec(plugin, 1..5);
    ("[a-z]{1,3}", any_value(), plugins).prop_map(|(key, value, plugins)| {
        let written = json!({key: value, "name": "net", "plugins": plugins});
        list(&written.to_string())
    })
}

proptest! {
    #[test]
    fn list_survives_its_file(list in any_list()) {
        let bytes = list.to_bytes();
        let again = ConfigList::parse(&bytes, Format::List).unwrap();
        prop_assert_eq!(&again, &list);
        prop_assert_eq!(again.to_bytes(), bytes);
    }

    #[test]
    fn insertion_is_repeatable_and_removal_undoes_it(list in any_list()) {
        let mut without = list.clone();
        without.remove();
        let mut with = list;
        with.insert(&ours());
        let once = with.clone();
        with.insert(&ours());
        prop_assert_eq!(&with, &once);
        prop_assert_eq!(with.verdict(&ours()), Verdict::Current);
        with.remove();
        prop_assert_eq!(with, without);
    }
}
