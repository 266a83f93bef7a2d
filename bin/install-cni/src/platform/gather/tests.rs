use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use testkit_kube::server::{ApiServer, Options};
use testkit_net::namespace::Namespace;

use super::*;
use crate::platform::{Kind, Reason, detect};

/// A host as a folder: its `/proc`, with the root of its first process in it.
fn mk_host(files: &[(&str, &str)]) -> tempfile::TempDir {
    let host = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = host.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    host
}

fn gathered(sources: &Sources) -> Host {
    host(sources)
}

fn mk_sources(host: &Path) -> Sources {
    Sources {
        bin_folder: host.join("opt/cni/bin"),
        conf_folder: host.join("etc/cni/net.d"),
        host: host.to_owned(),
        ipv6: true,
        chained: true,
    }
}

#[test]
fn the_hosts_files_are_found_through_its_first_process() {
    let host = mk_host(&[
        (
            "proc/1/root/etc/os-release",
            "ID=\"rhcos\"\nPRETTY_NAME=\"RHEL CoreOS 9.6\"\n",
        ),
        ("proc/1/root/sys/fs/selinux/enforce", "1"),
        ("proc/1/root/run/docker/netns/abc", ""),
        ("proc/1/comm", "systemd\n"),
        ("proc/77/comm", "cilium-agent\n"),
        ("proc/77/root/tmp/cilium/config-map/cni-exclusive", "true\n"),
        ("proc/77/root/tmp/cilium/config-map/unrelated-secret", "x"),
        ("proc/78/comm", "calico-node\n"),
        ("proc/78/environ", "A=b\0FELIX_BPFENABLED=true\0"),
        ("proc/sys/kernel/osrelease", "5.14.0\n"),
        (
            "etc/cni/net.d/10-a.conflist",
            r#"{"name":"a","plugins":[{"type":"x"},{"type":"y"}]}"#,
        ),
        ("etc/cni/net.d/20-b.conf", "nonsense"),
    ]);
    let found = gathered(&mk_sources(host.path()));
    assert_eq!(found.operating_system(), "RHEL CoreOS 9.6");
    assert!(found.selinux.enforcing);
    assert_eq!(
        found.netns_folders,
        [folders::DOCKER_NAMESPACES.to_owned()].into()
    );
    assert!(found.netns_mounted.is_empty());
    let settings = [("cni-exclusive".to_owned(), "true".to_owned())];
    let cilium = Cilium {
        settings: Some(settings.into()),
    };
    assert_eq!(
        found.cilium,
        Some(cilium),
        "what is not asked for is not taken"
    );
    assert_eq!(found.calico_bpf, Some(true));
    assert_eq!(found.kernel.release, "5.14.0");
    let files = [("10-a.conflist", vec!["x", "y"]), ("20-b.conf", vec![])];
    let files = files.map(|(name, plugins)| ConfFile {
        name: name.to_owned(),
        plugins: plugins.into_iter().map(str::to_owned).collect(),
    });
    assert_eq!(found.conf_files, files);
    assert_eq!(found.unread, []);
    let report = detect(&found);
    assert_eq!(report.kind, Kind::OpenShift);
    assert!(
        report.has(Reason::FolderMissing),
        "there is no folder of plugins"
    );
    assert!(report.has(Reason::CiliumExclusive));
    assert!(report.has(Reason::NamespaceFolder));
}

#[test]
fn modules_are_loaded_built_in_loadable_or_absent() {
    let modules = "proc/1/root/lib/modules/6.1.0";
    let host = mk_host(&[
        ("proc/sys/kernel/osrelease", "6.1.0\n"),
        (
            "proc/modules",
            "nf_tables 12 3 nft_ct, Live 0x0\nnf-conntrack 1 0 - Live 0x0\n",
        ),
        (
            &format!("{modules}/modules.builtin"),
            "kernel/net/netfilter/xt_mark.ko\n",
        ),
        (
            &format!("{modules}/modules.dep"),
            "kernel/net/netfilter/nft_ct.ko.xz: kernel/net/netfilter/nf_tables.ko.xz\n\
             kernel/net/netfilter/nft-redir.ko.zst:\n",
        ),
        ("proc/1/root/sys/module/xt_owner/refcnt", "0"),
    ]);
    let found = gathered(&mk_sources(host.path())).kernel.modules;
    for (module, presence) in [
        ("nf_tables", Presence::Present),
        ("xt_mark", Presence::Present),
        ("xt_owner", Presence::Present),
        ("nft_ct", Presence::Loadable),
        ("nft_redir", Presence::Loadable),
        ("ip_set_hash_ip", Presence::Absent),
    ] {
        assert_eq!(found[module], presence, "{module}");
    }
    fs::remove_file(host.path().join(modules).join("modules.dep")).unwrap();
    let found = gathered(&mk_sources(host.path())).kernel.modules;
    assert_eq!(found["ip_set_hash_ip"], Presence::Unknown);
}

#[test]
fn sysctls_are_those_of_the_hosts_network() {
    let namespace = Namespace::new("sysctl").unwrap();
    namespace.set("net.ipv4.tcp_early_demux", "0").unwrap();
    let host = mk_host(&[("proc/1/comm", "init")]);
    fs::create_dir(host.path().join("proc/1/ns")).unwrap();
    std::os::unix::fs::symlink(namespace.path(), host.path().join("proc/1/ns/net")).unwrap();
    let found = gathered(&mk_sources(host.path())).sysctls;
    assert_eq!(found["net.ipv4.tcp_early_demux"], "0");
}

#[test]
fn a_host_that_cannot_be_seen_is_told() {
    let host = mk_host(&[("proc/2/comm", "x")]);
    let found = gathered(&mk_sources(host.path()));
    let report = detect(&found);
    assert!(report.has(Reason::NotReadable), "{report:?}");
    assert!(
        !report.has(Reason::NoPacketFilter),
        "what is not known is not missing"
    );
}

#[test]
fn this_machine_can_be_looked_at() {
    let sources = Sources {
        bin_folder: "/opt/cni/bin".into(),
        conf_folder: "/etc/cni/net.d".into(),
        host: "/".into(),
        ipv6: true,
        chained: true,
    };
    let found = gathered(&sources);
    assert_eq!(found.unread, []);
    assert!(!found.kernel.release.is_empty());
    assert!(!found.os_release.is_empty());
    assert!(found.sysctls.contains_key("net.ipv4.tcp_early_demux"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_tells_what_the_node_is() {
    let server = ApiServer::start(Options::default()).await.unwrap();
    let client = server.admin_client().await.unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    let made = json!({
        "metadata": {
            "name": "worker-1",
            "labels": {"microk8s.io/cluster": "true"},
            "annotations": {"k8s.ovn.org/l3-gateway-config": "{\"default\":{\"mode\":\"shared\"}}"},
        },
        "spec": {"providerID": "some://worker-1"},
    });
    let made = serde_json::from_value(made).unwrap();
    nodes.create(&PostParams::default(), &made).await.unwrap();
    let info = json!({
        "kubeletVersion": "v1.33.2", "osImage": "Ubuntu 24.04", "containerRuntimeVersion": "containerd://2.1.0",
        "architecture": "amd64", "bootID": "b", "kernelVersion": "6.8.0", "kubeProxyVersion": "",
        "machineID": "m", "operatingSystem": "linux", "systemUUID": "s",
    });
    let images = json!([{"names": ["docker.io/calico/node:v3.28.1", "calico/node@sha256:0"]}]);
    let status = json!({"status": {"nodeInfo": info, "images": images}});
    let (params, status) = (PatchParams::default(), Patch::Merge(&status));
    let patched = nodes.patch_status("worker-1", &params, &status);
    patched.await.unwrap();
    let facts = node(&client, "worker-1").await.unwrap();
    assert_eq!(facts.kubelet_version, "v1.33.2");
    assert_eq!(facts.os_image, "Ubuntu 24.04");
    assert_eq!(facts.provider_id, "some://worker-1");
    assert_eq!(facts.images.len(), 2);
    let report = detect(&Host {
        node: Some(facts),
        calico_bpf: Some(true),
        ..Host::default()
    });
    assert_eq!(report.kind, Kind::MicroK8s);
    assert!(report.has(Reason::SharedGatewayMode) && report.has(Reason::CalicoBpf));
    assert_eq!(node(&client, "worker-2").await, None);
    server.stop().await;
    assert_eq!(
        node(&client, "worker-1").await,
        None,
        "the report is poorer then"
    );
}
