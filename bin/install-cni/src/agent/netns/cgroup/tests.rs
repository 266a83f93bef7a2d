use std::{fs, path::Path};

use proptest::prelude::*;

use super::*;

const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";
const STATIC: &str = "c8f9a1d0b0e94b0c8a3f4b7b6f6e5d4c";
const CONTAINER: &str = "c84a5c1bd7b8e0a7bb1cb8cf2a9c1f8c0b9df0a6bdb1a3c7e35b8f3a2b1c0d9e";

fn found(text: &str) -> Option<(String, String)> {
    let membership = membership(text, "0::/init.scope").unwrap();
    membership.map(|found| (found.pod, found.container))
}

fn written(path: &str) -> String {
    let under = UID.replace('-', "_");
    path.replace("UID", UID)
        .replace("UND", &under)
        .replace("STA", STATIC)
        .replace("CID", CONTAINER)
}

#[test]
fn every_runtime_and_driver_names_the_pod() {
    let paths = [
        // cgroupfs
        "0::/kubepods/burstable/podUID/CID",
        "0::/kubepods/podUID/CID",
        "0::/kubepods/besteffort/podUID/CID/init.scope",
        // systemd
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUND.slice/cri-containerd-CID.scope",
        "0::/kubepods.slice/kubepods-podUND.slice/docker-CID.scope",
        "1:name=systemd:/kubepods.slice/kubepods-podUND.slice/crio-CID.scope/container",
        "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUND.slice/cri-containerd-CID.scope",
        // a runtime that takes systemd's names for its own
        "0::/system.slice/containerd.service/kubepods-burstable-podUND.slice:cri-containerd:CID",
        // a node in a container
        "0::/docker/0123456789abcdef/kubelet/kubepods/besteffort/podUID/CID",
        "0::/../../kubepods/podUID/CID",
        // CRI-O's monitor is a process of the pod as well; it is in the node's network and left out for that
        "0::/kubepods.slice/kubepods-podUND.slice/crio-conmon-CID.scope",
    ];
    for path in paths {
        let expected = Some((UID.to_owned(), CONTAINER.to_owned()));
        assert_eq!(found(&written(path)), expected, "{path}");
    }
    let path = written("0::/kubepods/burstable/podSTA/CID");
    assert_eq!(
        found(&path),
        Some((STATIC.to_owned(), CONTAINER.to_owned()))
    );
}

#[test]
fn a_pod_cannot_make_its_processes_another_pods() {
    for own in [
        "/kubepods/podUID/CID",
        "/kubepods.slice/kubepods-podUND.slice/cri-containerd-CID.scope",
    ] {
        for inner in [
            "/kubepods/pod11111111-1111-1111-1111-111111111111/ffff",
            "/pod11111111-1111-1111-1111-111111111111/ffff",
            "/kubepods-pod11111111_1111_1111_1111_111111111111.slice/docker-ffff.scope",
        ] {
            let text = written(&format!("0::{own}{inner}"));
            let expected = Some((UID.to_owned(), CONTAINER.to_owned()));
            assert_eq!(found(&text), expected, "{text}");
        }
    }
}

#[test]
fn a_node_that_is_a_pod_itself_has_pods_of_its_own() {
    let outer = "/kubepods/pod11111111-1111-1111-1111-111111111111/ffff";
    let text = written(&format!("5:cpu:{outer}/kubepods/podUID/CID\n0::/\n"));
    let node = format!("9:pids:/\n5:cpu:{outer}/init.scope\n0::/\n");
    let found = membership(&text, &node).unwrap().unwrap();
    assert_eq!((&*found.pod, &*found.container), (UID, CONTAINER));
}

#[test]
fn processes_of_no_pod_are_of_no_pod() {
    for path in [
        "0::/",
        "0::/system.slice/kubelet.service",
        "0::/kubepods.slice",
        "0::/kubepods/burstable",
        "0::/kubepods/burstable/podUID",
        "0::/user.slice/podman-UID.scope/CID",
        "0::/kubepods/pod2c48913c-b29f-11e7-9350-02096814779/CID",
        "",
    ] {
        assert_eq!(found(&written(path)), None, "{path}");
    }
}

#[test]
fn the_hierarchies_of_version_one_must_agree() {
    let agree = written(
        "12:pids:/kubepods/podUID/CID\n11:cpu,cpuacct:/kubepods/podUID/CID\n1:name=systemd:/\n0::/system.slice/containerd.service\n",
    );
    assert_eq!(found(&agree), Some((UID.to_owned(), CONTAINER.to_owned())));
    let other_pod = written("2:pids:/kubepods/podUID/CID\n1:cpu:/kubepods/podSTA/CID\n");
    assert!(matches!(
        membership(&other_pod, ""),
        Err(Error::Conflict(..))
    ));
    let other_container = written("2:pids:/kubepods/podUID/CID\n1:cpu:/kubepods/podUID/abc\n");
    assert!(matches!(
        membership(&other_container, ""),
        Err(Error::Conflict(..))
    ));
}

#[test]
fn what_no_kernel_writes_is_refused() {
    assert_eq!(membership("0:/kubepods", ""), Err(Error::Malformed(1)));
    assert_eq!(membership("0::/\nnonsense", ""), Err(Error::Malformed(2)));
    assert_eq!(
        membership(&"a".repeat(MAX_LEN + 1), ""),
        Err(Error::TooLong)
    );
}

#[test]
fn the_saved_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/cgroup");
    let mut seen = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        fuzz(&fs::read(entry.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} inputs");
}

proptest! {
    #[test]
    fn a_uid_is_read_as_it_was_written(groups in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", joint in "[-_]") {
        let text = format!("0::/kubepods/pod{}/cid1", groups.replace('-', &joint));
        prop_assert_eq!(found(&text), Some((groups, "cid1".to_owned())));
    }

    #[test]
    fn no_file_is_too_strange(text in "(([0-9]{0,2}:[a-z=,]{0,6}:(/(kube)?pods?|[-/_:.]|[0-9a-f]{1,12}|\\.slice|pod){0,12})\n?){0,4}") {
        fuzz(text.as_bytes());
    }
}
