use mesh_cni::enrolment::Selector;
use mesh_redirect::Families;
use serde_json::{Value, json};

use super::{annotations::Shown, *};

fn mk_index() -> Index {
    let policy = Policy {
        selectors: Selector::defaults(),
        excluded_namespaces: BTreeSet::from(["kube-system".to_owned()]),
    };
    Index::new(policy, Options::default(), "istio-system".to_owned())
}

fn mk_pod(name: &str, uid: &str, more: &Value) -> Pod {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "demo", "uid": uid, "resourceVersion": "7"},
        "spec": {"containers": [{"name": "app"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "::ffff:10.0.0.2"}]},
    });
    json_patch::merge(&mut object, more);
    let object: PodObject = serde_json::from_value(object).unwrap();
    object.into_pod().unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}

fn ambient() -> Labels {
    labels(&[("istio.io/dataplane-mode", "ambient"), ("team", "blue")])
}

fn uids(concerned: &Concerned) -> Vec<&str> {
    concerned.iter().map(|uid| &**uid).collect()
}

#[test]
fn of_a_pod_is_kept_what_matters() {
    let pod = mk_pod(
        "web",
        "u1",
        &json!({"metadata": {
            "annotations": {"ambient.istio.io/redirection": "enabled", "other": "x"},
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        }}),
    );
    assert_eq!(&*pod.info.service_account, "default");
    assert_eq!(pod.annotations.shown, Shown::Enabled);
    assert_eq!(pod.version, 7);
    assert!(pod.deleting && !pod.ended && !pod.host_network);
    let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        addresses,
        ["10.0.0.1", "10.0.0.2"],
        "an address has one form"
    );
    assert!(
        serde_json::from_value::<PodObject>(json!({}))
            .unwrap()
            .into_pod()
            .is_none()
    );
}

#[test]
fn a_namespaces_label_wakes_its_pods_and_no_others() {
    let mut index = mk_index();
    index.apply_pod(mk_pod("web", "u1", &json!({})));
    index.apply_pod(mk_pod("api", "u2", &json!({})));
    index.apply_pod(mk_pod(
        "web",
        "u3",
        &json!({"metadata": {"namespace": "other"}}),
    ));
    assert_eq!(
        uids(&index.apply_namespace("demo".into(), Namespace::watched(Labels::new(), 0))),
        ["u1", "u2"]
    );
    assert_eq!(
        uids(&index.apply_namespace("demo".into(), Namespace::watched(ambient(), 0))),
        ["u1", "u2"]
    );
    let generation = index.generation();
    let mut other = ambient();
    other.insert("team".into(), "green".into());
    assert!(
        index
            .apply_namespace("demo".into(), Namespace::watched(other, 0))
            .is_empty(),
        "no selector looks at that"
    );
    assert_eq!(index.generation(), generation);
    let kept = &index.snapshot().namespaces["demo"];
    assert_eq!(*kept, labels(&[("istio.io/dataplane-mode", "ambient")]));
}

#[test]
fn what_is_told_again_wakes_nobody() {
    let mut index = mk_index();
    assert_eq!(
        uids(&index.apply_pod(mk_pod("web", "u1", &json!({})))),
        ["u1"]
    );
    assert!(index.apply_pod(mk_pod("web", "u1", &json!({}))).is_empty());
}

#[test]
fn a_pod_takes_the_place_of_another_of_its_name() {
    let mut index = mk_index();
    index.apply_pod(mk_pod("web-0", "u1", &json!({})));
    let concerned = index.apply_pod(mk_pod("web-0", "u2", &json!({})));
    assert_eq!(uids(&concerned), ["u1", "u2"]);
    assert!(index.pod("u1").is_none());
    let key = index.pod("u2").unwrap().key();
    assert_eq!(uids(&index.delete_pod(&key)), ["u2"]);
    assert!(index.delete_pod(&key).is_empty());
}

#[test]
fn a_pod_whose_namespace_is_not_known_is_not_decided() {
    let mut index = mk_index();
    let pod = mk_pod("web", "u1", &json!({}));
    assert_eq!(index.judge(&pod), Verdict::Undecided);
    index.apply_namespace("demo".into(), Namespace::watched(Labels::new(), 0));
    assert_eq!(index.judge(&pod), Verdict::Outside(Reason::NotSelected));
    index.apply_namespace("demo".into(), Namespace::watched(ambient(), 0));
    assert_eq!(index.judge(&pod), Verdict::InMesh(Options::default()));
    index.delete_namespace("demo");
    assert_eq!(index.judge(&pod), Verdict::Undecided);
}

#[test]
fn some_pods_are_never_in_the_mesh() {
    let mut index = mk_index();
    let mode = "istio.io/dataplane-mode";
    for namespace in ["demo", "kube-system", "istio-system"] {
        index.apply_namespace(namespace.into(), Namespace::watched(ambient(), 0));
    }
    let cases = [
        (json!({"spec": {"hostNetwork": true}}), Reason::HostNetwork),
        (json!({"status": {"phase": "Succeeded"}}), Reason::Ended),
        (json!({"status": {"phase": "Failed"}}), Reason::Ended),
        (
            json!({"metadata": {"namespace": "kube-system"}}),
            Reason::ExcludedNamespace,
        ),
        (
            json!({"metadata": {"annotations": {"sidecar.istio.io/status": ""}}}),
            Reason::Sidecar,
        ),
        (
            json!({"metadata": {"labels": {mode: "none"}}}),
            Reason::NotSelected,
        ),
        (
            json!({"metadata": {"labels": {"app": "ztunnel"}, "namespace": "istio-system"}}),
            Reason::Ztunnel,
        ),
        (
            json!({"metadata": {"labels": {"app": "ztunnel", mode: "none"}}}),
            Reason::Ztunnel,
        ),
    ];
    for (more, reason) in cases {
        let pod = mk_pod("web", "u1", &more);
        assert_eq!(index.judge(&pod), Verdict::Outside(reason), "{more}");
    }
    // Anybody may call a pod so.
    let named = mk_pod(
        "web",
        "u1",
        &json!({"metadata": {"labels": {"app": "ztunnel"}}}),
    );
    assert!(matches!(index.judge(&named), Verdict::InMesh(_)));
}

#[test]
fn annotations_are_read_as_istio_reads_them() {
    let options = |annotations: Value| {
        let pod = mk_pod(
            "web",
            "u1",
            &json!({"metadata": {"annotations": annotations}}),
        );
        let default = Options {
            dns_capture: false,
            ..Options::default()
        };
        (
            pod.annotations.options(&default),
            pod.annotations.invalid.len(),
        )
    };
    for yes in ["1", "t", "T", "true", "TRUE", "True"] {
        let (read, invalid) = options(json!({"ambient.istio.io/dns-capture": yes}));
        assert!(read.dns_capture && invalid == 0, "{yes}");
    }
    for no in ["yes", "tRUE", "", " true"] {
        let (read, invalid) = options(json!({"ambient.istio.io/dns-capture": no}));
        assert!(!read.dns_capture && invalid == 1, "{no}");
    }
    let list = json!({"istio.io/reroute-virtual-interfaces": " tap0,, tap1 ,bad name"});
    let (read, invalid) = options(list);
    assert_eq!((read.virtual_interfaces.len(), invalid), (2, 1));
    let many: Vec<_> = (0..100).map(|number| format!("tap{number}")).collect();
    let (read, invalid) = options(json!({"istio.io/reroute-virtual-interfaces": many.join(",")}));
    assert_eq!((read.virtual_interfaces.len(), invalid), (64, 1));
    let wrong = json!({"istio.io/reroute-virtual-interfaces": vec!["a b"; 60].join(",")});
    let (read, invalid) = options(wrong);
    assert_eq!((read.virtual_interfaces.len(), invalid), (0, 8));
}

/// The cases of Istio's tests of ambient rules, each with IPv4 alone and (`_ipv6`) with both families. Where
/// their options send each flow is held by the matrix of mesh-redirect, on every backend.
///
/// | case | of |
/// |---|---|
/// | `default`, `default_ipv6` | a pod |
/// | `ingress`, `ingress_ipv6` | a pod |
/// | `virtual_interfaces`, `virtual_interfaces_ipv6` | a pod |
/// | `ingress_and_virtual_interfaces`, `ingress_and_virtual_interfaces_ipv6` | a pod |
/// | `dns_pod_enabled_and_off_globally`, `dns_pod_enabled_and_off_globally_ipv6` | a pod |
/// | `dns_pod_disabled_and_on_globally`, `dns_pod_disabled_and_on_globally_ipv6` | a pod |
/// | `hostprobe`, `hostprobe_ipv6` | the node: see `tests/agent/kernel/probes.rs` |
#[test]
fn settings_and_annotations_make_the_options_of_istios_cases() {
    let cases = include_str!("../../../../../lib/mesh-redirect/tests/cases.json");
    let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
    assert_eq!(cases.len(), 6);
    for (case, ipv6) in cases.iter().flat_map(|case| [(case, false), (case, true)]) {
        let settings = Options {
            families: Families::new(true, ipv6).unwrap(),
            dns_capture: case["dnsGlobally"].as_bool().unwrap(),
            ..Options::default()
        };
        let annotations = json!({"metadata": {"annotations": case["annotations"]}});
        let pod = mk_pod("web", "u1", &annotations);
        assert!(pod.annotations.invalid.is_empty(), "{case}");
        let options = pod.annotations.options(&settings);
        let interfaces = options.virtual_interfaces.iter().map(ToString::to_string);
        let made = json!({
            "dnsCapture": options.dns_capture,
            "ingressMode": options.ingress_mode,
            "virtualInterfaces": interfaces.collect::<Vec<_>>(),
        });
        assert_eq!(made, case["options"], "{case}");
        assert_eq!(options.families, settings.families);
    }
}

#[test]
fn a_mirror_is_known_by_both_its_uids() {
    let hash = "c8f9a1d0b0e94b0c8a3f4b7b6f6e5d4c";
    let annotations =
        json!({"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash});
    let mirror = mk_pod(
        "static",
        "u1",
        &json!({"metadata": {"annotations": annotations}}),
    );
    assert!(mirror.is(hash) && mirror.is("u1") && mirror.is("") && !mirror.is("u2"));
    assert_eq!(mirror.runtime_uids(), [hash, "u1"]);
    // Without being a mirror, anybody can say so.
    let annotations = json!({"kubernetes.io/config.hash": hash});
    let liar = mk_pod(
        "web",
        "u1",
        &json!({"metadata": {"annotations": annotations}}),
    );
    assert!(!liar.is(hash));
}

#[test]
fn a_stranger_passes_only_where_no_pod_could_belong() {
    let mut index = mk_index();
    index.apply_namespace("demo".into(), Namespace::watched(ambient(), 0));
    index.apply_namespace("plain".into(), Namespace::watched(Labels::new(), 0));
    assert_ne!(index.judge_stranger("demo"), Belongs::No);
    assert_eq!(
        index.judge_stranger("plain"),
        Belongs::Perhaps,
        "its own label may ask for it"
    );
    assert_eq!(index.judge_stranger("never-seen"), Belongs::Perhaps);
    assert_eq!(index.judge_stranger("kube-system"), Belongs::No);
}
