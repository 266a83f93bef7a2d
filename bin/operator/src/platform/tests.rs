use mesh_api::{
    openshift::{
        APIServerSpec, CustomTlsProfile, DefaultNetwork, GatewayConfig, NetworkSpec,
        OVN_KUBERNETES, OvnKubernetesConfig, TlsSecurityProfile,
    },
    sail::condition::{self, PLATFORM_SUPPORTED},
};

use super::{
    Reason::{OtherAgent, OtherControlPlane, OtherMesh, OtherOperator, OtherProxy, ServiceMesh2},
    facts::{Mark, Neighbour, Role, Unread},
    *,
};

fn texts<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.map(str::to_owned).into()
}

fn kubernetes(version: &str) -> Facts {
    Facts {
        kubernetes: version.to_owned(),
        ..Facts::default()
    }
}

fn openshift(version: &str) -> Facts {
    Facts {
        groups: texts([
            "security.openshift.io",
            "config.openshift.io",
            "operator.openshift.io",
        ]),
        openshift: Some(version.to_owned()),
        network: Some(ovn(true)),
        ..kubernetes("v1.32.5")
    }
}

fn ovn(routing_via_host: bool) -> NetworkSpec {
    NetworkSpec {
        default_network: DefaultNetwork {
            type_: OVN_KUBERNETES.to_owned(),
            ovn_kubernetes_config: Some(OvnKubernetesConfig {
                gateway_config: Some(GatewayConfig { routing_via_host }),
            }),
        },
    }
}

fn reasons(facts: &Facts) -> Vec<Reason> {
    let found = Detected::from_facts(facts).findings;
    found.into_iter().map(|finding| finding.reason).collect()
}

#[test]
fn the_kind_of_cluster_is_told_by_its_groups_version_and_nodes() {
    let marked = |version: &str, mark| {
        let mut facts = kubernetes(version);
        facts.nodes.marks.insert(mark);
        facts
    };
    let mut with_docker = marked("v1.33.1", Mark::Minikube);
    with_docker.nodes.runtimes = texts(["docker://28.0.4"]);
    let mut with_containerd = marked("v1.33.1", Mark::Minikube);
    with_containerd.nodes.runtimes = texts(["containerd://1.7.24"]);
    let microshift = Facts {
        groups: texts(["security.openshift.io"]),
        microshift: Some("4.19.1".to_owned()),
        ..kubernetes("v1.32.5")
    };
    let table = [
        (kubernetes("v1.33.2"), PlatformKind::Kubernetes),
        (kubernetes("v1.33.2-eks-931bdca"), PlatformKind::Kubernetes),
        (kubernetes("v1.32.4-gke.1106006"), PlatformKind::Gke),
        (kubernetes("v1.31.5+k3s1"), PlatformKind::K3s),
        (marked("v1.31.5+k3s1", Mark::K3d), PlatformKind::K3d),
        (kubernetes("v1.31.5+rke2r1"), PlatformKind::Kubernetes),
        (marked("v1.32.3", Mark::Microk8s), PlatformKind::Microk8s),
        (with_docker, PlatformKind::Minikube),
        (with_containerd, PlatformKind::Kubernetes),
        (openshift("4.19.3"), PlatformKind::OpenShift),
        (microshift, PlatformKind::OpenShift),
    ];
    for (facts, kind) in table {
        assert_eq!(Detected::from_facts(&facts).kind, kind, "{facts:?}");
    }
}

#[test]
fn a_cluster_without_peculiarities_is_supported_and_says_what_it_is() {
    let mut facts = openshift("4.19.3");
    facts.fips = true;
    facts.topology = "External".to_owned();
    let detected = Detected::from_facts(&facts);
    for component in Component::ALL {
        let condition = detected.condition(component);
        assert!(condition.is_true(), "{condition:?}");
        assert_eq!(
            condition.message,
            "OpenShift 4.19.3 on Kubernetes v1.32.5, hosted control plane, FIPS"
        );
    }
    assert_eq!(detected.routing_via_host, Some(true));
}

#[test]
fn the_shared_gateway_mode_is_reported_with_who_may_end_it() {
    let mut facts = openshift("4.19.3");
    facts.network = Some(ovn(false));
    let detected = Detected::from_facts(&facts);
    let condition = detected.condition(Component::Cni);
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "SharedGatewayMode")
    );
    for part in [
        "cluster administrator",
        "routingViaHost",
        "never changes it",
    ] {
        assert!(condition.message.contains(part), "{}", condition.message);
    }
    assert!(!condition.message.contains("hosted"));
    // The control plane does not care.
    assert!(detected.condition(Component::Istiod).is_true());

    facts.topology = "External".to_owned();
    let condition = Detected::from_facts(&facts).condition(Component::Ztunnel);
    assert!(
        condition.message.contains("hosted"),
        "{}",
        condition.message
    );

    // Without any setting the mode is the shared one; on another network there is none.
    facts.network = Some(NetworkSpec {
        default_network: DefaultNetwork {
            type_: OVN_KUBERNETES.to_owned(),
            ..DefaultNetwork::default()
        },
    });
    assert_eq!(reasons(&facts), [Reason::SharedGatewayMode]);
    facts.network = Some(NetworkSpec::default());
    assert_eq!(reasons(&facts), []);
}

#[test]
fn versions_are_judged_by_what_the_mesh_is_made_for() {
    let table = [
        (kubernetes("v1.26.15"), vec![Reason::VersionTooOld]),
        (kubernetes("v1.27.0"), vec![]),
        (kubernetes("v1.27+"), vec![]),
        (kubernetes(""), vec![]),
        (kubernetes("unreadable"), vec![]),
        (openshift("4.13.9"), vec![Reason::VersionTooOld]),
        (openshift("4.18.0-rc.1"), vec![Reason::VersionUntested]),
        (openshift("4.19.0"), vec![]),
        (openshift("5.0.0"), vec![]),
    ];
    for (facts, expected) in table {
        assert_eq!(reasons(&facts), expected, "{facts:?}");
    }
}

#[test]
fn processors_without_image_are_named() {
    let mut facts = kubernetes("v1.33.0");
    facts.nodes.architectures = texts(["amd64", "arm64", "riscv64"]);
    let condition = Detected::from_facts(&facts).condition(Component::Ztunnel);
    assert_eq!(condition.reason, "ArchitectureWithoutImage");
    assert!(condition.message.contains("riscv64") && !condition.message.contains("amd64"));
}

#[test]
fn cilium_is_asked_for_what_the_mesh_needs() {
    let cilium = |settings: &[(&str, &str)]| {
        let mut facts = kubernetes("v1.33.0");
        let settings = settings.iter();
        let settings = settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        facts.cilium = Some(settings.collect());
        reasons(&facts)
    };
    let shared = ("cni-exclusive", "false");
    assert_eq!(cilium(&[]), [Reason::CiliumExclusive]);
    assert_eq!(cilium(&[shared]), []);
    assert_eq!(
        cilium(&[shared, ("enable-bpf-masquerade", "true")]),
        [Reason::CiliumMasquerade]
    );
    let replaces = ("kube-proxy-replacement", "true");
    assert_eq!(cilium(&[shared, replaces]), [Reason::CiliumSocketBalancing]);
    assert_eq!(
        cilium(&[shared, replaces, ("bpf-lb-sock-hostns-only", "true")]),
        []
    );
}

#[test]
fn other_meshes_are_named_to_those_they_concern() {
    let neighbour = |role, name: &str, maker| Neighbour {
        role,
        namespace: "other".to_owned(),
        name: name.to_owned(),
        maker,
    };
    let mut facts = kubernetes("v1.33.0");
    facts.groups = texts(["linkerd.io", "policy.linkerd.io"]);
    facts.neighbours = vec![
        neighbour(Role::Operator, "sail-operator", None),
        neighbour(Role::ControlPlane, "istiod", Some("Helm")),
        neighbour(Role::Agent, "istio-cni-node", None),
        neighbour(Role::Proxy, "ztunnel", None),
        neighbour(Role::ServiceMesh2, "basic", None),
    ];
    let detected = Detected::from_facts(&facts);
    let of = |component| {
        let findings = detected.findings.iter();
        let of = findings.filter(|finding| finding.concerns.contains(&component));
        of.map(|finding| finding.reason).collect::<Vec<_>>()
    };
    assert_eq!(
        of(Component::Istiod),
        [OtherOperator, OtherControlPlane, ServiceMesh2]
    );
    assert_eq!(
        of(Component::Cni),
        [OtherOperator, OtherAgent, ServiceMesh2, OtherMesh]
    );
    assert_eq!(
        of(Component::Ztunnel),
        [OtherOperator, OtherProxy, ServiceMesh2, OtherMesh]
    );
    let condition = detected.condition(Component::Istiod);
    assert_eq!(condition.reason, "OtherOperator");
    assert!(condition.message.contains("istiod in other (made by Helm)"));
    assert_eq!(condition.message.matches("Linkerd").count(), 0);
}

#[test]
fn advice_does_not_make_a_cluster_unsupported() {
    let mut facts = kubernetes("v1.33.0");
    facts.groups = texts(["linkerd.io", "policy.linkerd.io"]);
    let condition = Detected::from_facts(&facts).condition(Component::Cni);
    assert!(condition.is_true());
    assert!(
        condition
            .message
            .starts_with("Kubernetes v1.33.0. Linkerd is installed")
    );
}

#[test]
fn what_cannot_be_read_is_unknown_and_names_the_permission() {
    let mut facts = openshift("4.19.3");
    facts.network = None;
    facts.unread = vec![Unread {
        what: "the network settings of OpenShift",
        unclear: "whether the kubelet's probes reach pods in the mesh",
        permission: Some("get networks.operator.openshift.io"),
        why: "forbidden".to_owned(),
    }];
    let detected = Detected::from_facts(&facts);
    let condition = detected.condition(Component::Cni);
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("Unknown", "NotReadable")
    );
    assert!(
        condition
            .message
            .contains("`get networks.operator.openshift.io`")
    );
    // What is known to be wrong is graver than what is not known.
    facts.kubernetes = "v1.20.0".to_owned();
    facts.openshift = None;
    let condition = Detected::from_facts(&facts).condition(Component::Cni);
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "VersionTooOld")
    );
    assert!(condition.message.contains("networks.operator.openshift.io"));
}

#[test]
fn the_tls_profile_counts_if_all_components_have_to_honour_it() {
    let profile = |adherence: &str, type_: &str, custom: Option<CustomTlsProfile>, fips: bool| {
        let mut facts = openshift("4.22.0");
        facts.fips = fips;
        facts.api_server = Some(APIServerSpec {
            tls_adherence: adherence.to_owned(),
            tls_security_profile: (!type_.is_empty()).then(|| TlsSecurityProfile {
                type_: type_.to_owned(),
                custom,
            }),
        });
        let detected = Detected::from_facts(&facts);
        let told = detected.findings.iter().map(|finding| finding.reason);
        (detected.tls, told.collect::<Vec<_>>())
    };
    for not_all in ["", "NoOpinion", "LegacyAdheringComponentsOnly"] {
        assert_eq!(profile(not_all, "Modern", None, false).0, None, "{not_all}");
    }
    let strict = "StrictAllComponents";
    let (modern, _) = profile(strict, "Modern", None, false);
    let modern = modern.unwrap();
    assert_eq!(
        (modern.min_version.as_str(), modern.ciphers.len()),
        ("TLSV1_3", 0)
    );
    let versions = |type_, fips| {
        let tls = profile(strict, type_, None, fips).0.unwrap();
        (tls.min_version, tls.ciphers.len())
    };
    for type_ in ["", "Intermediate", "Old"] {
        assert_eq!(versions(type_, false), ("TLSV1_2".to_owned(), 6));
        assert_eq!(versions(type_, true), ("TLSV1_2".to_owned(), 4));
    }
    assert_eq!(
        profile("Future", "Modern", None, false).0,
        Some(modern.clone())
    );

    let custom = |ciphers: &[&str], min: &str| {
        Some(CustomTlsProfile {
            ciphers: ciphers.iter().map(|name| (*name).to_owned()).collect(),
            min_tls_version: min.to_owned(),
        })
    };
    let chosen = [
        "TLS_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "AES128-SHA",
    ];
    let (tls, told) = profile(strict, "Custom", custom(&chosen, "VersionTLS12"), false);
    assert_eq!(
        (tls.unwrap().ciphers, told),
        (vec![chosen[1].to_owned()], vec![])
    );
    let (tls, told) = profile(
        strict,
        "Custom",
        custom(&["AES128-SHA"], "VersionTLS11"),
        false,
    );
    assert_eq!(
        (tls, told),
        (Some(modern.clone()), vec![Reason::NoCommonCipher])
    );
    let (tls, told) = profile(strict, "Custom", custom(&[], "VersionTLS13"), false);
    assert_eq!((tls, told), (Some(modern), vec![]));
}

#[test]
fn every_reason_is_one_word_in_pascal_case() {
    for reason in Reason::ALL {
        let name = reason.as_str();
        assert!(name.chars().all(char::is_alphanumeric) && name.starts_with(char::is_uppercase));
    }
}

#[test]
fn every_reason_is_in_the_vocabulary_of_the_kinds_that_show_it() {
    let serious = Reason::ALL.iter();
    let serious = serious.filter(|reason| reason.gravity() != Gravity::Advice);
    let serious: BTreeSet<_> = serious.map(|reason| reason.as_str()).collect();
    for kind in ["Istio", "IstioCNI", "ZTunnel"] {
        let mut meanings = condition::conditions_of(kind).iter();
        let meaning = meanings.find(|meaning| meaning.type_ == PLATFORM_SUPPORTED);
        let reasons = meaning.unwrap().reasons.iter();
        let documented: BTreeSet<_> = reasons.map(|(name, _)| *name).collect();
        assert_eq!(documented, serious, "{kind}");
    }
}
