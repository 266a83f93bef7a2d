use std::collections::BTreeMap;

use super::*;

/// A node on which nothing is in the way.
fn mk_host() -> Host {
    let folder = |path: &str| Folder {
        path: path.to_owned(),
        exists: true,
        ..Folder::default()
    };
    Host {
        node: Some(NodeFacts {
            name: "worker-1".to_owned(),
            kubelet_version: "v1.33.2".to_owned(),
            os_image: "Debian GNU/Linux 13".to_owned(),
            ..NodeFacts::default()
        }),
        kernel: KernelFeatures {
            release: "6.12.0".to_owned(),
            modules: kernel::modules()
                .map(|module| (module, Presence::Loadable))
                .collect(),
        },
        sysctls: [
            ("net.ipv4.tcp_early_demux", "1"),
            ("net.ipv6.conf.all.disable_ipv6", "0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        bin_folder: folder("/host/opt/cni/bin"),
        conf_folder: folder("/host/etc/cni/net.d"),
        ipv6_wanted: true,
        chained: true,
        ..Host::default()
    }
}

fn with(change: impl FnOnce(&mut Host)) -> Host {
    let mut host = mk_host();
    change(&mut host);
    host
}

fn label(host: &mut Host, key: &str, value: &str) {
    if let Some(node) = &mut host.node {
        node.labels.insert(key.to_owned(), value.to_owned());
    }
}

fn annotate(host: &mut Host, key: &str, value: &str) {
    if let Some(node) = &mut host.node {
        node.annotations.insert(key.to_owned(), value.to_owned());
    }
}

fn sysctl(host: &mut Host, name: &str, value: &str) {
    host.sysctls.insert(name.to_owned(), value.to_owned());
}

fn version(host: &mut Host, version: &str) {
    if let Some(node) = &mut host.node {
        version.clone_into(&mut node.kubelet_version);
    }
}

fn lacks(host: &mut Host, modules: &[&'static str]) {
    let absent = modules.iter().map(|module| (*module, Presence::Absent));
    host.kernel.modules.extend(absent);
}

/// Cilium as it is installed for a mesh, with these settings changed.
fn cilium(host: &mut Host, changed: &[(&str, &str)]) {
    let settings = [
        ("cni-exclusive", "false"),
        ("enable-bpf-masquerade", "false"),
    ];
    let settings = settings.iter().chain(changed);
    host.cilium = Some(Cilium {
        settings: Some(
            settings
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        ),
    });
}

fn conf(name: &str, plugin: &str) -> ConfFile {
    ConfFile {
        name: name.to_owned(),
        plugins: vec![plugin.to_owned()],
    }
}

fn image(host: &mut Host, image: &str) {
    if let Some(node) = &mut host.node {
        node.images.insert(image.to_owned());
    }
}

fn reasons(host: &Host) -> Vec<Reason> {
    detect(host)
        .findings
        .iter()
        .map(|finding| finding.reason)
        .collect()
}

/// Compares what is found on a node that differs in this. Every finding says what it is and what to do.
fn tells(change: impl FnOnce(&mut Host), expected: &[Reason]) {
    let report = detect(&with(change));
    let found = report.findings.iter().map(|finding| finding.reason);
    let found: Vec<_> = found.collect();
    assert_eq!(found, expected, "{report:#?}");
    for finding in report.findings {
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty());
        assert!(
            !finding.message.ends_with('.') && !finding.remedy.ends_with('.'),
            "{finding}"
        );
    }
}

#[test]
fn a_node_in_order_has_no_findings() {
    assert_eq!(reasons(&mk_host()), []);
    assert_eq!(
        reasons(&Host {
            node: None,
            ..mk_host()
        }),
        []
    );
    let in_order = with(|host| cilium(host, &[]));
    assert_eq!(reasons(&in_order), []);
}

#[test]
fn a_folder_that_cannot_serve_is_told() {
    tells(|h| h.bin_folder.exists = false, &[Reason::FolderMissing]);
    tells(|h| h.conf_folder.exists = false, &[Reason::FolderMissing]);
    tells(|h| h.bin_folder.read_only = true, &[Reason::FolderReadOnly]);
    tells(
        |h| h.conf_folder.read_only = true,
        &[Reason::FolderReadOnly],
    );
    tells(|h| h.bin_folder.no_exec = true, &[Reason::FolderNoExec]);
    tells(|h| h.conf_folder.no_exec = true, &[]);
    tells(
        |h| {
            h.netns_folders = ["/var/run/docker/netns".to_owned()].into();
            h.netns_mounted = ["/var/run/netns".to_owned()].into();
        },
        &[Reason::NamespaceFolder],
    );
}

#[test]
fn a_kernel_that_cannot_hold_the_rules_is_told() {
    tells(|h| lacks(h, &["nft_ct"]), &[Reason::NftablesIncomplete]);
    tells(|h| lacks(h, &["xt_owner"]), &[]);
    tells(
        |h| lacks(h, &["nft_ct", "ip_tables"]),
        &[Reason::NftablesIncomplete],
    );
    tells(
        |h| lacks(h, &["nft_ct", "xt_owner"]),
        &[Reason::NoPacketFilter],
    );
    tells(|h| lacks(h, &["nf_conntrack"]), &[Reason::NoPacketFilter]);
    tells(
        |h| lacks(h, &["nf_tables", "ip_tables", "nft_compat"]),
        &[Reason::NoPacketFilter],
    );
}

#[test]
fn cilium_is_told_how_it_has_to_be_set() {
    tells(
        |h| cilium(h, &[("cni-exclusive", "true")]),
        &[Reason::CiliumExclusive],
    );
    // Cilium's defaults: exclusive.
    tells(
        |h| {
            h.cilium = Some(Cilium {
                settings: Some(BTreeMap::new()),
            });
        },
        &[Reason::CiliumExclusive],
    );
    tells(
        |h| {
            h.cilium = Some(Cilium { settings: None });
            h.conf_files = vec![conf("10-x.conflist.cilium_bak", "x")];
        },
        &[Reason::CiliumExclusive],
    );
    tells(
        |h| h.conf_files = vec![conf("05-cilium.conflist", "cilium-cni")],
        &[],
    );
    tells(
        |h| cilium(h, &[("enable-bpf-masquerade", "true")]),
        &[Reason::CiliumMasquerade],
    );
    tells(
        |h| {
            cilium(
                h,
                &[
                    ("enable-bpf-masquerade", "true"),
                    ("kube-proxy-replacement", "true"),
                    ("bpf-lb-sock-hostns-only", "true"),
                ],
            );
        },
        &[Reason::CiliumMasquerade, Reason::CiliumHostRouting],
    );
    tells(
        |h| {
            cilium(
                h,
                &[
                    ("enable-bpf-masquerade", "true"),
                    ("kube-proxy-replacement", "strict"),
                    ("enable-host-legacy-routing", "true"),
                ],
            );
        },
        &[Reason::CiliumMasquerade, Reason::CiliumSocketBalancing],
    );
}

#[test]
fn calicos_data_plane_is_told_by_its_version() {
    tells(|h| h.calico_bpf = Some(false), &[]);
    tells(|h| h.calico_bpf = Some(true), &[Reason::CalicoBpfVersion]);
    tells(
        |h| {
            h.calico_bpf = Some(true);
            image(h, "docker.io/calico/node:v3.28.1");
        },
        &[Reason::CalicoBpf],
    );
    tells(
        |h| {
            h.calico_bpf = Some(true);
            image(h, "docker.io/calico/node:v3.28.1");
            image(h, "quay.io/calico/node:v3.30.0-rc.1");
            image(h, "calico/node@sha256:abcdef");
        },
        &[],
    );
}

#[test]
fn what_else_takes_packets_or_pods_from_the_mesh_is_told() {
    let gateway = "k8s.ovn.org/l3-gateway-config";
    let trunk = "vpc.amazonaws.com/has-trunk-attached";
    tells(
        |h| annotate(h, gateway, r#"{"default":{"mode":"shared"}}"#),
        &[Reason::SharedGatewayMode],
    );
    tells(
        |h| annotate(h, gateway, r#"{"default":{"mode":"local"}}"#),
        &[],
    );
    tells(|h| annotate(h, gateway, "{"), &[]);
    tells(
        |h| {
            label(h, trunk, "true");
            sysctl(h, "net.ipv4.tcp_early_demux", "1\n");
        },
        &[Reason::BranchInterfaces],
    );
    tells(
        |h| {
            label(h, trunk, "true");
            sysctl(h, "net.ipv4.tcp_early_demux", "0");
        },
        &[],
    );
    tells(
        |h| label(h, "sandbox.gke.io/runtime", "gvisor"),
        &[Reason::SandboxedPods],
    );
}

#[test]
fn a_kernel_without_ipv6_is_told_where_it_is_wanted() {
    tells(
        |h| {
            h.sysctls.remove("net.ipv6.conf.all.disable_ipv6");
        },
        &[Reason::Ipv6Disabled],
    );
    tells(
        |h| sysctl(h, "net.ipv6.conf.all.disable_ipv6", "1"),
        &[Reason::Ipv6Disabled],
    );
    tells(
        |h| {
            h.ipv6_wanted = false;
            sysctl(h, "net.ipv6.conf.all.disable_ipv6", "1");
        },
        &[],
    );
}

#[test]
fn what_confines_the_agent_is_told() {
    tells(
        |h| h.selinux = mk_selinux(true, "container_t"),
        &[Reason::SeLinuxConfined],
    );
    tells(|h| h.selinux = mk_selinux(true, "spc_t"), &[]);
    tells(|h| h.selinux = mk_selinux(false, "container_t"), &[]);
}

#[test]
fn other_plugins_of_the_chain_are_told() {
    tells(
        |h| h.conf_files = vec![conf("00-multus.conf", "multus")],
        &[Reason::MultusChained],
    );
    tells(
        |h| {
            h.chained = false;
            h.conf_files = vec![conf("00-multus.conf", "multus")];
        },
        &[],
    );
    tells(
        |h| h.conf_files = vec![conf("10-x.conflist", "linkerd-cni")],
        &[Reason::OtherMesh],
    );
}

fn mk_selinux(enforcing: bool, domain: &str) -> SeLinux {
    SeLinux {
        enforcing,
        domain: Some(domain.to_owned()),
    }
}

#[test]
fn folders_of_another_platform_are_told_with_the_value_to_set() {
    let k3s = |bin: &str| {
        with(|host| {
            version(host, "v1.33.2+k3s1");
            host.bin_folder.on_host = Some(bin.to_owned());
        })
    };
    let found = detect(&k3s("/opt/cni/bin"));
    let remedies: Vec<_> = found
        .findings
        .iter()
        .map(|finding| finding.remedy.as_str())
        .collect();
    assert_eq!(
        remedies,
        ["Set `global.platform` to `k3s`, or `cni.cniBinDir` to /var/lib/rancher/k3s/data/cni"]
    );
    // On a file system of its own, and with the layers of an image before it.
    for fits in [
        "/var/lib/rancher/k3s/data/cni",
        "/rancher/k3s/data/cni",
        "/ostree/deploy/x/var/lib/rancher/k3s/data/cni",
    ] {
        assert_eq!(reasons(&k3s(fits)), [], "{fits}");
    }
    let microk8s = |bin: &str| {
        with(|host| {
            label(host, "microk8s.io/cluster", "true");
            host.bin_folder.on_host = Some(bin.to_owned());
        })
    };
    assert_eq!(
        reasons(&microk8s("/var/snap/microk8s/7180/opt/cni/bin")),
        [],
        "a link"
    );
    assert_eq!(
        reasons(&microk8s("/var/snap/x/7180/opt/cni/bin")),
        [Reason::WrongFolder]
    );
    assert_eq!(
        reasons(&k3s("/x/my-cni")),
        [Reason::WrongFolder],
        "not any end fits"
    );
    let elsewhere = with(|host| host.bin_folder.on_host = Some("/usr/lib/cni".to_owned()));
    assert_eq!(reasons(&elsewhere), [], "where anybody may set up anything");
}

#[test]
fn platforms_are_known_by_what_is_theirs() {
    for (kind, change) in [
        (
            Kind::OpenShift,
            ("label", "node.openshift.io/os_id", "rhel"),
        ),
        (Kind::Gke, ("version", "v1.33.2-gke.1240000", "")),
        (Kind::Gke, ("label", "cloud.google.com/gke-nodepool", "p")),
        (Kind::Eks, ("version", "v1.33.2-eks-931bdca", "")),
        (Kind::Aks, ("label", "kubernetes.azure.com/cluster", "c")),
        (Kind::MicroK8s, ("label", "microk8s.io/cluster", "true")),
        (Kind::K3s, ("version", "v1.33.2+k3s1", "")),
        (Kind::Rke2, ("version", "v1.33.2+rke2r1", "")),
        (
            Kind::Minikube,
            ("label", "minikube.k8s.io/name", "minikube"),
        ),
        (
            Kind::Kind,
            ("provider", "kind://docker/kind/kind-worker", ""),
        ),
        (Kind::K3d, ("name", "k3d-lab-agent-0", "v1.33.2+k3s1")),
        (Kind::Talos, ("os", "Talos (v1.10.4)", "")),
        (Kind::Bottlerocket, ("os", "Bottlerocket OS 1.40.0", "")),
        (Kind::Other, ("version", "v1.33.2", "")),
    ] {
        let host = with(|host| {
            let (what, key, value) = change;
            let node = host.node.as_mut().unwrap();
            match what {
                "label" => label(host, key, value),
                "version" => version(host, key),
                "provider" => key.clone_into(&mut node.provider_id),
                "name" => {
                    key.clone_into(&mut node.name);
                    version(host, value);
                }
                _ => key.clone_into(&mut node.os_image),
            }
        });
        assert_eq!(detect(&host).kind, kind, "{change:?}");
    }
    let alone = with(|host| {
        host.node = None;
        host.os_release.insert("ID".to_owned(), "rhcos".to_owned());
    });
    assert_eq!(
        detect(&alone).kind,
        Kind::OpenShift,
        "without an API server"
    );
}

#[test]
fn the_gravest_comes_first() {
    let host = with(|host| {
        host.chained = true;
        host.conf_files = vec![
            conf("00-multus.conf", "multus"),
            conf("10-x.conflist", "kuma-cni"),
        ];
        host.bin_folder.read_only = true;
    });
    let expected = [
        Reason::FolderReadOnly,
        Reason::OtherMesh,
        Reason::MultusChained,
    ];
    assert_eq!(reasons(&host), expected);
}

#[test]
fn a_report_is_shown_in_full_and_counted_by_kind() {
    let host = with(|host| {
        host.bin_folder.exists = false;
        host.conf_folder.exists = false;
        cilium(host, &[("cni-exclusive", "true")]);
    });
    let report = detect(&host);
    let shown = serde_json::to_value(&report).unwrap();
    assert_eq!(shown["kind"], "other");
    assert_eq!(shown["findings"][0]["reason"], "FolderMissing");
    assert_eq!(shown["findings"][0]["severity"], "error");
    assert!(
        shown["findings"][2]["remedy"]
            .as_str()
            .unwrap()
            .contains("cni.exclusive=false")
    );
    let mut registry = prometheus_client::registry::Registry::default();
    metrics::register(&mut registry, &report);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "lateen_cni_platform_findings{kind=\"FolderMissing\",severity=\"error\"} 2",
        "lateen_cni_platform_findings{kind=\"CiliumExclusive\",severity=\"error\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
