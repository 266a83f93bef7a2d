//! The probe set of a node.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use install_cni::{
    kernel::{Config, Kernel, Mechanism, Variant},
    parts::{PodUid, Probes, Rules},
};
use mesh_redirect::{
    Families, Family, Options, Verdict,
    contract::{INBOUND_PLAINTEXT_PORT, PROBE_ADDRESS_V4, PROBE_ADDRESS_V6},
};
use testkit_net::{
    Namespace, Topology,
    tcp::{Behaviour, Dial, Server},
};

use super::{MECHANISMS, config, kernel, snapshot};

const APP: u16 = 8080;

fn uid(text: &str) -> PodUid {
    Arc::from(text)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn held(kernel: &Kernel) -> BTreeMap<String, String> {
    let held = kernel.list().await.unwrap();
    let text = held
        .iter()
        .map(|(ip, uid)| (ip.to_string(), uid.to_string()));
    text.collect()
}

fn expected<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries
        .map(|(ip, uid)| (ip.to_owned(), uid.to_owned()))
        .into()
}

/// A node on which the legacy tables have been looked at, which has them listed for good.
async fn mk_host() -> Namespace {
    let host = Namespace::new("host").unwrap();
    let legacy = kernel(&host, Mechanism::Iptables(Variant::Legacy)).await;
    legacy.ensure().await.unwrap();
    legacy.clear().await.unwrap();
    host
}

/// Who answers a process of another user, which `setpriv` and the shell play.
fn ask_as_nobody(namespace: &Namespace, to: SocketAddr) -> String {
    let script = format!("exec 3<>/dev/tcp/{}/{} && cat <&3", to.ip(), to.port());
    let arguments = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "bash",
        "-c",
        &script,
    ];
    namespace.exec("setpriv", &arguments, "").unwrap()
}

/// `hostprobe_ipv6` among the cases of Istio's tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_host_sends_to_a_member_is_a_probe_and_nothing_else_is() {
    for mechanism in MECHANISMS {
        let network = Topology::grid(2, 2).unwrap();
        let kernel = kernel(network.nodes()[0].namespace(), mechanism).await;
        kernel.ensure().await.unwrap();
        let pod = network.pods()[0].namespace();
        Rules::apply(&kernel, pod.handle(), &Options::default())
            .await
            .unwrap();
        for ipv6 in [false, true] {
            host_alone_probes(&network, &kernel, ipv6).await;
        }
    }
}

/// `hostprobe` among the cases of Istio's tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_host_without_ipv6_probes_reach_pods_and_nothing_else_does() {
    for mechanism in MECHANISMS {
        let network = Topology::grid(2, 2).unwrap();
        let node = network.nodes()[0].namespace();
        let pods = network
            .pods()
            .iter()
            .map(testkit_net::topology::Pod::namespace);
        for namespace in pods.chain([node]) {
            let script = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6";
            namespace.exec("sh", &["-c", script], "").unwrap();
            assert_eq!(namespace.ip("-6 address").unwrap(), "");
        }
        // Both families are asked for, as by default.
        let kernel = kernel(node, mechanism).await;
        kernel.ensure().await.unwrap();
        let (pod, wanted) = (network.pods()[0].namespace(), Options::default());
        Rules::apply(&kernel, pod.handle(), &wanted).await.unwrap();
        let verdict = kernel.verify(pod.handle(), &wanted).await.unwrap();
        assert_eq!(verdict, Verdict::Same, "{mechanism}");
        host_alone_probes(&network, &kernel, false).await;
        Rules::remove(&kernel, pod.handle()).await.unwrap();
        kernel.clear().await.unwrap();
    }
}

/// The first node's own processes reach an application in its first pod if its address is a member, and
/// everybody else reaches the proxy.
async fn host_alone_probes(network: &Topology, kernel: &Kernel, ipv6: bool) {
    let node = network.nodes()[0].namespace();
    let [pod, neighbour, remote] = [0, 1, 2].map(|index| &network.pods()[index]);
    assert_eq!(pod.node(), neighbour.node());
    assert_ne!(pod.node(), remote.node());
    let (any, probe): (_, IpAddr) = if ipv6 {
        ("::", PROBE_ADDRESS_V6.into())
    } else {
        ("0.0.0.0", PROBE_ADDRESS_V4.into())
    };
    let say = |port, words: &str| {
        let at = SocketAddr::new(address(any), port);
        Server::start(pod.namespace(), at, Behaviour::Say(words.to_owned())).unwrap()
    };
    let (app, _proxy) = (say(APP, "app"), say(INBOUND_PLAINTEXT_PORT, "proxy"));
    let to = SocketAddr::new(pod.address(ipv6), APP);
    let context = format!("{}, IPv6: {ipv6}", kernel.mechanism());

    assert_eq!(Dial::to(to).ask(node).await.unwrap(), "proxy", "{context}");
    kernel.insert(to.ip(), &uid("pod")).await.unwrap();
    assert_eq!(Dial::to(to).ask(node).await.unwrap(), "app", "{context}");
    assert_eq!(app.clients().last().unwrap().ip(), probe, "{context}");
    let nobody = tokio::task::block_in_place(|| ask_as_nobody(node, to));
    assert_eq!(nobody, "app", "{context}");
    for forwarded in [neighbour, remote] {
        let answer = Dial::to(to).ask(forwarded.namespace()).await.unwrap();
        assert_eq!(answer, "proxy", "{context}");
    }
    let removed = Probes::remove(kernel, to.ip(), &uid("pod")).await;
    removed.unwrap();
    assert_eq!(Dial::to(to).ask(node).await.unwrap(), "proxy", "{context}");
}

#[tokio::test]
async fn an_address_that_a_new_pod_got_is_not_taken_from_it_by_the_old_one() {
    for mechanism in MECHANISMS {
        let host = Namespace::new("host").unwrap();
        let kernel = kernel(&host, mechanism).await;
        kernel.ensure().await.unwrap();
        for ip in ["10.0.0.1", "fd00::1"] {
            let address = address(ip);
            kernel.insert(address, &uid("a")).await.unwrap();
            kernel.insert(address, &uid("b")).await.unwrap();
            Probes::remove(&kernel, address, &uid("a")).await.unwrap();
            assert_eq!(held(&kernel).await, expected([(ip, "b")]), "{mechanism}");
            Probes::remove(&kernel, address, &uid("b")).await.unwrap();
            Probes::remove(&kernel, address, &uid("b")).await.unwrap();
            assert_eq!(held(&kernel).await, expected([]), "{mechanism}");
        }
    }
}

#[tokio::test]
async fn ensuring_repairs_the_rule_and_keeps_the_members() {
    for mechanism in MECHANISMS {
        let host = Namespace::new("host").unwrap();
        let kernel = kernel(&host, mechanism).await;
        kernel.ensure().await.unwrap();
        let entries = [("10.0.0.1", "a"), ("10.0.0.2", "b"), ("fd00::1", "a")];
        for (ip, of) in entries {
            kernel.insert(address(ip), &uid(of)).await.unwrap();
        }
        let whole = snapshot(&host);
        let damage = match mechanism {
            Mechanism::Nftables => "nft flush chain inet istio-ambient-nat istio-postrouting",
            Mechanism::Iptables(Variant::Nft) => "iptables-nft -t nat -F POSTROUTING",
            Mechanism::Iptables(Variant::Legacy) => "ip6tables-legacy -t nat -F ISTIO_POSTRT",
        };
        for damage in [None, Some(damage)] {
            if let Some(damage) = damage {
                let words: Vec<_> = damage.split(' ').collect();
                host.exec(words[0], &words[1..], "").unwrap();
                assert_ne!(snapshot(&host), whole, "{mechanism}");
            }
            kernel.ensure().await.unwrap();
            assert_eq!(snapshot(&host), whole, "{mechanism}");
            assert_eq!(held(&kernel).await, expected(entries), "{mechanism}");
        }
    }
}

#[tokio::test]
async fn a_set_that_somebody_removed_is_made_again_by_an_insertion() {
    for mechanism in MECHANISMS {
        let host = mk_host().await;
        let kernel = kernel(&host, mechanism).await;
        assert_eq!(held(&kernel).await, expected([]), "{mechanism}");
        Probes::remove(&kernel, address("10.0.0.1"), &uid("a"))
            .await
            .unwrap();
        kernel.insert(address("10.0.0.1"), &uid("a")).await.unwrap();
        assert_eq!(
            held(&kernel).await,
            expected([("10.0.0.1", "a")]),
            "{mechanism}"
        );
    }
}

#[tokio::test]
async fn clearing_leaves_the_host_as_it_was() {
    for mechanism in MECHANISMS {
        let host = mk_host().await;
        let others =
            "*nat\n:MINE - [0:0]\n-A POSTROUTING -p tcp -j MINE\n-A MINE -j RETURN\nCOMMIT\n";
        for tool in ["iptables-nft-restore", "iptables-legacy-restore"] {
            host.exec(tool, &["--noflush"], others).unwrap();
        }
        let before = snapshot(&host);
        let kernel = kernel(&host, mechanism).await;
        kernel.clear().await.unwrap();
        assert_eq!(snapshot(&host), before, "{mechanism}");
        kernel.ensure().await.unwrap();
        kernel.insert(address("10.0.0.1"), &uid("a")).await.unwrap();
        kernel.insert(address("fd00::1"), &uid("a")).await.unwrap();
        kernel.clear().await.unwrap();
        assert_eq!(snapshot(&host), before, "{mechanism}");
    }
}

#[tokio::test]
async fn members_move_with_the_mechanism_and_nothing_of_the_old_one_stays() {
    for from in MECHANISMS {
        for to in MECHANISMS.into_iter().filter(|to| *to != from) {
            let [fresh, host] = [mk_host().await, mk_host().await];
            let entries = [("10.0.0.1", "a"), ("fd00::1", "b")];
            let from_kernel = kernel(&host, from).await;
            from_kernel.ensure().await.unwrap();
            for (ip, of) in entries {
                from_kernel.insert(address(ip), &uid(of)).await.unwrap();
            }
            let to_kernel = kernel(&host, to).await;
            to_kernel.ensure().await.unwrap();
            assert_eq!(held(&to_kernel).await, expected(entries), "{from} to {to}");
            let on_fresh = kernel(&fresh, to).await;
            on_fresh.ensure().await.unwrap();
            for (ip, of) in entries {
                on_fresh.insert(address(ip), &uid(of)).await.unwrap();
            }
            assert_eq!(snapshot(&host), snapshot(&fresh), "{from} to {to}");
        }
    }
}

#[tokio::test]
async fn a_family_that_is_not_captured_has_no_probe_set() {
    let host = Namespace::new("host").unwrap();
    let only_v4 = Config {
        families: Families::Only(Family::V4),
        ..config(&host)
    };
    let kernel = Kernel::detect(&only_v4).await.unwrap();
    kernel.ensure().await.unwrap();
    for (ip, of) in [("10.0.0.1", "a"), ("fd00::1", "a")] {
        kernel.insert(address(ip), &uid(of)).await.unwrap();
    }
    assert_eq!(held(&kernel).await, expected([("10.0.0.1", "a")]));
    let rules = host.exec("nft", &["list", "ruleset"], "").unwrap();
    assert!(!rules.contains("ip6"), "{rules}");
}

#[tokio::test]
async fn what_has_our_names_and_is_something_else_is_replaced() {
    let host = Namespace::new("host").unwrap();
    let fresh = Namespace::new("fresh").unwrap();
    let table = "add table inet istio-ambient-nat { chain postrouting { type nat hook postrouting \
         priority 99; }; set istio-inpod-probes-v4 { type ipv4_addr . inet_service; }; counter c {}; }";
    host.exec("nft", &["-f", "-"], table).unwrap();
    for namespace in [&host, &fresh] {
        kernel(namespace, Mechanism::Nftables)
            .await
            .ensure()
            .await
            .unwrap();
    }
    assert_eq!(snapshot(&host), snapshot(&fresh));
}

#[tokio::test]
async fn a_uid_that_is_no_comment_is_refused() {
    let host = Namespace::new("host").unwrap();
    let kernel = kernel(&host, Mechanism::Nftables).await;
    let refused = kernel
        .insert(address("10.0.0.1"), &uid(&"x".repeat(128)))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("128"), "{refused}");
}

#[tokio::test]
async fn a_pod_with_an_interface_of_the_cloud_gets_its_probes_led_back() {
    for mechanism in MECHANISMS {
        for early_demultiplexing in ["1", "0"] {
            let host = mk_host().await;
            host.ip("link add eni-a type veth peer name pod-a").unwrap();
            host.ip_batch(
                "link set pod-a up\nlink set eni-a up\nroute add 10.1.0.5/32 dev eni-a table 107\n\
                 rule add iif eni-a lookup 107 pref 10\n",
            )
            .unwrap();
            host.set("net.ipv4.tcp_early_demux", early_demultiplexing)
                .unwrap();
            let before = host.ip("rule").unwrap();
            let kernel = kernel(&host, mechanism).await;
            kernel.ensure().await.unwrap();
            let pod = address("10.1.0.5");
            let led_back = || {
                let rules = host.ip("rule").unwrap();
                rules.contains("to 10.1.0.5") && rules.contains("iif eni-a lookup local")
            };
            let wanted = early_demultiplexing == "0";
            for of in ["a", "b"] {
                kernel.insert(pod, &uid(of)).await.unwrap();
                assert_eq!(led_back(), wanted, "{mechanism}");
            }
            Probes::remove(&kernel, pod, &uid("a")).await.unwrap();
            assert_eq!(led_back(), wanted, "{mechanism}: it is b's now");
            Probes::remove(&kernel, pod, &uid("b")).await.unwrap();
            assert_eq!(host.ip("rule").unwrap(), before, "{mechanism}");
            kernel.insert(pod, &uid("a")).await.unwrap();
            kernel.clear().await.unwrap();
            assert_eq!(host.ip("rule").unwrap(), before, "{mechanism}");
        }
    }
}
