//! The policy route in real network namespaces, with `ip` as the witness.
#![expect(
    clippy::unwrap_used,
    reason = "what a test needs is there or the test fails"
)]

use std::{io, net::SocketAddr, time::Duration};

use mesh_net::{
    routing::{Family, Outcome, PolicyRoute},
    socket::{InPodSockets, SocketFactory as _},
};
use testkit_net::{Namespace, Topology};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const ROUTE: PolicyRoute = PolicyRoute::IN_POD;

/// Longer than a handshake over loopback takes, shorter than the kernel repeats a lost packet.
const HANDSHAKE: Duration = Duration::from_millis(500);

fn ensure(pod: &Namespace, family: Family) -> Outcome {
    pod.enter(|| ROUTE.ensure(family)).unwrap().unwrap()
}

fn remove(pod: &Namespace, family: Family) -> Outcome {
    pod.enter(|| ROUTE.remove(family)).unwrap().unwrap()
}

fn option(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// The rules and the routes concerned, as `ip` shows them.
fn state(pod: &Namespace, family: Family) -> (Vec<String>, Vec<String>) {
    let option = option(family);
    let lines = |text: String| -> Vec<String> {
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    let rules = lines(pod.ip(&format!("{option} rule show pref 32764")).unwrap());
    // An empty table is an error to `ip`.
    let routes = pod.ip(&format!("{option} route show table all type local"));
    let routes = lines(routes.unwrap()).into_iter();
    (
        rules,
        routes.filter(|line| line.contains("table 100")).collect(),
    )
}

#[test]
fn rule_and_route_are_those_of_the_contract_however_often_they_are_ensured() {
    let pod = Namespace::new("ensure").unwrap();
    for family in Family::ALL {
        let mut first = None;
        for _ in 0..3 {
            assert_eq!(ensure(&pod, family), Outcome::Done);
            let (rules, routes) = state(&pod, family);
            assert_eq!(rules, ["32764: from all fwmark 0x111/0xfff lookup 100"]);
            assert_eq!(routes.len(), 1, "{routes:?}");
            let expected = "local default dev lo table 100";
            assert!(routes[0].starts_with(expected), "{routes:?}");
            let first = first.get_or_insert_with(|| routes.clone());
            assert_eq!(*first, routes);
        }
    }
}

#[test]
fn what_ip_made_is_recognised_and_removed() {
    let pod = Namespace::new("foreign").unwrap();
    for family in Family::ALL {
        let option = option(family);
        pod.ip(&format!(
            "{option} rule add fwmark 0x111/0xfff pref 32764 lookup 100"
        ))
        .unwrap();
        pod.ip(&format!(
            "{option} route add local default dev lo table 100"
        ))
        .unwrap();
        ensure(&pod, family);
        assert_eq!(state(&pod, family).0.len(), 1);
        remove(&pod, family);
        assert_eq!(state(&pod, family), (vec![], vec![]));
    }
}

#[test]
fn route_that_another_agent_made_is_removed_whoever_it_names() {
    for protocol in ["boot", "static", "kernel"] {
        let pod = Namespace::new("other").unwrap();
        for family in Family::ALL {
            let option = option(family);
            pod.ip(&format!(
                "{option} route add local default dev lo table 100 proto {protocol}"
            ))
            .unwrap();
            remove(&pod, family);
            assert_eq!(state(&pod, family), (vec![], vec![]), "{protocol}");
        }
    }
}

#[test]
fn ipv6_is_not_skipped_when_ipv4_is_there_already() {
    let pod = Namespace::new("v6").unwrap();
    ensure(&pod, Family::V4);
    for family in Family::ALL {
        ensure(&pod, family);
    }
    let (rules, routes) = state(&pod, Family::V6);
    assert_eq!((rules.len(), routes.len()), (1, 1));
}

#[test]
fn removal_leaves_nothing_and_does_not_stop_at_what_is_missing() {
    let pod = Namespace::new("remove").unwrap();
    for family in Family::ALL {
        assert_eq!(remove(&pod, family), Outcome::Done, "nothing is there yet");
        let option = option(family);
        // Half of it, each way round.
        ensure(&pod, family);
        pod.ip(&format!("{option} rule del pref 32764")).unwrap();
        remove(&pod, family);
        assert_eq!(state(&pod, family), (vec![], vec![]));
        ensure(&pod, family);
        pod.ip(&format!("{option} route flush table 100")).unwrap();
        remove(&pod, family);
        assert_eq!(state(&pod, family), (vec![], vec![]));
    }
}

#[test]
fn other_rules_of_the_pod_are_left_alone() {
    let pod = Namespace::new("others").unwrap();
    pod.ip("rule add fwmark 0x222/0xfff pref 32764 lookup 100")
        .unwrap();
    pod.ip("route add local 192.0.2.0/24 dev lo table 100")
        .unwrap();
    let before = state(&pod, Family::V4);
    ensure(&pod, Family::V4);
    remove(&pod, Family::V4);
    assert_eq!(state(&pod, Family::V4), before);
}

#[test]
fn where_ipv6_is_off_there_is_nothing_to_do() {
    let pod = Namespace::new("off").unwrap();
    pod.set("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
    assert_eq!(ensure(&pod, Family::V6), Outcome::FamilyOff);
    assert_eq!(remove(&pod, Family::V6), Outcome::FamilyOff);
    assert_eq!(ensure(&pod, Family::V4), Outcome::Done);
}

/// The client's address that the application sees, when the proxy connects from `spoofed`.
async fn seen_by_application(
    pod: &Namespace,
    spoofed: SocketAddr,
    application: SocketAddr,
) -> io::Result<SocketAddr> {
    let proxy = InPodSockets::new(pod.handle().clone());
    let unmarked = InPodSockets {
        mark: None,
        ..proxy.clone()
    };
    let listener = unmarked.listen_tcp(application)?;
    let socket = proxy.connect_socket(spoofed.is_ipv6(), Some(spoofed))?;
    let mut client = timeout(HANDSHAKE, socket.connect(application)).await??;
    let (mut server, peer): (TcpStream, _) = listener.accept().await?;
    // Bytes flow both ways.
    client.write_all(b"ask").await?;
    server.read_exact(&mut [0; 3]).await?;
    server.write_all(b"answer").await?;
    client.read_exact(&mut [0; 6]).await?;
    Ok(peer)
}

#[tokio::test]
async fn replies_to_a_spoofed_client_come_back_because_of_the_route() {
    let network = Topology::grid(1, 1).unwrap();
    let pod = &network.pods()[0];
    let namespace = pod.namespace();
    let rules = "\
add table inet t
add chain inet t pre { type filter hook prerouting priority mangle; }
add rule inet t pre meta mark & 0xfff == 0x539 ct mark set 0x111
add chain inet t out { type route hook output priority mangle; }
add rule inet t out ct mark 0x111 meta mark set ct mark
";
    namespace.exec("nft", &["-f", "-"], rules).unwrap();
    let cases = [
        (Family::V4, "203.0.113.7:0"),
        (Family::V6, "[2001:db8::7]:0"),
    ];
    for (family, spoofed) in cases {
        let spoofed: SocketAddr = spoofed.parse().unwrap();
        let application = SocketAddr::new(pod.address(spoofed.is_ipv6()), 8080);
        let without = seen_by_application(namespace, spoofed, application).await;
        without.unwrap_err();
        ensure(namespace, family);
        let seen = seen_by_application(namespace, spoofed, application)
            .await
            .unwrap();
        assert_eq!(seen.ip(), spoofed.ip());
        // The client's port too, where it is asked for.
        let spoofed = SocketAddr::new(spoofed.ip(), 4242);
        let seen = seen_by_application(namespace, spoofed, application)
            .await
            .unwrap();
        assert_eq!(seen, spoofed);
    }
}
