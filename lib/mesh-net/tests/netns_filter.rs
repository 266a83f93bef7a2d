//! Conversations with the packet filter and IP sets of real namespaces, with `nft` and `ipset` as witnesses.
#![expect(
    clippy::unwrap_used,
    reason = "what a test needs is there or the test fails"
)]

use std::net::IpAddr;

use mesh_net::{
    ipset::{Error, Members, Set},
    nfnetlink::{self, Socket},
};
use testkit_net::Namespace;

const V4: Set = Set {
    name: "test-v4",
    ipv6: false,
};
const V6: Set = Set {
    name: "test-v6",
    ipv6: true,
};

fn socket(namespace: &Namespace) -> Socket {
    Socket::open(namespace.handle()).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn saved(namespace: &Namespace) -> Vec<String> {
    let saved = namespace.exec("ipset", &["save"], "").unwrap();
    let mut members: Vec<_> = saved
        .lines()
        .filter(|line| line.starts_with("add"))
        .map(str::to_owned)
        .collect();
    members.sort();
    members
}

#[test]
fn a_set_is_what_ipset_shows() {
    let host = Namespace::new("set").unwrap();
    let mut socket = socket(&host);
    for (set, ip) in [(V4, "10.0.0.1"), (V6, "fd00::1")] {
        assert_eq!(set.list(&mut socket).unwrap(), None);
        assert!(!set.insert(&mut socket, address(ip), "nowhere").unwrap());
        assert!(!set.remove(&mut socket, address(ip)).unwrap());
        set.create(&mut socket).unwrap();
        assert_eq!(set.list(&mut socket).unwrap(), Some(Members::new()));
        for uid in ["first", "second"] {
            assert!(set.insert(&mut socket, address(ip), uid).unwrap());
            // Made again, it keeps what is in it.
            set.create(&mut socket).unwrap();
            let shown = format!("add {} {ip} comment \"{uid}\"", set.name);
            assert_eq!(saved(&host), [shown]);
            let members = Members::from([(address(ip), uid.to_owned())]);
            assert_eq!(set.list(&mut socket).unwrap(), Some(members));
        }
        assert!(set.remove(&mut socket, address(ip)).unwrap());
        assert!(!set.remove(&mut socket, address(ip)).unwrap());
        assert!(set.destroy(&mut socket).unwrap());
        assert!(!set.destroy(&mut socket).unwrap());
    }
    assert_eq!(host.exec("ipset", &["list"], "").unwrap(), "");
}

#[test]
fn a_large_set_is_listed_whole() {
    let host = Namespace::new("large").unwrap();
    let mut socket = socket(&host);
    V4.create(&mut socket).unwrap();
    let lines: Vec<_> = (0..4000_u16)
        .map(|n| {
            let [a, b] = n.to_be_bytes();
            format!("add test-v4 10.0.{a}.{b} comment \"a pod's UID has 36 characters {n}\"\n")
        })
        .collect();
    host.exec("ipset", &["restore"], &lines.concat()).unwrap();
    let members = V4.list(&mut socket).unwrap().unwrap();
    assert_eq!(members.len(), 4000);
    assert!(
        members
            .values()
            .all(|comment| comment.starts_with("a pod's UID"))
    );
}

#[test]
fn a_set_that_rules_use_is_busy_and_one_of_another_kind_is_told() {
    let host = Namespace::new("busy").unwrap();
    let mut socket = socket(&host);
    V4.create(&mut socket).unwrap();
    let rule = [
        "-A",
        "OUTPUT",
        "-m",
        "set",
        "--match-set",
        V4.name,
        "dst",
        "-j",
        "RETURN",
    ];
    host.exec("iptables-nft", &rule, "").unwrap();
    let refused = V4.destroy(&mut socket).unwrap_err();
    assert!(matches!(refused, Error::Busy { .. }), "{refused:?}");
    host.exec("ipset", &["create", V6.name, "hash:net"], "")
        .unwrap();
    let refused = V6.create(&mut socket).unwrap_err();
    assert!(matches!(refused, Error::Another { .. }), "{refused:?}");
}

#[test]
fn the_generation_counts_changes_of_rules() {
    let host = Namespace::new("generation").unwrap();
    let mut socket = socket(&host);
    let before = socket.generation().unwrap();
    assert_eq!(socket.generation().unwrap(), before);
    host.exec("nft", &["add", "table", "inet", "one"], "")
        .unwrap();
    assert_ne!(socket.generation().unwrap(), before);
}

#[test]
fn a_batch_that_asks_for_no_acknowledgement_is_not_sent() {
    let host = Namespace::new("silent").unwrap();
    let mut socket = socket(&host);
    for nothing in [&[][..], &[1, 2, 3]] {
        let refused = socket.commit(nothing).unwrap_err();
        assert!(matches!(refused, nfnetlink::Error::Answer), "{refused:?}");
    }
    // The conversation goes on.
    socket.generation().unwrap();
}
