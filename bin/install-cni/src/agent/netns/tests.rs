use std::os::unix::fs::symlink;

use testkit_net::Namespace;

use super::*;

fn mk_host() -> (tempfile::TempDir, Host) {
    let node = tempfile::tempdir().unwrap();
    let proc = node.path().join("proc");
    fs::create_dir_all(proc.join("1/ns")).unwrap();
    symlink("/proc/self/ns/net", proc.join("1/ns/net")).unwrap();
    let host = Host::new(node.path().to_owned(), proc);
    (node, host)
}

fn mk_link(node: &Path, path: &str, namespace: &Namespace) {
    let link = node.join(path);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(namespace.path(), link).unwrap();
}

#[test]
fn the_nodes_paths_are_looked_up_below_its_root() {
    let (node, host) = mk_host();
    let namespace = Namespace::new("pod").unwrap();
    mk_link(node.path(), "var/run/netns/cni-1", &namespace);
    mk_link(node.path(), "proc/42/ns/net", &namespace);
    let id = namespace.handle().id();
    for path in [
        "/var/run/netns/cni-1",
        "/run/netns/cni-1",
        "/proc/42/ns/net",
    ] {
        let located = host.open(path).unwrap();
        assert_eq!((located.netns.id(), located.path), (id, path.into()));
        assert_eq!(host.identify(path), Some(id));
    }
    assert!(matches!(
        host.open("/var/run/netns/gone"),
        Err(Error::Open { .. })
    ));
    assert_eq!(host.identify("/var/run/netns/gone"), None);
}

#[test]
fn paths_that_lead_out_of_the_root_are_refused() {
    let (_node, host) = mk_host();
    for path in [
        "",
        "relative",
        "/var/../etc/passwd",
        "/a/../../b",
        "/a\0b",
        "./x",
    ] {
        assert!(matches!(host.open(path), Err(Error::Path(_))), "{path:?}");
        assert_eq!(host.identify(path), None);
    }
    assert!(matches!(
        host.open(&format!("/{}", "a".repeat(5000))),
        Err(Error::Path(_))
    ));
}

#[test]
fn the_nodes_own_namespace_is_refused() {
    let (node, host) = mk_host();
    symlink("/proc/self/ns/net", node.path().join("own")).unwrap();
    assert!(matches!(host.open("/own"), Err(Error::HostNetwork(_))));
}

#[test]
fn a_namespace_owns_the_addresses_of_its_interfaces() {
    let namespace = Namespace::new("pod").unwrap();
    namespace.ip("addr add 10.1.0.1/32 dev lo").unwrap();
    namespace.ip("addr add fd00::1/128 dev lo nodad").unwrap();
    let of = |addresses: &[&str]| {
        let addresses = addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        owns(namespace.handle(), &addresses).unwrap()
    };
    assert!(of(&["10.9.9.9", "10.1.0.1"]));
    assert!(of(&["fd00::1"]));
    assert!(!of(&["10.9.9.9"]));
    assert!(!of(&[]));
}
