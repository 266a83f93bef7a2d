//! Rules in pods.

use std::{fs, process::Command, sync::Arc, time::Duration};

use futures::future::join_all;
use install_cni::{
    kernel::{Config, Kernel, Mechanism, Variant},
    parts::{self, Rules as _},
};
use mesh_net::netns::NetNs;
use mesh_redirect::{Options, Verdict};
use testkit_net::{Namespace, Process};

use super::{MECHANISMS, config, kernel, snapshot};

/// Rules of others, as a pod with a firewall and a port forward of its own has them. They use the chains
/// that ours are reached from: an empty one that iptables made stays, because it may be anybody's.
const FOREIGN: &str = "*nat\n:MINE - [0:0]\n-A PREROUTING -p tcp -j MINE\n-A OUTPUT -p udp -j MINE\n\
     -A MINE -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 81\nCOMMIT\n\
     *filter\n-A INPUT -p udp -j DROP\nCOMMIT\n";

fn no_dns() -> Options {
    Options {
        dns_capture: false,
        ..Options::default()
    }
}

/// A pod in which the legacy tables have been looked at, which has them listed for good.
async fn mk_pod(host: &Namespace, label: &str) -> Namespace {
    let pod = Namespace::new(label).unwrap();
    let legacy = kernel(host, Mechanism::Iptables(Variant::Legacy)).await;
    legacy
        .apply(pod.handle(), &Options::default())
        .await
        .unwrap();
    legacy.remove(pod.handle()).await.unwrap();
    pod
}

#[tokio::test]
async fn what_is_applied_verifies_and_goes_without_a_trace() {
    let host = Namespace::new("host").unwrap();
    for mechanism in MECHANISMS {
        let (pod, kernel) = (mk_pod(&host, "pod").await, kernel(&host, mechanism).await);
        for tool in ["iptables-nft-restore", "iptables-legacy-restore"] {
            pod.exec(tool, &["--noflush"], FOREIGN).unwrap();
        }
        let before = snapshot(&pod);
        let netns = pod.handle();
        for options in [Options::default(), no_dns()] {
            let verdict = kernel.verify(netns, &options).await.unwrap();
            assert_eq!(verdict, Verdict::Absent, "{mechanism}");
            kernel.apply(netns, &options).await.unwrap();
            let verdict = kernel.verify(netns, &options).await.unwrap();
            assert_eq!(verdict, Verdict::Same, "{mechanism}");
            kernel.remove(netns).await.unwrap();
            kernel.remove(netns).await.unwrap();
            assert_eq!(snapshot(&pod), before, "{mechanism}");
        }
    }
}

#[tokio::test]
async fn what_is_as_it_should_be_is_not_touched() {
    let host = Namespace::new("host").unwrap();
    // With handles and counters, which a rule that is made anew loses.
    let everything = |pod: &Namespace| {
        [
            "nft -a list ruleset",
            "iptables-legacy-save -c",
            "ip6tables-legacy-save -c",
        ]
        .map(|words| {
            let words: Vec<_> = words.split(' ').collect();
            let listed = pod.exec(words[0], &words[1..], "").unwrap();
            listed
                .lines()
                .filter(|line| !line.starts_with('#'))
                .collect::<Vec<_>>()
                .join("\n")
        })
    };
    for mechanism in MECHANISMS {
        let (pod, kernel) = (
            Namespace::new("pod").unwrap(),
            kernel(&host, mechanism).await,
        );
        kernel
            .apply(pod.handle(), &Options::default())
            .await
            .unwrap();
        let once = everything(&pod);
        kernel
            .apply(pod.handle(), &Options::default())
            .await
            .unwrap();
        assert_eq!(everything(&pod), once, "{mechanism}");
    }
}

#[tokio::test]
async fn each_mechanism_takes_over_from_each_other() {
    let host = Namespace::new("host").unwrap();
    for from in MECHANISMS {
        for to in MECHANISMS.into_iter().filter(|to| *to != from) {
            let [fresh, pod] = [mk_pod(&host, "fresh").await, mk_pod(&host, "pod").await];
            let [from_kernel, to_kernel] = [kernel(&host, from).await, kernel(&host, to).await];
            from_kernel
                .apply(pod.handle(), &Options::default())
                .await
                .unwrap();
            let verdict = to_kernel
                .verify(pod.handle(), &Options::default())
                .await
                .unwrap();
            assert!(
                matches!(verdict, Verdict::Differs(_)),
                "{from} to {to}: {verdict:?}"
            );
            for netns in [fresh.handle(), pod.handle()] {
                to_kernel.apply(netns, &Options::default()).await.unwrap();
            }
            assert_eq!(snapshot(&pod), snapshot(&fresh), "{from} to {to}");
            let verdict = to_kernel
                .verify(pod.handle(), &Options::default())
                .await
                .unwrap();
            assert_eq!(verdict, Verdict::Same, "{from} to {to}");
        }
    }
}

#[tokio::test]
async fn each_mechanism_removes_what_any_other_left() {
    let host = Namespace::new("host").unwrap();
    for from in MECHANISMS {
        for to in MECHANISMS.into_iter().filter(|to| *to != from) {
            let pod = mk_pod(&host, "pod").await;
            let before = snapshot(&pod);
            let [from_kernel, to_kernel] = [kernel(&host, from).await, kernel(&host, to).await];
            from_kernel
                .apply(pod.handle(), &Options::default())
                .await
                .unwrap();
            to_kernel.remove(pod.handle()).await.unwrap();
            assert_eq!(snapshot(&pod), before, "{from} to {to}");
        }
    }
}

#[tokio::test]
async fn damage_to_rules_and_route_is_found_and_repaired() {
    let host = Namespace::new("host").unwrap();
    for mechanism in MECHANISMS {
        let (pod, kernel) = (
            Namespace::new("pod").unwrap(),
            kernel(&host, mechanism).await,
        );
        let netns = pod.handle();
        kernel.apply(netns, &Options::default()).await.unwrap();
        let whole = snapshot(&pod);
        let rules = match mechanism {
            Mechanism::Nftables => "nft flush chain inet istio-ambient-nat istio-output",
            Mechanism::Iptables(Variant::Nft) => "iptables-nft -t nat -F ISTIO_OUTPUT",
            Mechanism::Iptables(Variant::Legacy) => "ip6tables-legacy -t nat -F ISTIO_PRERT",
        };
        for damage in [
            rules,
            "ip rule del pref 32764",
            "ip -6 rule del pref 32764",
            "ip route flush table 100",
            "ip -6 route flush table 100",
        ] {
            let words: Vec<_> = damage.split(' ').collect();
            pod.exec(words[0], &words[1..], "").unwrap();
            let verdict = kernel.verify(netns, &Options::default()).await.unwrap();
            assert!(
                matches!(verdict, Verdict::Differs(_)),
                "{mechanism}: {damage}: {verdict:?}"
            );
            kernel.apply(netns, &Options::default()).await.unwrap();
            let verdict = kernel.verify(netns, &Options::default()).await.unwrap();
            assert_eq!(verdict, Verdict::Same, "{mechanism}: {damage}");
            assert_eq!(snapshot(&pod), whole, "{mechanism}: {damage}");
        }
    }
}

#[tokio::test]
async fn a_pod_s_owner_who_fills_our_tables_has_them_made_anew() {
    let host = Namespace::new("host").unwrap();
    let kernel = kernel(&host, Mechanism::Nftables).await;
    let pod = Namespace::new("pod").unwrap();
    let wanted = Options::default();
    kernel.apply(pod.handle(), &wanted).await.unwrap();
    let before = snapshot(&pod);
    let rule = "add rule inet istio-ambient-mangle istio-output counter accept\n";
    pod.exec("nft", &["-f", "-"], &rule.repeat(20_000)).unwrap();
    let verdict = kernel.verify(pod.handle(), &wanted).await.unwrap();
    assert!(matches!(verdict, Verdict::Differs(_)), "{verdict:?}");
    kernel.apply(pod.handle(), &wanted).await.unwrap();
    assert_eq!(snapshot(&pod), before);
    let verdict = kernel.verify(pod.handle(), &wanted).await.unwrap();
    assert_eq!(verdict, Verdict::Same);
}

#[tokio::test]
async fn a_route_without_rules_is_not_taken_for_nothing() {
    let host = Namespace::new("host").unwrap();
    let (pod, kernel) = (
        Namespace::new("pod").unwrap(),
        kernel(&host, Mechanism::Nftables).await,
    );
    pod.ip("rule add fwmark 0x111/0xfff pref 32764 lookup 100")
        .unwrap();
    let verdict = kernel
        .verify(pod.handle(), &Options::default())
        .await
        .unwrap();
    assert!(matches!(verdict, Verdict::Differs(_)), "{verdict:?}");
    // A rule that selects less is another.
    pod.ip("rule del pref 32764").unwrap();
    pod.ip("rule add from 10.0.0.0/8 fwmark 0x111/0xfff pref 32764 lookup 100")
        .unwrap();
    let verdict = kernel
        .verify(pod.handle(), &Options::default())
        .await
        .unwrap();
    assert_eq!(verdict, Verdict::Absent);
}

#[tokio::test]
async fn a_pod_without_ipv6_is_whole_until_it_gets_ipv6() {
    let host = Namespace::new("host").unwrap();
    for mechanism in MECHANISMS {
        let (pod, kernel) = (
            Namespace::new("pod").unwrap(),
            kernel(&host, mechanism).await,
        );
        pod.set("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
        let netns = pod.handle();
        kernel.apply(netns, &Options::default()).await.unwrap();
        let verdict = kernel.verify(netns, &Options::default()).await.unwrap();
        assert_eq!(verdict, Verdict::Same, "{mechanism}");
        pod.set("net.ipv6.conf.all.disable_ipv6", "0").unwrap();
        let verdict = kernel.verify(netns, &Options::default()).await.unwrap();
        assert!(
            matches!(verdict, Verdict::Differs(_)),
            "{mechanism}: {verdict:?}"
        );
        kernel.apply(netns, &Options::default()).await.unwrap();
        let verdict = kernel.verify(netns, &Options::default()).await.unwrap();
        assert_eq!(verdict, Verdict::Same, "{mechanism}");
    }
}

#[tokio::test]
async fn what_a_pod_is_configured_for_changes_while_it_runs() {
    let host = Namespace::new("host").unwrap();
    for mechanism in MECHANISMS {
        let (pod, kernel) = (
            Namespace::new("pod").unwrap(),
            kernel(&host, mechanism).await,
        );
        for options in [Options::default(), no_dns(), Options::default()] {
            kernel.apply(pod.handle(), &options).await.unwrap();
            let verdict = kernel.verify(pod.handle(), &options).await.unwrap();
            assert_eq!(verdict, Verdict::Same, "{mechanism}");
        }
        let verdict = kernel.verify(pod.handle(), &no_dns()).await.unwrap();
        assert!(
            matches!(verdict, Verdict::Differs(_)),
            "{mechanism}: {verdict:?}"
        );
    }
}

#[tokio::test]
async fn many_pods_are_worked_on_at_once() {
    let host = Namespace::new("host").unwrap();
    let pods: Vec<_> = (0..12)
        .map(|n| Namespace::new(&format!("pod{n}")).unwrap())
        .collect();
    for mechanism in MECHANISMS {
        let kernel = kernel(&host, mechanism).await;
        let options = Options::default();
        let applied = join_all(pods.iter().map(|pod| kernel.apply(pod.handle(), &options)));
        applied
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let verified = join_all(pods.iter().map(|pod| kernel.verify(pod.handle(), &options))).await;
        assert!(
            verified.into_iter().all(|v| v.unwrap() == Verdict::Same),
            "{mechanism}"
        );
    }
}

#[tokio::test]
async fn the_legacy_variant_waits_for_the_host_s_lock_on_the_host_and_not_in_pods() {
    let (host, pod) = (
        Namespace::new("host").unwrap(),
        Namespace::new("pod").unwrap(),
    );
    let kernel = kernel(&host, Mechanism::Iptables(Variant::Legacy)).await;
    let lock = fs::File::create("/run/xtables.lock").unwrap();
    lock.lock().unwrap();
    let ensuring = tokio::spawn({
        let kernel = kernel.clone();
        async move { parts::Probes::ensure(&kernel).await }
    });
    for _ in 0..3 {
        let wanted = Options::default();
        kernel.apply(pod.handle(), &wanted).await.unwrap();
        kernel.remove(pod.handle()).await.unwrap();
    }
    assert!(!ensuring.is_finished(), "the host's rules were changed");
    drop(lock);
    ensuring.await.unwrap().unwrap();
    let saved = host.exec("iptables-legacy-save", &["-t", "nat"], "");
    assert!(saved.unwrap().contains("ISTIO_POSTRT"));
}

async fn detected(config: &Config) -> Mechanism {
    Kernel::detect(config).await.unwrap().mechanism()
}

#[tokio::test]
async fn a_node_gets_the_mechanism_that_it_has_or_is_told() {
    let host = Namespace::new("host").unwrap();
    let by_default = config(&host);
    let before = snapshot(&host);
    assert_eq!(detected(&by_default).await, Mechanism::Nftables);
    assert_eq!(snapshot(&host), before, "finding out has no effect");
    let no_nftables = Config {
        native_nftables: Some(false),
        ..config(&host)
    };
    assert_eq!(
        detected(&no_nftables).await,
        Mechanism::Iptables(Variant::Nft)
    );
    for variant in [Variant::Legacy, Variant::Nft] {
        let forced = Config {
            iptables: Some(variant),
            ..config(&host)
        };
        assert_eq!(detected(&forced).await, Mechanism::Iptables(variant));
        let both = Config {
            native_nftables: Some(true),
            ..forced
        };
        assert_eq!(detected(&both).await, Mechanism::Nftables);
    }
    // Policies and empty chains of the legacy variant do not count; rules do.
    let legacy = |input| {
        host.exec("iptables-legacy-restore", &["--noflush"], input)
            .unwrap()
    };
    legacy("*nat\n:EMPTY - [0:0]\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    assert_eq!(
        detected(&no_nftables).await,
        Mechanism::Iptables(Variant::Nft)
    );
    legacy("*nat\n-A EMPTY -j RETURN\nCOMMIT\n");
    assert_eq!(
        detected(&no_nftables).await,
        Mechanism::Iptables(Variant::Legacy)
    );
    assert_eq!(detected(&by_default).await, Mechanism::Nftables);
}

#[tokio::test]
async fn a_pod_in_a_user_namespace_of_its_own_is_worked_on() {
    let host = Namespace::new("host").unwrap();
    for mechanism in MECHANISMS {
        let kernel = kernel(&host, mechanism).await;
        // As with `hostUsers: false`: the pod's root is nobody here.
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--net",
            "sh",
            "-c",
            "ip link set lo up; echo ready; exec sleep 60",
        ]);
        let mut pod = Process::spawn(command, None).unwrap();
        pod.wait_for("ready", Duration::from_secs(10))
            .await
            .unwrap();
        let netns = Arc::new(NetNs::open(format!("/proc/{}/ns/net", pod.id())).unwrap());
        assert_ne!(netns.id(), host.handle().id());
        kernel.apply(&netns, &Options::default()).await.unwrap();
        let verdict = kernel.verify(&netns, &Options::default()).await.unwrap();
        assert_eq!(verdict, Verdict::Same, "{mechanism}");
        kernel.remove(&netns).await.unwrap();
        let verdict = kernel.verify(&netns, &Options::default()).await.unwrap();
        assert_eq!(verdict, Verdict::Absent, "{mechanism}");
    }
}
