use super::*;

fn mk_sandbox(container_id: &str, interface: &str) -> Sandbox {
    Sandbox {
        network: "cluster".into(),
        container_id: container_id.into(),
        interface: interface.into(),
        netns: "/var/run/netns/cni-1".into(),
        dev: 4,
        ino: 4_026_532_000,
        pod_uid: "u1".into(),
        pod_name: "web".into(),
        pod_namespace: "demo".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
    }
}

fn mk_store(directory: &Path, boot: &str) -> Store {
    Store::open(directory.join("sandboxes"), boot.into()).unwrap()
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory.join("sandboxes")).unwrap().count()
}

#[test]
fn what_is_noted_is_known_in_the_same_boot_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (mk_sandbox("c1", "eth0"), mk_sandbox("c1", "net1"));
    let store = mk_store(directory.path(), "boot-1");
    store.save(&one).unwrap();
    store.save(&two).unwrap();
    store.save(&two).unwrap();
    let mut loaded = mk_store(directory.path(), "boot-1").load();
    loaded.sort_by_key(Sandbox::key);
    assert_eq!(loaded, [one, two]);
    assert_eq!(mk_store(directory.path(), "boot-2").load(), []);
    assert_eq!(files(directory.path()), 0, "they never hold again");
}

#[test]
fn what_was_not_finished_or_is_damaged_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = mk_store(directory.path(), "boot-1");
    let kept = mk_sandbox("c1", "eth0");
    store.save(&kept).unwrap();
    let folder = directory.path().join("sandboxes");
    let whole = fs::read(folder.join("c1.eth0.json")).unwrap();
    fs::write(folder.join("c2.eth0.json"), &whole[..40]).unwrap();
    // Under another's name.
    fs::write(folder.join("c3.eth0.json"), &whole).unwrap();
    fs::write(folder.join(".note-abc"), &whole).unwrap();
    fs::write(folder.join("c4.eth0.json"), vec![b' '; 65 << 10]).unwrap();
    assert_eq!(store.load(), [kept]);
    assert_eq!(files(directory.path()), 1);
}

#[test]
fn a_note_is_removed_once_and_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let store = mk_store(directory.path(), "boot-1");
    store.save(&mk_sandbox("c1", "eth0")).unwrap();
    store.remove("c1", "eth0").unwrap();
    store.remove("c1", "eth0").unwrap();
    assert_eq!(files(directory.path()), 0);
}

#[test]
fn names_that_are_no_names_of_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = mk_store(directory.path(), "boot-1");
    let long = "a".repeat(201);
    for container_id in ["", "../c1", ".c1", "c/1", "c 1", "c\n", "ü", &long] {
        let saved = store.save(&mk_sandbox(container_id, "eth0"));
        assert!(matches!(saved, Err(Error::Name { .. })), "{container_id:?}");
    }
    for interface in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-"] {
        let saved = store.save(&mk_sandbox("c1", interface));
        assert!(matches!(saved, Err(Error::Name { .. })), "{interface:?}");
    }
    assert_eq!(files(directory.path()), 0);
}
