//! The rules in a real kernel: accepted, recognised, idempotent, removable, replaced without a gap.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/engine.rs"]
mod engine;
#[path = "kernel/netlink.rs"]
mod netlink;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_redirect::{
    Difference, Families, Family, Options, Verdict, in_pod, options::ProbeAddresses,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use testkit_net::{
    Namespace, eventually,
    namespace::{Run, connect},
    tcp::{Behaviour, Dial, Server},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use crate::engine::{Engine, few_variants, snapshot, variants};

/// Rules of others, as a pod with a firewall and a port forward of its own has them.
const FOREIGN_NFT: &str = "table inet mine { chain input { type filter hook input priority 0; \
     tcp dport 23 drop; }; set s { type ipv4_addr; }; }\n";
const FOREIGN_IPTABLES: &str = "*nat\n:MINE - [0:0]\n-A PREROUTING -p tcp -m comment --comment \
     \"not for ISTIO_PRERT\" -j MINE\n-A MINE -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 81\n\
     -A OUTPUT -p tcp -m tcp --dport 81 -j MINE\nCOMMIT\n*filter\n-A INPUT -p udp -j DROP\nCOMMIT\n";

fn add_foreign_rules(pod: &Namespace, engine: Engine) {
    match engine {
        Engine::Netlink | Engine::Nft => pod
            .exec("nft", &["-f", "-"], FOREIGN_NFT)
            .map(drop)
            .unwrap(),
        Engine::IptablesNft | Engine::IptablesLegacy => {
            let variant = if engine == Engine::IptablesNft {
                "nft"
            } else {
                "legacy"
            };
            for tool in ["iptables", "ip6tables"] {
                let restore = format!("{tool}-{variant}-restore");
                pod.exec(&restore, &["--noflush"], FOREIGN_IPTABLES)
                    .unwrap();
            }
        }
    }
}

#[test]
fn every_variant_is_accepted_and_recognised() {
    for engine in Engine::ALL {
        let pod = Namespace::new("accept").unwrap();
        for (name, options) in variants() {
            let rules = in_pod(&options);
            engine.apply(&pod, &rules);
            assert_eq!(
                engine.compare(&pod, &rules),
                Verdict::Same,
                "{engine} {name}"
            );
        }
    }
}

#[test]
fn applying_twice_is_applying_once() {
    for engine in Engine::ALL {
        let pod = Namespace::new("twice").unwrap();
        for (name, options) in few_variants() {
            engine.apply(&pod, &in_pod(&options));
            let once = snapshot(&pod);
            engine.apply(&pod, &in_pod(&options));
            assert_eq!(snapshot(&pod), once, "{engine} {name}");
        }
    }
}

#[test]
fn former_rules_leave_nothing_behind() {
    for engine in Engine::IN_USE {
        let reused = mk_pod(engine);
        let variants = few_variants();
        for (name, options) in &variants {
            let fresh = mk_pod(engine);
            engine.apply(&fresh, &in_pod(options));
            let expected = in_order(&snapshot(&fresh));
            for (former, others) in &variants {
                engine.apply(&reused, &in_pod(others));
                engine.apply(&reused, &in_pod(options));
                engine.sweep(&reused);
                let held = in_order(&snapshot(&reused));
                assert_eq!(held, expected, "{engine}: {former}, then {name}");
            }
        }
    }
}

/// A namespace without rules. Legacy tables are listed from the first time that they are looked at, and
/// for good: that is done here.
fn mk_pod(engine: Engine) -> Namespace {
    let pod = Namespace::new("pod").unwrap();
    if engine == Engine::IptablesLegacy {
        engine.apply(&pod, &in_pod(&Options::default()));
        engine.remove(&pod);
    }
    pod
}

/// Lines without their order: iptables-save lists tables as they were made, and sorts chains by need.
fn in_order(snapshot: &str) -> Vec<String> {
    let mut lines: Vec<_> = snapshot.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn removal_leaves_no_trace() {
    for engine in Engine::ALL {
        let pod = mk_pod(engine);
        for foreign in [false, true] {
            if foreign {
                add_foreign_rules(&pod, engine);
            }
            let before = snapshot(&pod);
            for (name, options) in few_variants() {
                engine.apply(&pod, &in_pod(&options));
                assert_ne!(snapshot(&pod), before, "{engine} {name}");
                engine.remove(&pod);
                assert_eq!(snapshot(&pod), before, "{engine} {name} foreign: {foreign}");
            }
        }
    }
}

#[test]
fn removal_is_harmless_where_nothing_is() {
    for engine in Engine::ALL {
        let pod = Namespace::new("nothing").unwrap();
        let before = snapshot(&pod);
        engine.remove(&pod);
        engine.remove(&pod);
        assert_eq!(snapshot(&pod), before, "{engine}");
        assert_eq!(
            engine.compare(&pod, &in_pod(&Options::default())),
            Verdict::Absent,
            "{engine}"
        );
    }
}

#[test]
fn removal_takes_jumps_that_others_made_to_our_chains() {
    for (engine, tool) in [
        (Engine::IptablesNft, "iptables-nft"),
        (Engine::IptablesLegacy, "iptables-legacy"),
    ] {
        let pod = Namespace::new("jumps").unwrap();
        engine.apply(&pod, &in_pod(&Options::default()));
        let insert = [
            "-t",
            "nat",
            "-I",
            "PREROUTING",
            "-p",
            "tcp",
            "-j",
            "ISTIO_PRERT",
        ];
        pod.exec(tool, &insert, "").unwrap();
        engine.remove(&pod);
        let saved = pod.exec(&format!("{tool}-save"), &[], "").unwrap();
        assert!(!saved.contains("ISTIO"), "{saved}");
    }
}

#[test]
fn damage_is_told_and_repaired() {
    let nft: &[&str] = &[
        "flush chain inet istio-ambient-nat output",
        "flush chain inet istio-ambient-nat istio-output",
        "delete table inet istio-ambient-mangle",
        "insert rule inet istio-ambient-nat istio-output tcp dport 22 accept",
        "add rule inet istio-ambient-nat output counter jump istio-output",
        "add chain inet istio-ambient-raw more",
        "add set inet istio-ambient-raw more { type ipv4_addr; }",
        "flush chain inet istio-ambient-raw output; delete chain inet istio-ambient-raw output; \
         add chain inet istio-ambient-raw output { type filter hook output priority -299; }; \
         add rule inet istio-ambient-raw output counter jump istio-output",
    ];
    let iptables: &[&str] = &[
        "*nat\n-D OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n",
        "*nat\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n",
        "*nat\n-F ISTIO_OUTPUT\nCOMMIT\n",
        "*mangle\n-F\n-X\nCOMMIT\n",
        "*nat\n-I ISTIO_OUTPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n",
        "*nat\n-I ISTIO_OUTPUT -p tcp -m comment --comment x -j ACCEPT\nCOMMIT\n",
        "*raw\n-A PREROUTING -p udp -j ISTIO_PRERT\nCOMMIT\n",
    ];
    let rules = in_pod(&Options::default());
    for engine in Engine::ALL {
        let (damages, program, arguments): (_, _, &[&str]) = match engine {
            Engine::Netlink | Engine::Nft => (nft, "nft", &["-f", "-"]),
            Engine::IptablesNft => (iptables, "iptables-nft-restore", &["--noflush"]),
            Engine::IptablesLegacy => (iptables, "iptables-legacy-restore", &["--noflush"]),
        };
        let pod = Namespace::new("damage").unwrap();
        engine.apply(&pod, &rules);
        let whole = in_order(&snapshot(&pod));
        for damage in damages {
            pod.exec(program, arguments, damage).unwrap();
            let verdict = engine.compare(&pod, &rules);
            assert!(
                matches!(verdict, Verdict::Differs(_)),
                "{engine} {damage}: {verdict:?}"
            );
            engine.apply(&pod, &rules);
            assert_eq!(
                engine.compare(&pod, &rules),
                Verdict::Same,
                "{engine} {damage}"
            );
            assert_eq!(in_order(&snapshot(&pod)), whole, "{engine} {damage}");
        }
    }
}

#[test]
fn differences_are_named_in_the_words_of_the_backend() {
    let rules = in_pod(&Options::default());
    let place = ["inet istio-ambient-nat istio-output", "ip nat ISTIO_OUTPUT"];
    let rule = [
        "meta l4proto tcp meta mark & 0xfff == 0x111 counter accept",
        "-p tcp -m mark",
    ];
    for (engine, place, rule) in [
        (Engine::Netlink, place[0], rule[0]),
        (Engine::Nft, place[0], rule[0]),
        (Engine::IptablesNft, place[1], rule[1]),
    ] {
        let pod = Namespace::new("words").unwrap();
        engine.apply(&pod, &rules);
        let listed = pod.exec("nft", &["-a", "list", "ruleset"], "").unwrap();
        let own = |line: &&str| line.contains("0x00000111") && line.contains("accept");
        let handle = listed
            .lines()
            .find(own)
            .and_then(|l| l.rsplit(' ').next())
            .unwrap();
        let (table, chain) = place.rsplit_once(' ').unwrap();
        pod.exec("nft", &["delete", "rule"], "").unwrap_err();
        let delete = format!("delete rule {table} {chain} handle {handle}\n");
        pod.exec("nft", &["-f", "-"], &delete).unwrap();
        let Verdict::Differs(differences) = engine.compare(&pod, &rules) else {
            panic!("{engine}: damage was not seen");
        };
        let [Difference::Missing(item)] = differences.as_slice() else {
            panic!("{engine}: {differences:?}");
        };
        assert!(
            item.place == place && item.what.starts_with(rule),
            "{engine} {item:?}"
        );
    }
}

#[test]
fn foreign_rules_do_not_disturb_the_comparison() {
    for engine in Engine::ALL {
        let pod = Namespace::new("foreign").unwrap();
        add_foreign_rules(&pod, engine);
        let rules = in_pod(&Options::default());
        assert_eq!(engine.compare(&pod, &rules), Verdict::Absent, "{engine}");
        engine.apply(&pod, &rules);
        assert_eq!(engine.compare(&pod, &rules), Verdict::Same, "{engine}");
    }
}

fn any_options() -> impl Strategy<Value = Options> {
    let families = prop_oneof![
        Just(Families::Dual),
        Just(Families::Only(Family::V4)),
        Just(Families::Only(Family::V6)),
    ];
    let interfaces = proptest::collection::vec("[a-zA-Z0-9][a-zA-Z0-9._@-]{0,14}", 0..4);
    let probes = (any::<(u8, u8)>(), any::<[u16; 7]>());
    (families, any::<(bool, bool)>(), interfaces, probes).prop_map(
        |(families, (dns_capture, ingress_mode), interfaces, ((a, b), c))| Options {
            families,
            dns_capture,
            ingress_mode,
            virtual_interfaces: interfaces
                .iter()
                .map(|name| name.parse().unwrap())
                .collect(),
            probes: ProbeAddresses::new(
                [169, 254, a, b].into(),
                [0xfd16, c[0], c[1], c[2], c[3], c[4], c[5], c[6]].into(),
            )
            .unwrap(),
        },
    )
}

#[test]
fn whatever_the_options_the_kernel_accepts_the_rules() {
    let pod = Namespace::new("options").unwrap();
    let mut runner = TestRunner::new(Config::with_cases(10));
    let result = runner.run(&any_options(), |options| {
        let rules = in_pod(&options);
        for engine in Engine::ALL {
            engine.check(&pod, &rules);
        }
        // And reads back what was written, interface names and addresses included.
        for engine in [Engine::Netlink, Engine::Nft, Engine::IptablesNft] {
            engine.apply(&pod, &rules);
            prop_assert_eq!(engine.compare(&pod, &rules), Verdict::Same);
            engine.remove(&pod);
        }
        Ok(())
    });
    result.unwrap();
}

/// A pod and its neighbour.
fn mk_neighbours(run: &Run) -> (Namespace, Namespace) {
    let (host, pod) = (
        run.namespace("host").unwrap(),
        run.namespace("pod").unwrap(),
    );
    connect((&host, "veth"), (&pod, "eth0")).unwrap();
    host.ip("addr add 10.9.0.1/24 dev veth").unwrap();
    pod.ip("addr add 10.9.0.2/24 dev eth0").unwrap();
    (host, pod)
}

#[derive(Debug, PartialEq, Eq)]
enum Life {
    /// Bytes go there and back.
    Carries,
    /// Its peer knows nothing of it.
    Reset,
    /// Nobody answers.
    Silent,
}

/// Sends a byte through a connection to a server that echoes.
async fn life(stream: &mut TcpStream) -> Life {
    let exchange = async {
        stream.write_all(b"?").await?;
        stream.read_u8().await
    };
    match timeout(Duration::from_secs(3), exchange).await {
        Ok(Ok(_)) => Life::Carries,
        Ok(Err(_)) => Life::Reset,
        Err(_elapsed) => Life::Silent,
    }
}

#[tokio::test]
async fn live_connection_survives_replacement_and_ends_with_removal() {
    for engine in Engine::ALL {
        let (host, pod) = mk_neighbours(&Run::new());
        let proxy = SocketAddr::new([10, 9, 0, 2].into(), 15006);
        let _proxy = Server::start(&pod, proxy, Behaviour::Echo).unwrap();
        engine.apply(&pod, &in_pod(&Options::default()));
        let app = SocketAddr::new([10, 9, 0, 2].into(), 8080);
        let mut stream = Dial::to(app).connect(&host).await.unwrap();
        assert_eq!(life(&mut stream).await, Life::Carries, "{engine}");
        let no_dns = Options {
            dns_capture: false,
            ..Options::default()
        };
        for options in [Options::default(), no_dns, Options::default()] {
            engine.apply(&pod, &in_pod(&options));
            assert_eq!(life(&mut stream).await, Life::Carries, "{engine}");
        }
        // It ends with the rules, and at once: it would otherwise reach an application that never
        // opened it.
        engine.remove(&pod);
        assert_eq!(life(&mut stream).await, Life::Reset, "{engine}");
    }
}

#[tokio::test]
async fn connection_from_before_is_reset_when_the_pod_joins() {
    for engine in Engine::ALL {
        let (host, pod) = mk_neighbours(&Run::new());
        for (from, to, ip) in [(&host, &pod, [10, 9, 0, 2]), (&pod, &host, [10, 9, 0, 1])] {
            let server = SocketAddr::new(ip.into(), 8080);
            let _server = Server::start(to, server, Behaviour::Echo).unwrap();
            let mut stream = Dial::to(server).connect(from).await.unwrap();
            assert_eq!(life(&mut stream).await, Life::Carries, "{engine}");
            engine.apply(&pod, &in_pod(&Options::default()));
            assert_eq!(
                life(&mut stream).await,
                Life::Reset,
                "{engine}, from {}",
                from.name()
            );
            engine.remove(&pod);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_escapes_while_rules_are_replaced() {
    for engine in Engine::ALL {
        let run = Run::new();
        let (host, pod) = mk_neighbours(&run);
        let say = |port: u16, words: &str| {
            let address = SocketAddr::new([10, 9, 0, 2].into(), port);
            Server::start(&pod, address, Behaviour::Say(words.to_owned())).unwrap()
        };
        let _listening = [say(8080, "app"), say(15006, "proxy")];
        let rules = in_pod(&Options::default());
        engine.apply(&pod, &rules);

        let (host, asked) = (Arc::new(host), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (host, asked, stop) = (host.clone(), asked.clone(), stop.clone());
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let dial = Dial::to(SocketAddr::new([10, 9, 0, 2].into(), 8080));
                        let answer = dial.ask(&host).await;
                        if !matches!(answer.as_deref(), Ok("proxy")) {
                            return Err(answer);
                        }
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        for _ in 0..15 {
            let before = asked.load(Ordering::Relaxed);
            tokio::task::block_in_place(|| engine.apply(&pod, &rules));
            let more = || {
                asked.load(Ordering::Relaxed) > before
                    || clients.iter().any(JoinHandle::is_finished)
            };
            eventually("another connection", Duration::from_secs(10), more)
                .await
                .unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client
                .await
                .unwrap()
                .unwrap_or_else(|answer| panic!("{engine}: {answer:?}"));
        }
    }
}
