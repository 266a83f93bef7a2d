use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn meta(namespace: Option<&str>, name: &str, says: &[&str]) -> ObjectMeta {
    let pairs = |prefix: &str| {
        let pairs = says.iter().filter_map(|pair| pair.strip_prefix(prefix));
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap());
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Some(pairs.collect::<BTreeMap<_, _>>())
    };
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: pairs(""),
        annotations: pairs("@"),
        ..ObjectMeta::default()
    }
}

/// What is referred to when a namespace and a pod in it say this; what begins with `@` is an annotation.
fn referred(namespace: &[&str], pod: &[&str]) -> Vec<String> {
    let mut usage = Usage::default();
    usage.apply_namespace(&meta(None, "shop", namespace));
    usage.apply_pod(&meta(Some("shop"), "web", pod));
    names(&usage)
}

fn names(usage: &Usage) -> Vec<String> {
    let names = usage.references.keys().map(|reference| match reference {
        Reference::Named(name) => name.to_string(),
        Reference::Serving => "(serving)".to_owned(),
    });
    names.collect()
}

fn touching(names: &[&str]) -> Touched {
    Touched {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        enrolment: false,
    }
}

#[test]
fn namespaces_and_pods_refer_to_revisions_by_the_rules_of_sail() {
    let none: &[&str] = &[];
    for (namespace, pod, expected) in [
        (none, none, none),
        (&["istio-injection=disabled"], none, none),
        (&["istio-injection=enabled"], none, &["default"]),
        (&["istio.io/rev=canary"], none, &["canary"]),
        // Injection wins over the revision, as in Istio's webhooks.
        (
            &["istio-injection=enabled", "istio.io/rev=canary"],
            none,
            &["default"],
        ),
        (none, &["istio.io/rev=canary"], &["canary"]),
        (none, &["istio.io/rev="], none),
        // What the namespace says wins over what a pod asks for, not over what was injected.
        (
            &["istio-injection=enabled"],
            &["istio.io/rev=canary"],
            &["default"],
        ),
        (
            &["istio.io/rev=new"],
            &["@istio.io/rev=old"],
            &["new", "old"],
        ),
        (none, &["sidecar.istio.io/inject=true"], &["default"]),
        (
            none,
            &["sidecar.istio.io/inject=true", "istio.io/rev=canary"],
            &["canary"],
        ),
        // Such as istiod's own pods.
        (
            none,
            &["sidecar.istio.io/inject=false", "istio.io/rev=canary"],
            none,
        ),
    ] {
        assert_eq!(referred(namespace, pod), expected, "{namespace:?} {pod:?}");
    }
}

#[test]
fn what_the_ambient_mesh_serves_counts_without_naming_a_revision() {
    let none: &[&str] = &[];
    let ambient = "istio.io/dataplane-mode=ambient";
    for (namespace, pod, expected) in [
        (&[ambient][..], none, &["(serving)"][..]),
        (&[ambient, "istio.io/rev=canary"], none, &["canary"]),
        (&["istio.io/dataplane-mode=none"], none, none),
        (none, &[ambient], &["(serving)"]),
        (none, &[ambient, "istio.io/rev=canary"], &["canary"]),
        (&["istio.io/rev=canary"], &[ambient], &["canary"]),
        // Pods that declined a sidecar are still in the ambient mesh.
        (
            none,
            &[ambient, "sidecar.istio.io/inject=false"],
            &["(serving)"],
        ),
        (
            &["istio-injection=enabled", ambient],
            none,
            &["default", "(serving)"],
        ),
    ] {
        assert_eq!(referred(namespace, pod), expected, "{namespace:?} {pod:?}");
    }
}

#[test]
fn a_waypoint_counts_for_the_revision_that_serves_it() {
    let mut usage = Usage::default();
    let waypoint = ["istio.io/waypoint-for=service"];
    let touched = usage.apply_gateway(&meta(Some("shop"), "waypoint", &waypoint));
    assert_eq!(touched, touching(&[SERVING]));
    let touched = usage.apply_namespace(&meta(None, "shop", &["istio.io/rev=canary"]));
    assert_eq!(touched, touching(&[SERVING, "canary"]));
    assert_eq!(names(&usage), ["canary"]);
    let own = ["istio.io/waypoint-for=service", "istio.io/rev=own"];
    usage.apply_gateway(&meta(Some("shop"), "waypoint", &own));
    assert_eq!(names(&usage), ["canary", "own"]);
    // Somebody else's Gateway.
    usage.apply_gateway(&meta(Some("shop"), "nginx", &[]));
    usage.delete_gateway("shop", "waypoint");
    usage.delete_namespace("shop");
    assert_eq!(names(&usage), Vec::<String>::new());
    assert!(usage.namespaces.is_empty());
}

#[test]
fn only_what_makes_a_difference_has_an_effect() {
    let mut usage = Usage::default();
    let references = touching(&["canary"]);
    let none = Touched::default();
    let pod = |name: &str| meta(Some("shop"), name, &["istio.io/rev=canary"]);
    assert_eq!(
        usage.apply_pod(&meta(Some("shop"), "silent", &["app=web"])),
        none
    );
    assert_eq!(usage.apply_pod(&pod("a")), references);
    assert_eq!(usage.apply_pod(&pod("b")), none);
    assert_eq!(usage.apply_pod(&pod("b")), none);
    assert_eq!(usage.delete_pod("shop", "a"), none);
    assert_eq!(usage.delete_pod("shop", "a"), none);
    assert_eq!(usage.delete_pod("shop", "b"), references);
    assert!(
        usage.namespaces.is_empty(),
        "nothing is kept of them: {usage:?}"
    );
}

#[test]
fn pods_in_the_mesh_are_counted_and_some_are_named() {
    let mut usage = Usage::default();
    let enrolled = "@ambient.istio.io/redirection=enabled";
    for (namespace, count) in [("bookinfo", 2), ("shop", 2), ("web", 1), ("zoo", 1)] {
        for at in 0..count {
            let pod = meta(Some(namespace), &format!("pod-{at}"), &[enrolled]);
            assert!(usage.apply_pod(&pod).enrolment);
        }
    }
    let outside = meta(
        Some("shop"),
        "out",
        &["@ambient.istio.io/redirection=disabled"],
    );
    assert_eq!(usage.apply_pod(&outside), Touched::default());
    assert_eq!(
        usage.enrolled().to_string(),
        "6 pods are in the mesh, in namespaces bookinfo (2), shop (2), web (1) and 1 more, \
         such as bookinfo/pod-0, bookinfo/pod-1, shop/pod-0"
    );
    for namespace in ["bookinfo", "web", "zoo"] {
        usage.delete_pod(namespace, "pod-0");
    }
    usage.delete_pod("bookinfo", "pod-1");
    usage.apply_pod(&meta(Some("shop"), "pod-1", &[]));
    assert_eq!(
        usage.enrolled().to_string(),
        "1 pod is in the mesh, in namespace shop (1), such as shop/pod-0"
    );
    assert_eq!(usage.enrolled_pods(), 1);
}

/// What a namespace, pod or Gateway may say, by a small number.
fn said(choice: u8) -> Vec<&'static str> {
    let all = [
        "istio.io/rev=a",
        "istio.io/rev=b",
        "@istio.io/rev=a",
        "istio.io/dataplane-mode=ambient",
        "istio-injection=enabled",
        "sidecar.istio.io/inject=true",
        "istio.io/waypoint-for=all",
        "@ambient.istio.io/redirection=enabled",
    ];
    let chosen = all
        .iter()
        .enumerate()
        .filter(|(at, _)| choice & (1 << at) != 0);
    chosen.map(|(_, says)| *says).collect()
}

proptest! {
    /// Whatever has happened, answers are those of an index that was told only of what there is now.
    #[test]
    fn the_past_does_not_matter(events in prop::collection::vec((0..3_u8, 0..2_u8, 0..3_u8, any::<Option<u8>>()), 0..60)) {
        let mut usage = Usage::default();
        let mut now = BTreeMap::new();
        for (kind, namespace, name, says) in events {
            let (namespace, name) = (format!("ns-{namespace}"), format!("x-{name}"));
            let says = says.map(said);
            let key = (kind, namespace.clone(), if kind == 0 { String::new() } else { name.clone() });
            tell(&mut usage, kind, &namespace, &name, says.as_deref());
            match says {
                Some(says) => now.insert(key, says),
                None => now.remove(&key),
            };
        }
        let mut fresh = Usage::default();
        for ((kind, namespace, name), says) in now.into_iter().rev() {
            tell(&mut fresh, kind, &namespace, &name, Some(&says));
        }
        prop_assert_eq!(&usage.references, &fresh.references);
        prop_assert_eq!(usage.enrolled(), fresh.enrolled());
        prop_assert_eq!(usage.namespaces.len(), fresh.namespaces.len());
    }
}

fn tell(usage: &mut Usage, kind: u8, namespace: &str, name: &str, says: Option<&[&str]>) {
    let _touched = match (kind, says) {
        (0, Some(says)) => usage.apply_namespace(&meta(None, namespace, says)),
        (0, None) => usage.delete_namespace(namespace),
        (1, Some(says)) => usage.apply_pod(&meta(Some(namespace), name, says)),
        (1, None) => usage.delete_pod(namespace, name),
        (_, Some(says)) => usage.apply_gateway(&meta(Some(namespace), name, says)),
        (_, None) => usage.delete_gateway(namespace, name),
    };
}

#[test]
fn a_text_that_no_revision_can_be_named_by_is_not_kept() {
    let longest = format!("@istio.io/rev={}", "a".repeat(LONGEST_NAME));
    assert_eq!(referred(&[], &[&longest]).len(), 1);
    let hostile = format!("@istio.io/rev={}", "a".repeat(256 * 1024));
    assert_eq!(referred(&[], &[&hostile]), Vec::<String>::new());
    let mut usage = Usage::default();
    usage.apply_pod(&meta(Some("shop"), "web", &[&hostile]));
    assert!(usage.namespaces.is_empty());
}
