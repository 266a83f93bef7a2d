use std::{collections::BTreeSet, net::TcpListener, panic};

use super::*;
use crate::leftover;

#[test]
fn no_two_runs_have_the_same_name() {
    const MANY: usize = 5_000;
    let names: BTreeSet<_> = (0..MANY).map(|_| Run::new().to_string()).collect();
    assert_eq!(names.len(), MANY);
}

#[test]
fn namespace_goes_when_its_value_does() {
    let namespace = Namespace::new("gone").unwrap();
    let path = namespace.path();
    assert!(path.exists());
    drop(namespace);
    assert!(!path.exists());
}

#[test]
fn namespace_goes_when_the_test_panics() {
    let namespace = Namespace::new("panic").unwrap();
    let path = namespace.path();
    let result = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let _held = namespace;
        panic!("as a failing test does");
    }));
    assert!(result.is_err());
    assert!(!path.exists());
}

#[test]
fn process_that_outlived_its_handle_does_not_outlive_the_namespace() {
    let namespace = Namespace::new("stray").unwrap();
    let spawned = namespace.enter(|| Command::new("sleep").arg("1000").spawn());
    let mut stray = spawned.unwrap().unwrap();
    drop(namespace);
    assert!(!stray.wait().unwrap().success());
}

#[test]
fn closure_runs_inside_and_the_thread_comes_back() {
    let namespace = Namespace::new("inside").unwrap();
    let before = NetNs::current().unwrap().id();
    let inside = namespace.enter(|| NetNs::current().unwrap().id()).unwrap();
    assert_eq!(inside, namespace.handle().id());
    assert_ne!(inside, before);
    assert_eq!(NetNs::current().unwrap().id(), before);
}

#[test]
fn cable_joins_two_namespaces() {
    let run = Run::new();
    let (a, b) = (run.namespace("a").unwrap(), run.namespace("b").unwrap());
    connect((&a, "eth0"), (&b, "eth0")).unwrap();
    a.ip("addr add 192.0.2.1/24 dev eth0").unwrap();
    b.ip("addr add 192.0.2.2/24 dev eth0").unwrap();
    let listener = b
        .enter(|| TcpListener::bind("192.0.2.2:0"))
        .unwrap()
        .unwrap();
    let address = listener.local_addr().unwrap();
    let dialled = a
        .enter(|| std::net::TcpStream::connect(address))
        .unwrap()
        .unwrap();
    assert_eq!(dialled.local_addr().unwrap().ip().to_string(), "192.0.2.1");
}

#[test]
fn failed_program_is_quoted_with_its_place() {
    let namespace = Namespace::new("quoted").unwrap();
    let error = namespace.ip("link set nowhere up").unwrap_err().to_string();
    let start = format!("ip link set nowhere up, in {}: ", namespace.name());
    assert!(
        error.starts_with(&start) && error.contains("nowhere"),
        "{error}"
    );
}

#[test]
fn setting_is_of_the_namespace_alone() {
    let run = Run::new();
    let (a, b) = (run.namespace("a").unwrap(), run.namespace("b").unwrap());
    a.set("net.ipv4.ip_forward", "1").unwrap();
    let read = |n: &Namespace| {
        n.exec("cat", &["/proc/sys/net/ipv4/ip_forward"], "")
            .unwrap()
    };
    assert_eq!((read(&a).trim(), read(&b).trim()), ("1", "0"));
}

#[test]
fn names_are_recognised_as_leftovers_of_this_process() {
    let namespace = Namespace::new("listed").unwrap();
    let listed = leftover::list().unwrap();
    let own = listed.iter().find(|l| l.name == namespace.name()).unwrap();
    assert_eq!(own.process, std::process::id());
    assert!(!own.is_orphan());
}
